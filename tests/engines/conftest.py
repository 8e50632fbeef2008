from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import make_tiny_model
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.hf.engine import HuggingFaceEngine
from vendomini.probe import Capabilities, Gpu, Gpus, HFCache, Package, probe
from vendomini.worlds.conversation import Message

CARDS = {
    "A100": ("NVIDIA A100-SXM4-40GB", 40, (8, 0)),
    "V100": ("Tesla V100-SXM2-32GB", 32, (7, 0)),
    "H200": ("NVIDIA H200", 141, (9, 0)),
    "4090": ("NVIDIA GeForce RTX 4090", 24, (8, 9)),
    "P100": ("Tesla P100-PCIE-16GB", 16, (6, 0)),
}
FLASH = Package("flash_attn", "2.8.3", True, "imports", "cuda")
BROKEN_FLASH = Package("flash_attn", "2.8.3", False, "installed, but its import fails: ImportError: undefined symbol")
VLLM = Package("vllm", "0.32.0", True, "installed", "cuda")
TRANSFORMERS = (
    Package("torch", "2.13.0", True, "installed", "cpu"),
    Package("transformers", "5.19.0", True, "installed"),
)


def machine(*cards: str, packages: tuple[Package, ...] = ()) -> Capabilities:
    """A machine with these cards and packages."""
    gpus = tuple(Gpu(n, name, gib << 30, gib << 30, cap) for n, (name, gib, cap) in enumerate(CARDS[c] for c in cards))
    found = Gpus(gpus, "550.54", "12.4") if gpus else Gpus(reason="nvidia-smi is not installed")
    return Capabilities(gpus=found, packages={package.name: package for package in packages}, memory=64 << 30)


class Conversation:
    """A prompt as an engine meets it: one object whose ids grow."""

    def __init__(self, token_ids: list[int], messages: list[Message] | None = None) -> None:
        self.token_ids = token_ids
        self.messages = messages or []
        self.epoch = 0


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def here() -> Capabilities:
    return probe()


@pytest.fixture
def hugging_face(here: Capabilities) -> Callable[..., HuggingFaceEngine]:
    """An engine over a model folder, not yet started."""

    def make(folder: Path, context_length: int = 2048, **engine: Any) -> HuggingFaceEngine:
        model = Model(name=str(folder), dtype="float32", context_length=context_length, max_tokens=128)
        return HuggingFaceEngine(model, EngineConfig(**engine), here, lambda _: None)

    return make


@pytest.fixture
def offline() -> Capabilities:
    return replace(machine(), hf_cache=HFCache(path="/nonexistent", offline=True))


def wait(coroutine: Any) -> Any:
    return asyncio.run(coroutine)
