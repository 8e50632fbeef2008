"""What planning needs to know about a cluster: its partitions' limits and GPUs, and how long an array may be."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from vendomini.cluster.gpu_types import memory_gb
from vendomini.cluster.slurm import minutes
from vendomini.errors import ClusterError, UsageError
from vendomini.probe import Partition, Slurm
from vendomini.probe.slurm import find_slurm

DEFAULT_MAX_ARRAY_SIZE = 1001
"""SLURM's own default, for a cluster whose description does not say."""

UNKNOWN_GPU_GB = 40
"""Memory of a GPU whose type is unknown: better too many GPUs than a model that does not fit."""


class Gpus(NamedTuple):
    """The GPUs of one kind in one kind of node.

    Attributes:
        kind: as SLURM calls it; empty where it does not say.
        number: in one node.
    """

    kind: str
    number: int


@dataclass(frozen=True, slots=True)
class Site:
    """The partition that a job is sent to, or several of which SLURM takes the one that starts it first.

    Attributes:
        partition: as ``--partition`` takes it, ``gpu`` or ``gpu,spare``.
        max_minutes: longest time a job may ask for; None for no limit.
        nodes: every kind of node's GPUs.
        max_array_size: array indices stay below it; 0 where a site has switched arrays off.
        live: SLURM is here; false for a cluster that is only described.
    """

    partition: str
    max_minutes: int | None
    nodes: tuple[Gpus, ...]
    max_array_size: int
    live: bool

    @property
    def gpus_per_node(self) -> int:
        """GPUs of each of the best-equipped nodes."""
        return max((gpus.number for gpus in self.nodes), default=0)

    def gpu_memory_gb(self, count: int = 1, kind: str = "") -> int:
        """Memory of the smallest GPU that a job with this many of them may be given, on any node.

        Args:
            kind: the only one that the job asks for.
        """
        kinds = [gpus.kind for gpus in self._fitting(count, kind)] or [kind]
        return min(memory_gb(one) or UNKNOWN_GPU_GB for one in kinds)

    def unknown_kinds(self) -> list[str]:
        """Kinds of GPU whose memory is unknown."""
        return sorted({gpus.kind or "(unnamed)" for gpus in self.nodes if not memory_gb(gpus.kind)})

    def _fitting(self, count: int, kind: str) -> list[Gpus]:
        return [gpus for gpus in self.nodes if gpus.number >= count and kind.lower() in ("", gpus.kind.lower())]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster's partitions, one row for each kind of node in one.

    Attributes:
        max_array_size, live: as in :class:`Site`.
    """

    partitions: tuple[Partition, ...]
    max_array_size: int
    live: bool

    def site(self, partition: str | None) -> Site:
        """Args:
            partition: one or several with commas between; by default the cluster's own default.

        Raises:
            ClusterError: no such partition, or no default.
        """
        names = partition.split(",") if partition else [self._default()]
        rows = [row for name in names for row in self._rows(name)]
        limits = [minutes(row.time_limit) for row in rows]
        return Site(
            partition=",".join(names),
            max_minutes=None if None in limits else max(limit for limit in limits if limit is not None),
            nodes=tuple(dict.fromkeys(gpus for row in rows for gpus in gpus_of(row.gres))),
            max_array_size=self.max_array_size,
            live=self.live,
        )

    def _default(self) -> str:
        known = {row.name for row in self.partitions}
        name = next((row.name for row in self.partitions if row.default), known.pop() if len(known) == 1 else None)
        if name is None:
            raise ClusterError(f"this cluster has no default partition: {self._choose()}")
        return name

    def _rows(self, name: str) -> list[Partition]:
        rows = [row for row in self.partitions if row.name == name]
        if not rows:
            raise ClusterError(f"there is no partition {name!r}: {self._choose()}")
        return rows

    def _choose(self) -> str:
        return f"choose with --partition one of {', '.join(sorted({row.name for row in self.partitions}))}"


ASSUMED = Cluster((Partition("", True, "infinite", 1, "gpu:80gb:8", "up"),), DEFAULT_MAX_ARRAY_SIZE, live=False)
"""The cluster that is assumed if there is no SLURM to ask."""


def find_cluster(description: Path | None = None, clusters: str = "") -> Cluster:
    """The cluster here, or the one that ``vendomini doctor --json`` described elsewhere.

    Args:
        description: that command's output.
        clusters: other than the one that SLURM's commands talk to by default.

    Raises:
        ClusterError: no SLURM here, or it does not answer.
        UsageError: the description can't be read.
    """
    if description is not None:
        return _described(description)
    slurm = find_slurm(os.environ, clusters)
    if not slurm.available:
        raise ClusterError(
            f"{slurm.reason}. Log in to your cluster's login node; or plan for one that is described with "
            "--describe FILE, made there by `vendomini doctor --json > FILE`"
        )
    if not slurm.partitions:
        raise ClusterError(f"SLURM names no partitions: {slurm.reason}")
    if slurm.max_array_size is None:
        raise ClusterError(f"SLURM does not say how long an array may be: {slurm.reason}")
    return Cluster(slurm.partitions, slurm.max_array_size, live=True)


def _described(path: Path) -> Cluster:
    try:
        slurm = msgspec.convert(json.loads(path.read_text())["capabilities"]["slurm"], Slurm)
    except OSError as exc:
        raise UsageError(f"--describe {path}: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as exc:
        raise UsageError(f"--describe {path} is not what `vendomini doctor --json` prints: {exc}") from exc
    if not slurm.partitions:
        raise ClusterError(
            f"{path} describes a machine without SLURM partitions ({slurm.reason}): make it again, on the "
            "cluster's login node, by `vendomini doctor --json > FILE`"
        )
    size = DEFAULT_MAX_ARRAY_SIZE if slurm.max_array_size is None else slurm.max_array_size
    return Cluster(slurm.partitions, size, live=False)


def gpus_of(gres: str) -> list[Gpus]:
    """Kinds and numbers of GPUs in sinfo's ``gpu:a100:8(S:0-1),gpu:1g.10gb:7,shard:…``."""
    found = re.finditer(r"(?:^|,)gpu(?::([A-Za-z0-9][\w.+-]*))??(?::no_consume)?:(\d+)(?=[(,\s]|$)", gres)
    return [Gpus(match[1] or "", int(match[2])) for match in found]
