"""Engines: what completes prompts, many at once. ``resolve.start_engine`` chooses and starts one."""

from vendomini.engines.base import Completion, Engine, EngineInfo, Prompt, SamplingParams

__all__ = ["Completion", "Engine", "EngineInfo", "Prompt", "SamplingParams"]
