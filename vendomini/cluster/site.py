"""What planning has to know of a cluster: one partition's limits and GPUs, and how long an array may be."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vendomini.cluster.slurm import minutes
from vendomini.errors import ClusterError, UsageError
from vendomini.probe import Partition, Slurm
from vendomini.probe.slurm import find_slurm

DEFAULT_MAX_ARRAY_SIZE = 1001
"""SLURM's own default."""

GPU_MEMORY_GB = {
    "v100": 16, "t4": 16, "p100": 16, "a10": 24, "a30": 24, "l4": 24, "rtx3090": 24, "rtx4090": 24, "rtx_4090": 24,
    "a40": 48, "l40": 48, "l40s": 48, "a6000": 48, "a100": 40, "h100": 80, "gh200": 96, "h200": 141, "b200": 180,
    "mi250": 64, "mi300x": 192,
}  # fmt: skip
"""GB of one GPU by its SLURM type, the smaller where a type comes in two sizes."""


@dataclass(frozen=True, slots=True)
class Site:
    """One partition of one cluster.

    Attributes:
        partition: its name.
        max_minutes: longest time a job may ask for; None for no limit.
        gpus_per_node: of the best-equipped nodes.
        gpu_type: as SLURM calls it; empty where it does not say.
        max_array_size: array indices stay below it.
        live: SLURM is here; false for a cluster that is only described.
    """

    partition: str
    max_minutes: int | None
    gpus_per_node: int
    gpu_type: str
    max_array_size: int
    live: bool

    @property
    def gpu_memory_gb(self) -> int | None:
        """Of one GPU, from its type's name: ``a100_80gb`` says it, others are looked up; None for an unknown one."""
        stated = re.search(r"(\d+)\s*gb?\b", self.gpu_type, re.IGNORECASE)
        return int(stated.group(1)) if stated else GPU_MEMORY_GB.get(self.gpu_type.lower())


ASSUMED = Site("", None, 8, "80gb", DEFAULT_MAX_ARRAY_SIZE, live=False)
"""Where there is no SLURM to ask."""


def find_site(partition: str | None, description: Path | None = None) -> Site:
    """The cluster here, or the one that ``vendomini doctor --json`` described elsewhere.

    Args:
        partition: by default the cluster's own default.
        description: that command's output.

    Raises:
        ClusterError: no SLURM here, or no such partition.
        UsageError: the description can't be read.
    """
    slurm = find_slurm(os.environ) if description is None else _described(description)
    if description is None and not slurm.available:
        raise ClusterError(
            f"{slurm.reason}. Log in to your cluster's login node; or plan for one that is described with "
            "--describe FILE, made there by `vendomini doctor --json > FILE`"
        )
    if not slurm.partitions:
        if description is None:
            raise ClusterError(f"SLURM names no partitions: {slurm.reason}")
        raise ClusterError(
            f"{description} describes a machine without SLURM partitions ({slurm.reason}): make it again, on the "
            "cluster's login node, by `vendomini doctor --json > FILE`"
        )
    rows = _rows(slurm.partitions, partition)
    types = [_gres(row.gres) for row in rows]
    kind, gpus = max(types, key=lambda one: one[1])
    limits = [minutes(row.time_limit) for row in rows]
    return Site(
        partition=rows[0].name,
        max_minutes=None if None in limits else max(limit for limit in limits if limit is not None),
        gpus_per_node=gpus,
        gpu_type=kind,
        max_array_size=slurm.max_array_size or DEFAULT_MAX_ARRAY_SIZE,
        live=description is None,
    )


def site_or_assumed(partition: str | None, description: Path | None) -> tuple[Site, str]:
    """For estimates: the cluster, or nodes of eight GPUs where there is none to ask; and a note that says so.

    Raises:
        ClusterError: there is a cluster, but not this partition.
    """
    if description is None and partition is None and not find_slurm(os.environ).available:
        return ASSUMED, f"No SLURM here: assumed nodes of {ASSUMED.gpus_per_node} GPUs with 80 GB each."
    site = find_site(partition, description)
    unknown = f"The memory of GPU type {site.gpu_type or '(unnamed)'} is unknown: assumed 40 GB each."
    return site, "" if site.gpu_memory_gb else unknown


def _described(path: Path) -> Slurm:
    try:
        return msgspec.convert(json.loads(path.read_text())["capabilities"]["slurm"], Slurm)
    except OSError as exc:
        raise UsageError(f"--describe {path}: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as exc:
        raise UsageError(f"--describe {path} is not what `vendomini doctor --json` prints: {exc}") from exc


def _rows(partitions: tuple[Partition, ...], name: str | None) -> list[Partition]:
    """sinfo has a line for each kind of node in a partition."""
    known = sorted({row.name for row in partitions})
    if name is None:
        name = next((row.name for row in partitions if row.default), known[0] if len(known) == 1 else None)
    rows = [row for row in partitions if row.name == name]
    if rows:
        return rows
    wrong = f"there is no partition {name!r}" if name else "this cluster has no default partition"
    raise ClusterError(f"{wrong}: choose with --partition one of {', '.join(known)}")


def _gres(text: str) -> tuple[str, int]:
    """Type and number of GPUs in sinfo's ``gpu:a100:8(S:0-1),shard:…``."""
    found = [("", 0)]
    for match in re.finditer(r"\bgpu(?::([A-Za-z][\w.-]*))?:(\d+)", text):
        found.append((match.group(1) or "", int(match.group(2))))
    return max(found, key=lambda one: one[1])
