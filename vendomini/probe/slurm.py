"""SLURM, as its own client commands report it."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence

from vendomini.probe.capabilities import Partition, Slurm
from vendomini.probe.commands import ask, every_line

COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "sacct", "scancel")

TIMEOUT_S = 60.0
"""Time for one command: login nodes are busy, and SLURM's own commands wait 10 s and more for their controller."""

RETRY_S = (1.0, 3.0)
"""Seconds to wait before each retry of a transient error."""

PASSING = re.compile(
    r"timed out|did not answer|unable to contact|connection refused|connection reset|not connected|connect failure|"
    r"zero bytes|message receive failure|communication|standby mode|temporarily unable|temporarily unavailable|"
    r"try again|problem talking to the database",
    re.IGNORECASE,
)
"""Errors of a controller that is busy or restarting."""

STEERING = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SINFO|SACCT|SCANCEL|SCONTROL)_")
HARMLESS = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_ROOT", "SLURM_HOME", "SLURM_BIN"}
"""Variables that say where SLURM is, not what it should do."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that change what SLURM's commands do.

    ``SBATCH_*`` beats a script's options, ``SQUEUE_*`` hides jobs, and the ``SLURM_*`` of a job reach those it sends.
    """
    return {name: value for name, value in environ.items() if name in HARMLESS or not STEERING.match(name)}


def ask_slurm(
    command: Sequence[str], timeout: float = TIMEOUT_S, environ: Mapping[str, str] | None = None
) -> tuple[str | None, str]:
    """What one of SLURM's commands printed; or None, with SLURM's own reason in full."""
    return ask(command, environment(os.environ if environ is None else environ), timeout, every_line)


def find_slurm(environ: Mapping[str, str], cluster: str = "") -> Slurm:
    """Versions and limits. A controller that does not answer is a reason, not an error.

    Args:
        cluster: other than the one that SLURM's commands talk to by default, or several with commas between.
    """
    path = environ.get("PATH", "")
    commands = tuple(name for name in COMMANDS if shutil.which(name, path=path))
    job = environ.get("SLURM_JOB_ID")
    if "sbatch" not in commands:
        return Slurm(commands, job_id=job, reason="sbatch is not installed: this is no SLURM login node")
    there = ["-M", cluster] if cluster else []
    version, reason = _patiently(["sbatch", "--version"], environ)
    sinfo, sinfo_reason = _patiently(["sinfo", *there, "-a", "--noheader", "--format=%P|%l|%D|%G|%a"], environ)
    settings, settings_reason = _patiently(["scontrol", *there, "show", "config"], environ)
    stated = re.search(r"slurm\S* (\S+)", version or "")
    return Slurm(
        commands,
        stated[1] if stated else None,
        _partitions(sinfo or ""),
        _max_array_size(settings or ""),
        job,
        sinfo_reason or settings_reason or reason or "the controller answers",
    )


def _patiently(command: list[str], environ: Mapping[str, str]) -> tuple[str | None, str]:
    for pause in RETRY_S:
        text, reason = ask_slurm(command, TIMEOUT_S, environ)
        if text is not None or not PASSING.search(reason) or "within" in reason:
            return text, reason
        time.sleep(pause)
    return ask_slurm(command, TIMEOUT_S, environ)


def _partitions(text: str) -> tuple[Partition, ...]:
    rows = [line.strip().split("|") for line in text.splitlines() if line.count("|") == 4]
    return tuple(
        Partition(name.rstrip("*"), name.endswith("*"), limit, int(nodes) if nodes.isdigit() else 0, gres, state)
        for name, limit, nodes, gres, state in rows
    )


def _max_array_size(text: str) -> int | None:
    """The smallest, where several clusters answer."""
    return min((int(size) for size in re.findall(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)), default=None)
