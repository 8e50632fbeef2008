"""The vLLM engine."""

from __future__ import annotations

from typing import Any

from vendomini.engines.base import Completion, Engine, Prompt, SamplingParams
from vendomini.errors import EngineUnavailable


class VllmEngine(Engine):
    def __init__(self, *_: Any) -> None:
        pass

    async def start(self) -> None:
        raise EngineUnavailable("not supported yet")

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        raise EngineUnavailable("not supported yet")
