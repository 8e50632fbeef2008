"""Which layers keep keys and values, how many bytes a token, and for how many tokens: from a model's configuration.

Families write the same facts under different names, or leave them to the defaults of their class in Transformers. What
the file says is read here. Where it leaves something open, Transformers' own reading of it is used if that is
installed; if it is not, a family that is known here is read by its rule, and any other model is unknown. Unknown is
never zero.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

MAX_LAYERS = 10_000

Config = Mapping[str, Any]
"""A model's ``config.json``: anybody's, and what is read of it may be of any type."""

FULL = {"full_attention", "attention", "indexed_attention", "hybrid", "global", "full", "*", "attn", "nope", "L_full"}
WINDOWED = {"sliding_attention", "window_attention", "hybrid_sliding", "sliding", "local", "swa"}
CHUNKED = {"chunked_attention"}
STATE = {"linear_attention", "mamba", "mamba2", "conv", "recurrent", "moe", "mlp", "linear", "M", "-", "E"}
"""Kinds of layers: those that keep all tokens, a window of them, a chunk, and a state of fixed size or nothing."""

UNIFORM = {
    "apertus", "arcee", "baichuan", "bloom", "cohere", "deepseek_v2", "deepseek_v3", "falcon", "falcon_h1", "gemma",
    "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neox", "granite", "granitemoe", "internlm2", "llama",
    "mistral", "mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmoe", "opt", "phi", "phi3", "phimoe", "qwen2",
    "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2",
}  # fmt: skip
"""Families in which all layers are alike where the file does not say otherwise."""

EVERY = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2, "exaone4": 4, "olmo3": 4}
"""Families with a window in all layers but every n-th, where the file does not say it: family → n."""

DIVIDED = (
    "intermediate_size", "ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size",
    "mamba_n_heads", "mamba_num_heads", "linear_num_key_heads", "linear_num_value_heads",
)  # fmt: skip
"""What the number of GPUs must divide besides attention heads: widths of feed-forward layers, heads of a state."""

HYBRID_HINT = re.compile(r"mamba|ssm|linear_attn|linear_attention|recurrent|rwkv|conv_|lightning|kda")


class Layer(NamedTuple):
    """A layer that keeps keys and values: bytes of one token, and how many tokens it keeps; None for all."""

    token_bytes: int
    window: int | None


class Attention(NamedTuple):
    """The parts of a model that decide the size of its keys and values, and among how many GPUs it can be divided.

    Attributes:
        layers: those that keep keys and values.
        heads: query heads.
        kv_heads: of the layer that has the fewest.
        divided: other numbers that the number of GPUs must divide (width of the feed-forward layers, heads of a state).
    """

    layers: tuple[Layer, ...]
    heads: int
    kv_heads: int
    divided: tuple[int, ...]


class Unclear(ValueError):
    """The file alone does not tell."""


def attention(folder: Path, config: Config) -> Attention:
    """The attention of the model in this folder.

    Raises:
        ValueError, KeyError, TypeError: it can't be determined.
    """
    text = _text(config)
    try:
        return _read(text)
    except (Unclear, KeyError) as exc:
        full = _as_transformers_reads(folder)
        if full is None:
            raise ValueError(f"{_missing(exc)}, and Transformers, which may know more, can't read it here") from exc
        return _read({**text, **full}, sure=True)


def _missing(exc: BaseException) -> str:
    return f"config.json leaves out {exc.args[0]}" if isinstance(exc, KeyError) else str(exc)


def _text(config: Config) -> Config:
    """The part about the language model; ``dtype`` may be one level above."""
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(part := config.get(name), dict):
            return {"dtype": config.get("dtype") or config.get("torch_dtype"), **part}
    return config


def _read(text: Config, sure: bool = False) -> Attention:
    """Args:
    sure: what the text leaves open has only one reading.
    """
    kinds = _kinds(text, sure)
    heads = _heads(text) if any(window != 0 for window in kinds) else 1
    per_layer = _kv_heads(text, heads, len(kinds))
    size = _element_bytes(text)
    layers = [
        Layer(_token_bytes(text, heads, kv, size), window)
        for kv, window in zip(per_layer, kinds, strict=True)
        if window != 0 and kv
    ]
    shared = int(text.get("num_kv_shared_layers") or 0)  # the last ones use the keys and values of earlier ones
    kept = [kv for kv, window in zip(per_layer, kinds, strict=True) if window != 0 and kv]
    fewest = 1 if text.get("kv_lora_rank") else min(kept, default=heads)
    return Attention(tuple(layers[: len(layers) - shared]), heads, fewest, _divided(text))


def _heads(text: Config) -> int:
    """Attention heads; if they differ from layer to layer, what the number of GPUs must divide."""
    heads = _first(text, "num_attention_heads", "n_head", "n_heads", "num_heads", "num_query_heads")
    return math.gcd(*map(int, heads)) if isinstance(heads, list) else int(heads)


def _first(text: Config, *names: str) -> Any:
    for name in names:
        if text.get(name) is not None:
            return text[name]
    raise KeyError(names[0])


# ----------------------------------------------------------------------------------- kinds of layers


def _kinds(text: Config, sure: bool) -> list[int | None]:
    """How many tokens each layer keeps: None for all, 0 for a layer without keys and values."""
    named = _named(text)
    if named is not None:
        if len(named) > MAX_LAYERS:
            raise ValueError(f"config.json speaks of {len(named)} layers")
        return [_tokens(str(kind), text) for kind in named]
    layers = int(_first(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers"))
    if layers > MAX_LAYERS:
        raise ValueError(f"config.json speaks of {layers} layers")
    family, window = str(text.get("model_type") or ""), _window(text)
    every = text.get("sliding_window_pattern") or EVERY.get(family)
    if isinstance(every, int) and window:
        return [None if (layer + 1) % every == 0 else window for layer in range(layers)]
    if isinstance(text.get("num_kv_heads"), list):
        return [window] * layers
    if not sure and family and family not in UNIFORM:
        raise Unclear(f"config.json does not say what its layers are, and the family {family} is not known here")
    if not sure and family not in UNIFORM and any(HYBRID_HINT.search(key) for key in text):
        raise Unclear("config.json speaks of layers with a state, but not of which ones")
    first = int(text.get("max_window_layers") or 0) if text.get("use_sliding_window") else 0
    return [None if layer < first else window for layer in range(layers)]


def _named(text: Config) -> list[object] | None:
    """A kind for every layer, where the file has one, in one of the ways in which families write it."""
    for name in ("layer_types", "layers_block_type"):
        if isinstance(text.get(name), list):
            return list(text[name])
    for name, value in text.items():
        if re.fullmatch(r"hybrid_\w*pattern", name) and isinstance(value, str) and value:
            return list(value)
    layers = int(text.get("num_hidden_layers") or 0)
    if isinstance(blocks := text.get("block_types"), list) and blocks:
        local = {"attention": "local"}  # of the Griffin family, in which attention is local
        return [local.get(blocks[layer % len(blocks)], blocks[layer % len(blocks)]) for layer in range(layers)]
    if isinstance(pattern := text.get("sliding_window_pattern"), str) and pattern:
        return ["sliding" if pattern[layer % len(pattern)] == "L" else "full" for layer in range(layers)]
    attends = _attending(text, layers)
    return None if attends is None else ["attention" if layer in attends else "mamba" for layer in range(layers)]


def _attending(text: Config, layers: int) -> set[int] | None:
    """The layers with attention in families that name these and leave the others out."""
    for name in ("attn_layer_indices", "full_attn_idxs", "full_attention_idxs"):
        if isinstance(text.get(name), list):
            return set(text[name])
    if period := text.get("attn_layer_period"):
        return {layer for layer in range(layers) if layer % period == int(text.get("attn_layer_offset") or 0)}
    if every := text.get("full_attention_interval"):
        return {layer for layer in range(layers) if (layer + 1) % every == 0}
    if isinstance(linear := text.get("linear_attn_config"), dict) and "full_attn_layers" in linear:
        return {layer - 1 for layer in linear["full_attn_layers"]}
    if isinstance(softmax := text.get("attn_type_list"), list):
        return {layer for layer, kind in enumerate(softmax) if kind == 1}
    if isinstance(blocks := text.get("block_configs"), list):
        return {layer for layer, block in enumerate(blocks) if (block.get("attention") or {}).get("n_heads_in_group")}
    return None


def _tokens(kind: str, text: Config) -> int | None:
    if kind in FULL:
        return None
    if kind in STATE:
        return 0
    if kind in WINDOWED:
        return _window(text) or int(_first(text, "attention_window_size", "sliding_window"))
    if kind in CHUNKED:
        return int(text["attention_chunk_size"])
    raise ValueError(f"a layer is of the kind {kind!r}, of whose keys and values nothing is known here")


def _window(text: Config) -> int | None:
    window = text.get("sliding_window")
    return None if not window or text.get("use_sliding_window") is False else int(window)


# ---------------------------------------------------------------------------------------- heads, bytes


def _kv_heads(text: Config, heads: int, layers: int) -> list[int]:
    """KV heads of each layer."""
    if isinstance(blocks := text.get("block_configs"), list):
        groups = [(block.get("attention") or {}).get("n_heads_in_group") for block in blocks]
        return [heads // int(group) if group else 0 for group in groups]
    given = None
    for name in ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"):
        given = text.get(name) if given is None else given
    if isinstance(nested := text.get("attn_config"), dict):
        given = nested.get("kv_n_heads") if given is None else given
    if text.get("multi_query") is True and not text.get("new_decoder_architecture") and not _grouped(text):
        given = 1
    if isinstance(given, list):
        if len(given) != layers:
            raise ValueError(f"config.json gives KV heads for {len(given)} of {layers} layers")
        return [int(count) for count in given]
    return [int(given or heads)] * layers


def _grouped(text: Config) -> bool:
    return bool(text.get("multi_query_group_num") or text.get("num_key_value_heads"))


def _token_bytes(text: Config, heads: int, kv_heads: int, size: int) -> int:
    """Bytes of a token in one layer, as vLLM stores it."""
    if text.get("kv_lora_rank"):  # multi-head latent attention: one latent and one rotary key for all heads
        latent = (int(text["kv_lora_rank"]) + int(text.get("qk_rope_head_dim") or 0)) * size
        index = int(text.get("index_head_dim") or 0)  # of sparse attention: a key of 8 bits and its scales
        return latent + index + 4 * (index // 128)
    head_dim = text.get("attention_head_dim") or text.get("head_dim") or text.get("kv_channels")
    hidden = head_dim or int(_first(text, "hidden_size", "n_embd", "d_model", "model_dim")) // heads
    return 2 * kv_heads * int(hidden) * size


def _element_bytes(text: Config) -> int:
    dtype = str(text.get("dtype") or text.get("torch_dtype") or "")
    return 4 if "32" in dtype and "float" in dtype else 2


def _divided(text: Config) -> tuple[int, ...]:
    values: Iterable[object] = (text.get(name) for name in DIVIDED)
    return tuple(sorted({value for value in values if isinstance(value, int) and value > 0}))


# -------------------------------------------------------------------------------------- Transformers

READ = (
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "num_kv_heads", "head_dim", "hidden_size",
    "layer_types", "sliding_window", "attention_chunk_size", "multi_query", "new_decoder_architecture", "kv_lora_rank",
    "qk_rope_head_dim", "index_head_dim", "num_kv_shared_layers", "intermediate_size", "moe_intermediate_size",
    "mamba_n_heads", "mamba_num_heads", "linear_num_key_heads", "linear_num_value_heads", "use_sliding_window",
    "attention_head_dim", "model_type", "max_position_embeddings",
)  # fmt: skip


def _as_transformers_reads(folder: Path) -> dict[str, object] | None:
    """The language model's configuration with the defaults of its class; None where Transformers can't say.

    Importing Transformers takes seconds, so it is used only where the file leaves something open. No code of the
    model's own is run.
    """
    if importlib.util.find_spec("transformers") is None:
        return None
    try:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except Exception:  # an architecture it does not know, or a file that it refuses in one of many ways
        return None
    return {name: value for name in READ if (value := _value(config, name)) is not None}


def _value(config: object, name: str) -> object:
    try:
        return getattr(config, name, None)
    except (AttributeError, ValueError, RuntimeError):  # one that differs from layer to layer has no single value
        return None
