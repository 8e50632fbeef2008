"""SLURM, asked of its own client commands."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping

from vendomini.probe.capabilities import Partition, Slurm
from vendomini.probe.commands import ask

COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "sacct", "scancel")


def find_slurm(environ: Mapping[str, str]) -> Slurm:
    """Versions and limits. A controller that does not answer is a reason, not an error."""
    path = environ.get("PATH", "")
    commands = tuple(name for name in COMMANDS if shutil.which(name, path=path))
    job = environ.get("SLURM_JOB_ID")
    if "sbatch" not in commands:
        return Slurm(commands, job_id=job, reason="sbatch is not installed: this is no SLURM login node")
    version, reason = ask(["sbatch", "--version"], environ)
    sinfo, sinfo_reason = ask(["sinfo", "--noheader", "--format=%P|%l|%D|%G|%a"], environ)
    settings, settings_reason = ask(["scontrol", "show", "config"], environ)
    return Slurm(
        commands,
        version.split()[-1] if version and version.split() else None,
        _partitions(sinfo or ""),
        _max_array_size(settings or ""),
        job,
        reason or sinfo_reason or settings_reason or "the controller answers",
    )


def _partitions(text: str) -> tuple[Partition, ...]:
    rows = [line.strip().split("|") for line in text.splitlines() if line.count("|") == 4]
    return tuple(
        Partition(name.rstrip("*"), name.endswith("*"), limit, int(nodes) if nodes.isdigit() else 0, gres, state)
        for name, limit, nodes, gres, state in rows
    )


def _max_array_size(text: str) -> int | None:
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    return int(match.group(1)) if match else None
