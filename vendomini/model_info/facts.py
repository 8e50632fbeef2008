"""What a model is, from its own ``config.json`` and the headers or the index of its safetensors."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vendomini.errors import EngineUnavailable
from vendomini.probe import Capabilities

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Of an element of a safetensors data type; the 8-bit floats have names of their own, all of one byte."""

MAX_HEADER = 100_000_000
"""Bytes that safetensors itself allows. What is something else (a pointer of Git LFS, say) seems to have more."""

MAX_LAYERS = 10_000

GROWING = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layer types that keep keys and values; the others (linear attention, Mamba) have a state of fixed size."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model as its files describe it.

    Attributes:
        parameters: None where the weights are packed (quantised), so that they can't be counted.
        weight_bytes: of all weights as stored.
        layer_kv_bytes: of the keys and values of one token in one layer, as vLLM stores them (MLA: the latent).
        windows: for each layer that keeps keys and values, how many tokens it keeps at most; None for all.
        context_length: positions the model was made for.
    """

    name: str
    parameters: int | None
    weight_bytes: int
    layer_kv_bytes: int
    windows: tuple[int | None, ...]
    attention_heads: int
    kv_heads: int
    context_length: int | None
    experts: int = 0

    def kv_bytes(self, tokens: int) -> int:
        """Keys and values of a conversation of so many tokens."""
        kept = sum(tokens if window is None else min(tokens, window) for window in self.windows)
        return kept * self.layer_kv_bytes

    def tensor_parallel_sizes(self, gpus: int) -> list[int]:
        """Numbers of GPUs, up to ``gpus``, that the attention heads divide among."""
        return [size for size in range(1, gpus + 1) if self.attention_heads % size == 0]


def locate(name: str, revision: str | None, capabilities: Capabilities) -> Path | None:
    """The folder with the model's files, or None if they are still to be downloaded.

    Raises:
        EngineUnavailable: they are not here and downloads are switched off.
    """
    local = Path(name).expanduser()
    if (local / "config.json").is_file():
        return local
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise EngineUnavailable(f"{name} is no folder with a config.json: name a model folder or a Hugging Face id")
    repository = Path(capabilities.hf_cache.path) / f"models--{name.replace('/', '--')}"
    snapshot = _snapshot(repository, revision or "main")
    if snapshot is None and capabilities.hf_cache.offline:
        raise EngineUnavailable(
            f"{name} is not in the Hugging Face cache ({capabilities.hf_cache.path}) and downloads are off "
            f"(HF_HUB_OFFLINE): run `vendomini prefetch {name}` where there is internet"
        )
    return snapshot


def _snapshot(repository: Path, revision: str) -> Path | None:
    """The folder of one revision: a branch or tag by its ref, a commit by itself."""
    ref = repository / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    folder = repository / "snapshots" / commit
    return folder if (folder / "config.json").is_file() else None


def model_facts(name: str, revision: str | None, capabilities: Capabilities) -> ModelFacts:
    """Reads the model's ``config.json`` and the index or headers of its safetensors.

    Raises:
        EngineUnavailable: the files are not here, or do not say what is needed. The sentence says what to do.
    """
    folder = locate(name, revision, capabilities)
    if folder is None:
        raise EngineUnavailable(
            f"{name} is not in the Hugging Face cache, so its size is unknown: "
            f"run `vendomini prefetch {name}`, or set engine.gpus"
        )
    try:
        config = json.loads((folder / "config.json").read_text())
        weight_bytes, parameters = _weights(folder)
        return _facts(name, config, weight_bytes, parameters)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as exc:
        raise EngineUnavailable(
            f"the files of {name} in {folder} don't tell its size ({exc}): set engine.gpus"
        ) from exc


def _facts(name: str, config: dict[str, Any], weight_bytes: int, parameters: int | None) -> ModelFacts:
    text = config.get("text_config") or config
    heads = int(text["num_attention_heads"])
    kv_heads = int(text.get("num_key_value_heads") or heads)
    quantised = "quantization_config" in config or "quantization_config" in text
    return ModelFacts(
        name=name,
        parameters=None if quantised else parameters,
        weight_bytes=weight_bytes,
        layer_kv_bytes=_layer_kv_bytes(text, heads, kv_heads, config),
        windows=_windows(text),
        attention_heads=heads,
        kv_heads=1 if "kv_lora_rank" in text else kv_heads,
        context_length=text.get("max_position_embeddings"),
        experts=int(text.get("num_local_experts") or text.get("num_experts") or text.get("n_routed_experts") or 0),
    )


def _layer_kv_bytes(text: dict[str, Any], heads: int, kv_heads: int, config: dict[str, Any]) -> int:
    dtype = str(text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype") or "")
    size = 4 if "32" in dtype and "float" in dtype else 2
    if "kv_lora_rank" in text:  # multi-head latent attention: one latent and one rotary key for all heads
        return (int(text["kv_lora_rank"]) + int(text.get("qk_rope_head_dim") or 0)) * size
    head_dim = int(text.get("head_dim") or int(text["hidden_size"]) // heads)
    return 2 * kv_heads * head_dim * size


def _windows(text: dict[str, Any]) -> tuple[int | None, ...]:
    layers = int(text["num_hidden_layers"])
    if layers > MAX_LAYERS:
        raise ValueError(f"config.json speaks of {layers} layers")
    window = text.get("sliding_window")
    if text.get("use_sliding_window") is False:
        window = None
    kinds = text.get("layer_types")
    if kinds is None:
        return (int(window) if window else None,) * layers
    chunk = text.get("attention_chunk_size")
    sizes = {"full_attention": None, "sliding_attention": window, "chunked_attention": chunk}
    return tuple(sizes[kind] for kind in kinds if kind in GROWING)


def _weights(folder: Path) -> tuple[int, int | None]:
    """Bytes and number of all weights: from the headers of the files that are here, else from their index."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        described = json.loads(index.read_text())
        files = [folder / name for name in sorted(set(described["weight_map"].values()))]
        if not all(file.is_file() for file in files):
            return int(described["metadata"]["total_size"]), described["metadata"].get("total_parameters")
    if not files:
        raise ValueError("no safetensors are here")
    tensors = [tensor for file in files for tensor in _header(file)]
    counts = [math.prod(tensor["shape"]) for tensor in tensors]
    sizes = [count * BYTES.get(tensor["dtype"], 1) for count, tensor in zip(counts, tensors, strict=True)]
    return sum(sizes), sum(counts)


def _header(file: Path) -> list[dict[str, Any]]:
    """The tensors a safetensors file holds: 8 bytes of length, then JSON."""
    with open(file, "rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > MAX_HEADER:
            raise ValueError(f"{file.name} is no safetensors file")
        header = json.loads(opened.read(length))
    return [entry for name, entry in header.items() if name != "__metadata__"]
