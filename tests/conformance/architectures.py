"""Every causal family of the installed Transformers, tiny and random, on the Hugging Face engine against ``generate``.

``python -m tests.conformance.architectures`` (``make conformance``) prints a table; names of families as arguments
restrict it. Four conversations of three turns share two slots, so that slots are stolen; one history is cut. A family
is right if every answer is the one that plain ``generate`` gives to the same tokens.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.engines.conftest import Conversation
from tests.tiny_model import make_tokenizer
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import SamplingParams
from vendomini.engines.hf.engine import HuggingFaceEngine
from vendomini.errors import EngineUnavailable
from vendomini.probe import Capabilities

NEW = 6
"""Tokens of a completion."""

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "d_model": 64, "n_embd": 64, "intermediate_size": 96, "ffn_dim": 96,
    "num_hidden_layers": 4, "n_layer": 4, "num_layers": 4, "n_layers": 4, "num_attention_heads": 4, "n_head": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "n_positions": 512, "seq_length": 512,
    "n_ctx": 512, "max_seq_len": 512,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "initializer_range": 0.2,
    "sliding_window": 16, "window_size": 16, "attention_window_size": 16, "attention_chunk_size": 16,
    "moe_intermediate_size": 32, "num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4,
    "moe_num_experts": 4, "num_experts_per_tok": 2, "num_experts_per_token": 2, "moe_topk": 2, "moe_k": 2, "n_group": 1,
    "topk_group": 1, "shared_expert_intermediate_size": 32, "moe_shared_expert_intermediate_size": 32,
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "embed_dim": 64, "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 300, "word_embed_proj_dim": 64, "num_heads": 4, "depth": 2, "patch_size": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_num_heads": 8, "mamba_head_dim": 16, "mamba_d_state": 16,
    "mamba_chunk_size": 16, "chunk_size": 16, "ssm_state_size": 16, "mamba_n_groups": 2, "n_groups": 2,
    "mamba_d_ssm": 128, "num_nextn_predict_layers": 0, "global_head_dim": 16, "num_global_key_value_heads": 2,
    "num_kv_shared_layers": 0, "index_head_dim": 16, "index_n_heads": 2, "index_topk": 64,
    "o_lora_rank": 16, "o_groups": 2,
    "dim_model": 64, "dim_ff": 96, "dim_head": 16, "lru_width": 64, "block_size": 8,
}  # fmt: skip
"""Key of a config → its value in the tiny model, where the family has such a key."""

GLOBAL = {"hidden_size_global": 64}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}

SPECIAL: dict[str, dict[str, Any]] = {
    "phi3": {
        "max_position_embeddings": 128,
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [4.0 + n for n in range(8)],
            "partial_rotary_factor": 1.0,
        },
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4, "num_hidden_layers": 4},
    "mamba2": {"num_heads": 8, "head_dim": 16, "expand": 2, "state_size": 16},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba", "attention"]},
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"moe_num_experts": 4, "ffn_hidden_size": 32},
    },
    "dots1": {"first_k_dense_replace": 1, "n_shared_experts": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "zamba": {"layers_block_type": ["mamba", "hybrid"] * 2},
    "zamba2": {"layer_types": ["mamba", "hybrid"] * 2, "hybrid_layer_ids": [1, 3]},
    "zaya": {"num_experts_per_tok": 1},
    "qwen2_vl": {"text_config": {"rope_parameters": MROPE}},
    "qwen2_5_vl": {"text_config": {"rope_parameters": MROPE}},
    "blt": {"encoder_hash_byte_group_vocab": 1000, "encoder_config": GLOBAL, "decoder_config": GLOBAL},
    "gemma2": {"attn_logit_softcapping": 2.0},
    "roberta": {"is_decoder": True},
}
"""What a family needs beside, or what makes it show its worst side."""

WRAPPERS = ("mistral3", "llava", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "aya_vision")
"""Of the image models those that are served as chat models most."""

NO_CHAT = {
    "whisper", "trocr", "musicgen", "musicgen_melody", "moshi", "git", "speech_to_text", "gemma4_assistant",
    "gemma4_unified_assistant", "got_ocr2", "data2vec-text", "reformer", "xlm", "xlnet", "cpmant",
    "bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "camembert",
    "electra", "ernie", "marian", "mbart", "megatron-bert", "mvp", "pegasus", "plbart", "prophetnet", "rembert",
    "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Decoders of speech and translation, halves of encoders, drafts: nothing that anybody holds a conversation with."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``verdict`` is ``batched``, ``one at a time``, ``refused``, ``wrong`` or ``not built``."""

    family: str
    verdict: str
    attention: str = ""
    note: str = ""


def families() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    return [name for name in (*CAUSAL, *WRAPPERS) if name not in NO_CHAT]


def tiny_config(family: str) -> Any:
    """The family's own default config with small numbers.

    Raises:
        Exception: the family does not take them.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return _shrunk(CONFIG_MAPPING[family], SPECIAL.get(family, {}))


def _shrunk(kind: Any, special: dict[str, Any]) -> Any:
    try:
        whole = kind()
    except Exception:  # one that is nothing without its parts
        whole = None
    parts = {
        name: _shrunk(type(part), special.get(name, {}))
        for name in getattr(kind, "sub_configs", {})
        if hasattr(part := getattr(whole, name, None), "to_dict")
    }
    default = whole.to_dict() if whole is not None else {}
    renamed = {value: key for key, value in getattr(kind, "attribute_map", {}).items()}
    own = {key: SIZES[key] for key in default if key in SIZES and isinstance(default[key], int | float | None)}
    own |= {key: SIZES[renamed[key]] for key in default if renamed.get(key) in SIZES and key not in own}
    if "kv_lora_rank" in own:  # latent attention has a key for every head, and calls the rotated part of it head_dim
        own["num_key_value_heads"] = SIZES["num_attention_heads"]
        own["head_dim"] = SIZES["qk_rope_head_dim"]
    own |= {key: SIZES[key] for key in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id") if key in default}
    return kind(**{**own, **special, **parts})


def make_model(family: str, folder: Path) -> None:
    """A random model of this family and a tokenizer, in a folder.

    Raises:
        Exception: Transformers can't make one so small.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    config = tiny_config(family)
    torch.manual_seed(0)
    auto = AutoModelForImageTextToText if family in WRAPPERS else AutoModelForCausalLM
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in auto.from_config(config).parameters())
    if size > 60_000_000:
        raise ValueError(f"{size / 1e6:.0f} M parameters are not tiny")
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "norm" not in name:
                parameter.mul_(0.15 / max(float(parameter.std()), 1e-6)) if float(parameter.std()) > 1e-6 else None
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


@cache
def tokenizer() -> Any:
    return make_tokenizer(300)


class Dialogue:
    """One conversation: tokens that grow turn by turn; one of them loses its middle before turn 3."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.conversation = Conversation(self.some(15 + 11 * number))
        self.cut = number == 1

    def some(self, count: int) -> list[int]:
        return [self.random.randrange(5, 290) for _ in range(count)]

    def hear(self, said: list[int], turn: int) -> None:
        ids = self.conversation.token_ids + said + self.some(7 + 4 * turn)
        self.conversation.token_ids = ids[:9] + ids[20:] if self.cut and turn == 1 else ids


class Plain:
    """The same model, asked by ``generate`` without a cache: every token from everything before it.

    With its cache, ``generate`` itself goes wrong where Phi-3 changes its rotary factors.
    """

    def __init__(self, engine: HuggingFaceEngine) -> None:
        self.loaded = engine.loaded
        assert self.loaded is not None

    def says(self, ids: list[int]) -> list[int]:
        import torch
        from transformers import GenerationConfig

        tensor = torch.tensor([ids])
        config = GenerationConfig(
            max_new_tokens=NEW, do_sample=False, use_cache=False, pad_token_id=0, eos_token_id=list(self.loaded.eos)
        )
        with torch.inference_mode():
            made = self.loaded.model.generate(tensor, attention_mask=torch.ones_like(tensor), generation_config=config)
        return [int(token) for token in made[0, len(ids) :]]


async def converse(engine: HuggingFaceEngine) -> Iterator[str]:
    """What differed, in words; nothing where all was right."""
    plain, faults = Plain(engine), []
    dialogues = [Dialogue(number) for number in range(4)]
    params = SamplingParams(max_tokens=NEW, temperature=0)
    for turn in range(3):
        prompts = [list(one.conversation.token_ids) for one in dialogues]
        answers = await asyncio.gather(*(engine.generate(one.conversation, params) for one in dialogues))
        for number, (one, ids, answer) in enumerate(zip(dialogues, prompts, answers, strict=True)):
            said = plain.says(ids)
            ended = [token for token in said if token not in plain.loaded.eos]
            if answer.text != engine.tokenizer.decode(ended, skip_special_tokens=False):
                faults.append(f"turn {turn + 1} of conversation {number + 1}")
            one.hear(said, turn)
    return iter(faults)


def examine(
    family: str, say: Any = lambda _: None, attention: str = "auto", found: Capabilities | None = None
) -> Outcome:
    """One family, from a random model to the verdict."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            make_model(family, folder)
        except Exception as exc:  # the matrix goes on
            return Outcome(family, "not built", note=_line(exc))
        return asyncio.run(_examine(family, folder, say, attention, found or Capabilities(memory=1 << 34)))


async def _examine(family: str, folder: Path, say: Any, attention: str, found: Capabilities) -> Outcome:
    config = EngineConfig.model_validate({"max_num_seqs": 2, "attn_implementation": attention})
    engine = HuggingFaceEngine(
        Model(name=str(folder), dtype="float32", context_length=512, max_tokens=64), config, found, say
    )
    try:
        async with engine:
            faults = list(await converse(engine))
            batching = str(engine.info.details["batching"])
            how, _, why = batching.partition(": ")
            verdict = "batched" if batching == "continuous" else "one at a time"
            if faults:
                return Outcome(family, "wrong", engine.info.attention or "", f"{verdict}: {', '.join(faults)}")
            return Outcome(family, verdict, engine.info.attention or "", why and f"{how.partition(', ')[2]}: {why}")
    except EngineUnavailable as exc:
        return Outcome(family, "refused", note=str(exc).replace(str(folder), "the model"))
    except Exception as exc:
        return Outcome(family, "wrong", note=_line(exc))


def _line(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}"[:200]


def main(names: list[str]) -> int:
    import transformers

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    began, outcomes = time.monotonic(), []
    for family in names or families():
        outcomes.append(examine(family))
        one = outcomes[-1]
        print(f"| {one.family} | {one.verdict} | {one.attention} | {one.note} |", flush=True)
    counts = Counter(one.verdict for one in outcomes)
    print(
        f"\nTransformers {transformers.__version__}, {len(outcomes)} families, {time.monotonic() - began:.0f} s: ",
        end="",
    )
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
