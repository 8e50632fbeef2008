"""What a model is, from its own ``config.json`` and the headers or the index of its weights."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from vendomini.errors import EngineUnavailable
from vendomini.model_info.layers import Attention, Config, Layer, attention
from vendomini.model_info.weights import weights
from vendomini.probe import Capabilities


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model as its files describe it.

    Attributes:
        parameters: None where the weights are packed (quantised), so that they can't be counted.
        weight_bytes: of all weights as stored.
        layers: those that keep keys and values, with the bytes of one token as vLLM stores it (MLA: the latent).
        kv_heads: of the layer that has the fewest; 1 where all heads share a latent.
        divided: further numbers that the number of GPUs must divide.
        context_length: positions the model was made for.
    """

    name: str
    parameters: int | None
    weight_bytes: int
    layers: tuple[Layer, ...]
    attention_heads: int
    kv_heads: int
    divided: tuple[int, ...]
    context_length: int | None
    experts: int = 0

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of keys and values of a conversation of this many tokens."""
        return sum(
            layer.token_bytes * (tokens if layer.window is None else min(tokens, layer.window)) for layer in self.layers
        )

    def dtype_on_cpu(self, capabilities: Capabilities) -> str:
        """``float32`` on a CPU without instructions for bfloat16, which would convert every weight at every step;
        ``auto``, as stored, where the wider weights would take more than half of the memory, or are packed."""
        if capabilities.bfloat16 or self.parameters is None or 4 * self.parameters > capabilities.memory // 2:
            return "auto"
        return "float32"

    def tensor_parallel_sizes(self, gpus: int) -> list[int]:
        """Numbers of GPUs, up to ``gpus``, on which vLLM can spread the model: the heads and the width of the
        feed-forward layers divide among them, and they divide the KV heads or the KV heads divide them."""
        return [size for size in range(1, gpus + 1) if size == 1 or self._spreads(size)]

    def _spreads(self, size: int) -> bool:
        whole = all(number % size == 0 for number in (self.attention_heads, *self.divided))
        return whole and (self.kv_heads % size == 0 or size % self.kv_heads == 0)


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
    """Reads the model's ``config.json`` and the index or headers of its weights.

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
        weight_bytes, parameters = weights(folder, config)
        return _facts(name, config, attention(folder, config), weight_bytes, parameters)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as exc:
        raise EngineUnavailable(
            f"the files of {name} in {folder} don't tell its size ({exc}): set engine.gpus"
        ) from exc


def _facts(name: str, config: Config, found: Attention, weight_bytes: int, parameters: int | None) -> ModelFacts:
    text = config.get("text_config") or config
    quantised = "quantization_config" in config or "quantization_config" in text
    return ModelFacts(
        name=name,
        parameters=None if quantised else parameters,
        weight_bytes=weight_bytes,
        layers=found.layers,
        attention_heads=found.heads,
        kv_heads=found.kv_heads,
        divided=found.divided,
        context_length=text.get("max_position_embeddings"),
        experts=int(text.get("num_local_experts") or text.get("num_experts") or text.get("n_routed_experts") or 0),
    )
