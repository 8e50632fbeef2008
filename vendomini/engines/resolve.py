"""The fallback chain: which engine runs a model here, decided once, when the job starts.

vLLM where it was asked for or can work, then Hugging Face Transformers. A control of the scripted engine and a server
that already runs have nothing to fall back to. Why each engine was passed over goes into the log and, through
``EngineInfo.rejected``, into every summary.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Mapping

from vendomini.config import schema
from vendomini.engines.base import Engine
from vendomini.errors import ConfigError, EngineUnavailable, MissingExtraError
from vendomini.model_info import fit, locate, model_facts
from vendomini.probe import Capabilities, probe

Say = Callable[[str], None]

USE_VLLM = "VENDOMINI_USE_VLLM"
VLLM_CAPABILITY = (7, 0)
"""Compute capability that vLLM's CUDA kernels need."""


def print_line(line: str) -> None:
    """To standard output, at once: a job's log is read while it runs."""
    print(line, flush=True)  # noqa: T201 - this is the default of ``say``


async def start_engine(
    model: schema.Model,
    engine: schema.EngineConfig,
    capabilities: Capabilities | None = None,
    say: Say = print_line,
) -> Engine:
    """A started engine for this model; the caller closes it.

    Raises:
        ConfigError: model and backend contradict each other.
        EngineUnavailable: nothing here can run the model; says why, and what to do.
    """
    if is_scripted(model, engine):
        return await _start(_scripted(model))
    if engine.backend == "openai":
        return await _start(_openai(model, engine))
    if capabilities is None:
        capabilities = await asyncio.to_thread(probe)
    locate(model.name, model.revision, capabilities)
    asked = wants_vllm(engine, os.environ)
    refusal = vllm_refusal(engine, os.environ, capabilities)
    if refusal is None and not asked:
        refusal = too_large(model, engine, capabilities)
    if refusal is None or asked:
        started = await _try_vllm(model, engine, capabilities, refusal, say)
        if isinstance(started, Engine):
            return started
        refusal = started
    fallback = await _start(_hugging_face(model, engine, capabilities, say))
    fallback.info = dataclasses.replace(fallback.info, rejected={"vllm": refusal})
    return fallback


def is_scripted(model: schema.Model, engine: schema.EngineConfig) -> bool:
    """Whether the model is a control.

    Raises:
        ConfigError: a control on a model's engine, or a model on the controls' engine.
    """
    scripted = model.name.startswith(schema.SCRIPTED_PREFIX)
    if scripted and engine.backend not in {"auto", "scripted"}:
        raise ConfigError(
            f"{model.name} is a control of the scripted engine: engine.backend must be auto or scripted, "
            f"not {engine.backend}"
        )
    if engine.backend == "scripted" and not scripted:
        raise ConfigError(
            f"engine.backend: scripted runs controls such as scripted/oracle, scripted/reactive or scripted/idle, "
            f"not {model.name}: name one in agent.model.name, or set engine.backend: auto"
        )
    return scripted


def wants_vllm(engine: schema.EngineConfig, environ: Mapping[str, str]) -> bool:
    """Whether vLLM was asked for by name, so that passing it over deserves a warning."""
    choice = environ.get(USE_VLLM, "").strip()
    if choice not in {"", "0", "1"}:
        raise ConfigError(f"{USE_VLLM} must be 1, 0 or unset, not {choice!r}")
    return choice != "0" and (engine.backend == "vllm" or (choice == "1" and engine.backend == "auto"))


def vllm_refusal(engine: schema.EngineConfig, environ: Mapping[str, str], capabilities: Capabilities) -> str | None:
    """Why vLLM can't or must not run here; None if nothing speaks against it."""
    if environ.get(USE_VLLM, "").strip() == "0":
        return f"{USE_VLLM}=0 forbids it"
    if engine.backend == "hf":
        return "engine.backend is hf"
    vllm = capabilities.package("vllm")
    if not vllm.works:
        return f"vLLM is {vllm.reason}" if vllm.version is None else f"vLLM {vllm.version} {vllm.reason}"
    if vllm.platform != "cuda":
        return None
    capability = capabilities.gpus.capability
    if capability is None:
        return f"vLLM {vllm.version} is built for CUDA and there is no GPU ({capabilities.gpus.reason})"
    if capability < VLLM_CAPABILITY:
        return f"vLLM needs GPU compute capability >= {VLLM_CAPABILITY}, this is {capability}"
    return None


def too_large(model: schema.Model, engine: schema.EngineConfig, capabilities: Capabilities) -> str | None:
    """Why the model can't fit on the GPUs here, with the sum; None if it does, or if its size is unknown.

    Saves the minutes that vLLM takes to find out. Who asks for vLLM by name gets it tried all the same.
    """
    gpus = capabilities.gpus.devices[: engine.gpus]
    if not gpus:
        return None
    try:
        facts = model_facts(model.name, model.revision, capabilities)
    except EngineUnavailable:
        return None
    found = fit(
        facts,
        gpus=len(gpus),
        memory=min(gpu.memory for gpu in gpus),
        tokens=engine.max_model_len or model.context_length,
        utilization=engine.gpu_memory_utilization,
    )
    return None if found.fits else f"the model leaves no room for keys and values: {found.arithmetic}"


async def _try_vllm(
    model: schema.Model, engine: schema.EngineConfig, capabilities: Capabilities, refusal: str | None, say: Say
) -> Engine | str:
    """The engine, or why there is none; the log says the same."""
    if refusal is None:
        from vendomini.engines.vllm.engine import VllmEngine

        say("[*] Loading model with vLLM (optimized inference)")
        try:
            started = await _start(VllmEngine(model, engine, capabilities, say))
        except (EngineUnavailable, MissingExtraError) as exc:
            refusal = str(exc)
        else:
            say("[*] vLLM initialized successfully")
            return started
    say(f"[WARNING] vLLM initialization failed: {refusal}")
    say("[*] Falling back to standard HuggingFace Transformers")
    return refusal


async def _start(engine: Engine) -> Engine:
    """Starts it, and leaves nothing behind if that fails or is interrupted."""
    try:
        await engine.start()
    except BaseException:
        await engine.close()
        raise
    return engine


def _scripted(model: schema.Model) -> Engine:
    from vendomini.engines.scripted import ScriptedEngine

    return ScriptedEngine(model.name)


def _openai(model: schema.Model, engine: schema.EngineConfig) -> Engine:
    from vendomini.engines.openai.engine import OpenAICompatibleEngine

    return OpenAICompatibleEngine(model, engine)


def _hugging_face(model: schema.Model, engine: schema.EngineConfig, capabilities: Capabilities, say: Say) -> Engine:
    from vendomini.engines.hf.engine import HuggingFaceEngine

    return HuggingFaceEngine(model, engine, capabilities, say)
