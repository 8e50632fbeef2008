"""The fallback chain: which engine runs a model here, decided once, when the job starts.

vLLM where it was asked for or can work, then Hugging Face Transformers. The other engines (a control, a server that
already runs, one of another package) have nothing to fall back to. Why each engine was passed over goes into the log
and, through ``EngineInfo.rejected``, into every summary.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Mapping

from vendomini.config import schema
from vendomini.engines.base import Engine
from vendomini.engines.registry import BUILT_IN, Backend, Say, find_backend
from vendomini.errors import ConfigError, EngineUnavailable, MissingExtraError
from vendomini.model_info import fit, hub, locate, model_facts
from vendomini.probe import Capabilities, probe

USE_VLLM = "VENDOMINI_USE_VLLM"
CHAINS = {"auto": ("vllm", "hf"), "vllm": ("vllm", "hf")}
"""``engine.backend`` → the engines to try in turn; any other name means that engine alone."""


def print_line(line: str) -> None:
    """Prints at once, without buffering: a job's log is read while it runs."""
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
        EngineUnavailable: nothing here can run the model; gives each engine's reason, and what to do.
    """
    backends = chain(model, engine)
    if capabilities is None:
        files = any(backend.packages or backend.model_files for backend in backends)
        capabilities = await asyncio.to_thread(probe) if files else Capabilities()
    if any(backend.model_files for backend in backends):
        folder = locate(model.name, model.revision, capabilities)
        if folder is None and (problem := await asyncio.to_thread(hub.refusal, model.name, model.revision)):
            raise EngineUnavailable(problem)
    rejected: dict[str, str] = {}
    for backend in backends:
        refusal = passed_over(backend, model, engine, os.environ, capabilities)
        started = refusal or await _try(backend, model, engine, capabilities, say)
        if isinstance(started, Engine):
            started.info = dataclasses.replace(started.info, rejected=rejected)
            return started
        rejected[backend.name] = started
        if engine.fallback == "never" and (refusal is None or engine.backend == backend.name):
            break
        if len(rejected) < len(backends) and (refusal is None or wants_vllm(engine, os.environ)):
            say(f"[WARNING] {backend.title} initialization failed: {started}")
            say("[*] Falling back to standard HuggingFace Transformers")
    raise EngineUnavailable(_no_engine(model, engine, rejected))


def chain(model: schema.Model, engine: schema.EngineConfig) -> list[Backend]:
    """The engines to try for this model, in turn.

    Raises:
        ConfigError: model and backend contradict each other, or no engine has this name.
    """
    if is_scripted(model, engine):
        return [BUILT_IN["scripted"]]
    return [find_backend(name) for name in CHAINS.get(engine.backend, (engine.backend,))]


def wants_gpus(engine: schema.EngineConfig) -> bool:
    """Whether jobs that run models with these settings ask for GPUs."""
    return any(find_backend(name).gpus for name in CHAINS.get(engine.backend, (engine.backend,)))


def passed_over(
    backend: Backend,
    model: schema.Model,
    engine: schema.EngineConfig,
    environ: Mapping[str, str],
    capabilities: Capabilities,
) -> str | None:
    """Why this engine of the chain is not even tried; None if it is."""
    if backend.name != "vllm":
        return backend.obstacle(capabilities)
    refusal = vllm_refusal(engine, environ, capabilities)
    if refusal is None and not wants_vllm(engine, environ):
        refusal = too_large(model, engine, capabilities)
    return refusal


async def _try(
    backend: Backend, model: schema.Model, engine: schema.EngineConfig, capabilities: Capabilities, say: Say
) -> Engine | str:
    """The engine, or why there is none."""
    if backend.name == "vllm":
        say("[*] Loading model with vLLM (optimized inference)")
    try:
        started = await _start(backend.make(model, engine, capabilities, say))
    except (EngineUnavailable, MissingExtraError) as exc:
        return str(exc)
    if backend.name == "vllm":
        say("[*] vLLM initialized successfully")
    return started


def _no_engine(model: schema.Model, engine: schema.EngineConfig, rejected: Mapping[str, str]) -> str:
    """One sentence with every engine's own reason."""
    if len(rejected) == 1 and engine.fallback == "auto":
        return next(iter(rejected.values()))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
    held = " and engine.fallback is never" if engine.fallback == "never" else ""
    return f"no engine here can run {model.name}{held} ({reasons})"


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
    """Why vLLM can't or must not run here; None if nothing prevents it."""
    if environ.get(USE_VLLM, "").strip() == "0":
        return f"{USE_VLLM}=0 forbids it"
    if engine.backend == "hf":
        return "engine.backend is hf"
    return BUILT_IN["vllm"].obstacle(capabilities)


def too_large(model: schema.Model, engine: schema.EngineConfig, capabilities: Capabilities) -> str | None:
    """Why the model can't fit on the GPUs here, with the arithmetic; None if it does, or if its size is unknown.

    Saves the minutes that vLLM takes to find out. vLLM requested by name is tried all the same.
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


async def _start(engine: Engine) -> Engine:
    """Starts it, and leaves nothing behind if that fails or is interrupted."""
    try:
        await engine.start()
    except BaseException:
        await engine.close()
        raise
    return engine
