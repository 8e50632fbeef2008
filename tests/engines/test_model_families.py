"""Keys and values, parameters and numbers of GPUs of families that write them down in ways of their own.

The configurations are what the models' own config.json files say of these; the figures beside them are published, or
follow from the numbers of layers and heads on the model's card.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import machine
from vendomini.errors import EngineUnavailable
from vendomini.model_info import GIB, ModelFacts, fit, layers, model_facts

K = 1024


def llama(layers: int, heads: int, kv: int | None, hidden: int, **more: Any) -> dict[str, Any]:
    text = {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "hidden_size": hidden}
    return {"model_type": "llama", "dtype": "bfloat16", **text, **more}


NEMOTRON_3 = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
NEMOTRON_H = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
GRANITE = ["attention" if layer in {5, 15, 25, 35} else "mamba" for layer in range(40)]
NAS = [{"attention": {"n_heads_in_group": 8 if layer < 49 else None, "no_op": layer >= 49}} for layer in range(80)]
MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
GEMMA_3_4B = {
    "model_type": "gemma3",
    "dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
}

FAMILIES: dict[str, tuple[dict[str, Any], int, float]] = {
    # "Insights into DeepSeek-V3" (ISCA 2025), table 1: KV cache per token 70.272, 327.680 and 516.096 KB
    "DeepSeek-V3": (llama(61, 128, 128, 7168, model_type="deepseek_v3", **MLA), 1, 70_272),
    "Qwen2.5-72B": (
        llama(80, 64, 8, 8192, model_type="qwen2", use_sliding_window=False, sliding_window=131072),
        1,
        327_680,
    ),
    "Llama-3.1-405B": (llama(126, 128, 8, 16384), 1, 516_096),
    # "Jamba" (arXiv 2403.19887), table 1: KV cache at 256K tokens in 16 bits 4, 32 and 128 GB
    "Jamba": (llama(32, 32, 8, 4096, model_type="jamba", attn_layer_period=8, attn_layer_offset=4), 256 * K, 4 * GIB),
    "Mixtral-8x7B": (llama(32, 32, 8, 4096, model_type="mixtral", sliding_window=None), 256 * K, 32 * GIB),
    "Llama-2-7B": (llama(32, 32, None, 4096), 256 * K, 128 * GIB),
    # From the layers and KV heads that the cards name: bytes of a token = 2 · layers · KV heads · head dimension · 2
    "Granite-4.0-H-Small": (llama(40, 32, 8, 4096, model_type="granitemoehybrid", layer_types=GRANITE), 1, 16_384),
    "Nemotron-3-Nano": (
        {"model_type": "nemotron_h", "hybrid_override_pattern": NEMOTRON_3, "num_attention_heads": 32}
        | {"num_key_value_heads": 2, "head_dim": 128, "hidden_size": 2688},
        1,
        6_144,
    ),
    "Nemotron-H-8B": (
        llama(52, 32, 8, 4096, model_type="nemotron_h", head_dim=128, hybrid_override_pattern=NEMOTRON_H),
        1,
        16_384,
    ),
    "Qwen3-Next-80B": (
        llama(48, 16, 2, 2048, model_type="qwen3_next", head_dim=256, full_attention_interval=4),
        1,
        24_576,
    ),
    "Falcon-H1-34B": (llama(72, 20, 4, 5120, model_type="falcon_h1", head_dim=128, mamba_d_state=256), 1, 147_456),
    "Bamba-9B": (llama(32, 32, 8, 4096, model_type="bamba", attn_layer_indices=[9, 18, 27]), 1, 12_288),
    "LFM2-1.2B": (llama(16, 32, 8, 2048, model_type="lfm2", full_attn_idxs=[2, 5, 8, 10, 12, 14]), 1, 12_288),
    "MiniMax-Text-01": (
        llama(80, 64, 8, 6144, model_type="minimax_text_01", head_dim=128, attn_type_list=[*[0] * 7, 1] * 10),
        1,
        40_960,
    ),
    "RecurrentGemma-2B": (
        llama(26, 10, 1, 2560, model_type="recurrent_gemma", attention_window_size=2048)
        | {"block_types": ["recurrent", "recurrent", "attention"]},
        8 * K,
        8 * 2048 * 1024,
    ),
    "Gemma-2-9B": (
        llama(42, 16, 8, 3584, model_type="gemma2", head_dim=256, sliding_window=4096),
        8 * K,
        21 * (8 * K + 4096) * 8192,
    ),
    "Gemma-3-27B": (
        {"text_config": llama(62, 32, 16, 5376, model_type="gemma3_text", head_dim=128, sliding_window=1024)},
        32 * K,
        (10 * 32 * K + 52 * 1024) * 8192,
    ),
    "Gemma-3-4B, heads by its class": (GEMMA_3_4B, 32 * K, (5 * 32 * K + 29 * 1024) * 4096),
    "StarCoder": (
        {"model_type": "gpt_bigcode", "n_layer": 40, "n_head": 48, "n_embd": 6144, "multi_query": True},
        1,
        20_480,
    ),
    "Falcon-7B": (llama(32, 71, None, 4544, model_type="falcon", multi_query=True, num_kv_heads=71), 1, 8_192),
    "Falcon-40B": (
        llama(
            60, 128, None, 8192, model_type="falcon", multi_query=True, new_decoder_architecture=True, num_kv_heads=8
        ),
        1,
        122_880,
    ),
    "Nemotron-Super-49B": (llama(80, 64, None, 8192, model_type="nemotron-nas", block_configs=NAS), 1, 200_704),
    "OpenELM-270M": (
        {"model_type": "openelm", "num_transformer_layers": 16, "head_dim": 64, "model_dim": 1280, "dtype": "bfloat16"}
        | {"num_kv_heads": [*[3] * 5, *[4] * 7, *[5] * 4], "num_query_heads": [*[12] * 5, *[16] * 7, *[20] * 4]},
        1,
        16_128,
    ),
    "GLM-5, sparse": (
        llama(78, 64, 64, 6144, model_type="glm_moe_dsa", index_head_dim=128, **MLA),
        1,
        78 * (1152 + 132),
    ),
    "gpt-oss-20b": (
        llama(24, 64, 8, 2880, model_type="gpt_oss", head_dim=64, sliding_window=128)
        | {"layer_types": ["sliding_attention", "full_attention"] * 12},
        16 * K,
        12 * (16 * K + 128) * 2048,
    ),
    "Kimi-Linear-48B": (
        llama(27, 32, 32, 2304, model_type="kimi_linear", **MLA)
        | {"linear_attn_config": {"full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "kda_layers": [1, 2, 3]}},
        1,
        7 * 576 * 2,
    ),
    "Mamba-2.8B": ({"model_type": "mamba", "num_hidden_layers": 64, "hidden_size": 2560}, 1, 0),
}


def described(
    folder: Path, config: dict[str, Any], weight_bytes: int = 1000, index: str = "model.safetensors"
) -> ModelFacts:
    (folder / "config.json").write_text(json.dumps(config))
    weights = {"metadata": {"total_size": weight_bytes}, "weight_map": {"a": "of-00002"}}
    (folder / f"{index}.index.json").write_text(json.dumps(weights))
    return model_facts(str(folder), None, machine())


NEEDS_TRANSFORMERS = {"Gemma-3-4B, heads by its class", "GLM-5, sparse", "Mamba-2.8B"}


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_those_published(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, tokens, expected = FAMILIES[family]
    if family in NEEDS_TRANSFORMERS:
        pytest.importorskip("transformers")
    else:
        monkeypatch.setattr(layers, "_as_transformers_reads", lambda folder: None)
    assert described(tmp_path, config).kv_bytes(tokens) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("family", sorted(NEEDS_TRANSFORMERS))
def test_without_transformers_what_the_file_leaves_open_is_unknown(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"config\.json .* Transformers, which may know more.*set engine\.gpus"):
        described(tmp_path, FAMILIES[family][0])


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (llama(32, 32, 8, 4096, layer_types=["full_attention", "telepathy"]), "of the kind 'telepathy'"),
        (llama(32, 32, 8, 4096, model_type="newcomer"), "the family newcomer is not known here"),
        (llama(32, 32, 8, 4096, model_type="", mamba_d_state=128), "layers with a state, but not of which ones"),
        (llama(3, 32, 8, 4096) | {"num_kv_heads": [8, 8], "num_key_value_heads": None}, "for 2 of 3 layers"),
        (llama(32, 32, 8, 4096, layer_types=["chunked_attention"]), "attention_chunk_size"),
    ],
)
def test_what_nobody_knows_is_unknown_and_never_zero(
    config: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_as_transformers_reads", lambda folder: None)
    with pytest.raises(EngineUnavailable, match=sentence):
        described(tmp_path, config)


def test_the_files_own_words_need_no_transformers(tmp_path: Path) -> None:
    """Importing it takes seconds, which a login node's commands should not."""
    described(tmp_path, FAMILIES["Granite-4.0-H-Small"][0])
    code = (
        "import sys; from vendomini.model_info import model_facts; from vendomini.probe import Capabilities;"
        f"model_facts({str(tmp_path)!r}, None, Capabilities()); print('transformers' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize(
    ("model", "config", "sizes"),
    [
        ("Phi-4", llama(40, 40, 10, 5120, model_type="phi3", intermediate_size=17920), [1, 2, 5]),
        ("Qwen2.5-7B", llama(28, 28, 4, 3584, model_type="qwen2", intermediate_size=18944), [1, 2, 4]),
        ("Llama-3.3-70B", llama(80, 64, 8, 8192, intermediate_size=28672), [1, 2, 4, 8]),
        ("a narrow feed-forward layer", llama(2, 16, 16, 1024, intermediate_size=1028), [1, 2, 4]),
        (
            "DeepSeek-V3",
            llama(61, 128, 128, 7168, model_type="deepseek_v3", intermediate_size=18432, **MLA),
            [1, 2, 4, 8],
        ),
    ],
)
def test_gpus_are_as_many_as_vllm_can_spread_it_on(
    model: str, config: dict[str, Any], sizes: list[int], tmp_path: Path
) -> None:
    assert described(tmp_path, config).tensor_parallel_sizes(8) == sizes


@pytest.mark.parametrize(
    ("index", "config", "size", "billions"),
    [
        ("model.safetensors", llama(64, 64, 8, 5120, model_type="qwen3"), 65_524_246_528, 32.8),  # card of Qwen3-32B
        ("pytorch_model.bin", llama(30, 32, 32, 4096), 13_820_731_392, 6.9),  # deepseek-llm-7b-chat: .bin alone
    ],
)
def test_parameters_follow_from_an_index(
    index: str, config: dict[str, Any], size: int, billions: float, tmp_path: Path
) -> None:
    facts = described(tmp_path, config, size, index)
    assert facts.parameters == pytest.approx(billions * 1e9, rel=0.05)
    assert facts.weight_bytes == size


def wide(layers: int, hidden: int, intermediate: int, heads: int, kv: int, vocabulary: int) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "vocab_size": vocabulary}
    return {**sizes, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv}


PARAMETERS: dict[str, tuple[str, dict[str, Any], float]] = {
    # billions, as the card of that name says; classes without settings here have this model's as their defaults
    "Llama-3.3-70B-Instruct": ("llama", wide(80, 8192, 28672, 64, 8, 128256), 70.6),
    "Qwen2.5-72B-Instruct": ("qwen2", wide(80, 8192, 29568, 64, 8, 152064), 72.7),
    "Qwen3-32B": ("qwen3", wide(64, 5120, 25600, 64, 8, 151936) | {"head_dim": 128}, 32.8),
    "Mixtral-8x7B-Instruct-v0.1": ("mixtral", wide(32, 4096, 14336, 32, 8, 32000) | {"num_local_experts": 8}, 46.7),
    "gemma-2-9b-it": ("gemma2", wide(42, 3584, 14336, 16, 8, 256000) | {"head_dim": 256}, 9.24),
    "gpt-oss-20b": ("gpt_oss", wide(24, 2880, 2880, 64, 8, 201088) | {"num_local_experts": 32, "head_dim": 64}, 20.9),
    "phi-4": ("phi3", wide(40, 5120, 17920, 40, 10, 100352), 14.7),
    "OLMo-2-1124-13B-Instruct": ("olmo2", wide(40, 5120, 13824, 40, 40, 100352), 13.7),
    "deepseek-llm-7b-chat": ("llama", wide(30, 4096, 11008, 32, 32, 102400), 6.91),
    "DeepSeek-V3": ("deepseek_v3", {}, 671),
    "Qwen3-Next-80B-A3B-Instruct": ("qwen3_next", {}, 80),
    "Jamba-v0.1": ("jamba", {}, 51.6),
    "granite-4.0-h-small": (
        "granitemoehybrid",
        wide(40, 4096, 768, 32, 8, 100352)
        | {"shared_intermediate_size": 1536, "num_local_experts": 72, "num_experts_per_tok": 10, "layer_types": GRANITE}
        | {"mamba_n_heads": 128, "mamba_d_head": 64, "mamba_d_state": 128, "tie_word_embeddings": True},
        32,
    ),
}


@pytest.mark.parametrize("model", PARAMETERS)
def test_parameters_are_as_many_as_published(model: str, tmp_path: Path) -> None:
    """Headers of weights with the shapes that Transformers' own class has, without the weights."""
    pytest.importorskip("transformers")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, settings, billions = PARAMETERS[model]
    config = AutoConfig.for_model(kind, **settings)
    with torch.device("meta"):
        shapes = [list(weight.shape) for weight in AutoModelForCausalLM.from_config(config).parameters()]
    header = json.dumps({str(n): {"dtype": "BF16", "shape": shape} for n, shape in enumerate(shapes)}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    facts = model_facts(str(tmp_path), None, machine())
    assert facts.parameters == pytest.approx(billions * 1e9, rel=0.05)
    assert facts.weight_bytes == 2 * facts.parameters


def test_weights_in_pytorchs_own_files_have_a_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(llama(2, 4, 4, 64)))
    for number in (1, 2):
        (tmp_path / f"pytorch_model-0000{number}-of-00002.bin").write_bytes(b"0" * 1000)
    facts = model_facts(str(tmp_path), None, machine())
    assert (facts.weight_bytes, facts.parameters) == (2000, 1000)


def test_a_second_copy_of_the_weights_counts_once(tiny: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(tiny, tmp_path / "twice")
    once = model_facts(str(folder), None, machine()).weight_bytes
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    assert model_facts(str(folder), None, machine()).weight_bytes == once


def test_a_model_without_keys_and_values_fits_where_its_weights_do(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    facts = described(tmp_path, FAMILIES["Mamba-2.8B"][0], 5 * GIB)
    assert fit(facts, gpus=1, memory=40 * GIB, tokens=16384).fits
    assert not fit(facts, gpus=1, memory=6 * GIB, tokens=16384).fits
