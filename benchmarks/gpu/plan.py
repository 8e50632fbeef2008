"""What is measured on which device, and the model with random weights that it is measured on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tiny_model import make_character_tokenizer, make_tiny_model
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.hf.model import LoadedModel, load
from vendomini.probe import probe

PEAK_GB_S = {
    "H200": 4800,
    "H100 NVL": 3900,
    "H100 PCIe": 2000,
    "H100": 3350,
    "GH200": 4000,
    "B200": 8000,
    "A100-SXM4-80GB": 2039,
    "A100 80GB": 1935,
    "A100": 1555,
    "L40S": 864,
    "L4": 300,
    "A10": 600,
    "RTX A6000": 768,
    "RTX 4090": 1008,
    "RTX 3090": 936,
    "V100": 900,
}
"""Memory bandwidth by a part of the GPU's name, from its maker's data sheet; the first that fits counts."""


@dataclass(frozen=True)
class Plan:
    """Sizes of everything.

    Attributes:
        shape: of the model, as ``make_tiny_model`` takes it; a vocabulary of one character a token.
        contexts: tokens that each row holds while it is decoded.
        rows: of the comparison of attentions.
        batches: of the packing curve, at the shortest context.
        most_rows: that the memory test fills, where memory holds more.
        conversations, turns, added, new: of the engines' task: prompt tokens that a turn adds, tokens it asks for
            on average.
        repeats: of each timed step; the median counts.
        deep: the probe imports the packages that it finds.
    """

    device: str
    shape: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden": 3072,
            "layers": 28,
            "heads": 24,
            "kv_heads": 8,
            "vocab": 30_000,
            "context": 40_960,
            "dtype": "bfloat16",
        }
    )
    contexts: tuple[int, ...] = (2048, 8192, 32_768)
    rows: int = 8
    batches: tuple[int, ...] = (1, 4, 16, 64, 128, 256)
    most_rows: int = 512
    conversations: int = 32
    turns: int = 6
    added: int = 500
    new: int = 64
    repeats: int = 20
    deep: bool = True

    @property
    def limit(self) -> int:
        """Tokens of the longest conversation."""
        return self.contexts[-1] + 8

    @property
    def talk(self) -> int:
        """Tokens of one conversation of the engines' task, with room for another turn."""
        return (self.turns + 1) * (self.added + self.new + self.new // 2)

    def model(self, folder: Path, context: int) -> Model:
        return Model(
            name=str(folder), dtype=self.shape["dtype"], context_length=max(context, 512), max_tokens=2 * self.new
        )


TINY: dict[str, Any] = {
    "shape": {"hidden": 128, "layers": 2, "heads": 4, "kv_heads": 2, "vocab": 300, "context": 1024, "dtype": "float32"},
    "contexts": (64, 128, 256),
    "rows": 2,
    "batches": (1, 2),
    "most_rows": 3,
    "conversations": 2,
    "turns": 2,
    "added": 20,
    "new": 8,
    "repeats": 2,
    "deep": False,
}
"""To try the kit itself, in seconds."""


def write_model(plan: Plan, folder: Path) -> Path:
    """Saved once; every part loads it from there."""
    import torch

    with torch.device(plan.device):
        return make_tiny_model(folder, tokenizer=make_character_tokenizer(plan.shape["vocab"]), **plan.shape)


def loaded_model(plan: Plan, folder: Path, attention: str) -> LoadedModel:
    return load(plan.model(folder, plan.limit), EngineConfig(attn_implementation=attention), probe())
