"""How many GPUs a model gets and how fast it goes there, from what is known of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from vendomini.cluster.pace import (
    LOAD_S,
    MEASURED,
    SCRIPTED,
    Throughput,
    billions,
    expected_engine,
    is_scripted,
    published_pace,
)
from vendomini.cluster.plan import Pace
from vendomini.cluster.site import Site
from vendomini.cluster.templates import GPU_COUNTS
from vendomini.config.schema import EngineConfig, Model
from vendomini.errors import ClusterError, ConfigError

UNKNOWN_GPU_GB = 40
"""Memory of a GPU whose type is unknown: better too many GPUs than a model that does not fit."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """Decides for one phase on one cluster.

    Attributes:
        measured: model name → throughput of a job, from results.
        environ: for ``VENDOMINI_USE_VLLM``.
    """

    engine: EngineConfig
    site: Site
    measured: Mapping[str, Throughput] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def gpus(self, model: Model) -> int:
        """Of one job: as the config says, else as many as the model needs to have room for its batch.

        Raises:
            ConfigError: the config asks for a number that no template has.
            ClusterError: the model's size is unknown, or it fits on no node.
        """
        if is_scripted(model) or self.engine.backend in {"scripted", "openai"}:
            return 0
        if self.engine.gpus is not None:
            return _with_template(self.engine.gpus)
        size = self.size_b(model)
        memory = self.site.gpu_memory_gb or UNKNOWN_GPU_GB
        for count in GPU_COUNTS[1:]:
            if count <= self.site.gpus_per_node and fits(size, count, memory):
                return count
        raise ClusterError(
            f"{model.name} ({size:g}B parameters) does not fit on the {self.site.gpus_per_node} GPUs "
            f"({memory} GB each) of a node of partition {self.site.partition}: choose another with --partition, "
            "or set engine.gpus if you know better"
        )

    def pace(self, model: Model, gpus: int, horizon: int) -> Pace:
        """Measured in the results folder, else the guide's published estimate."""
        if is_scripted(model):
            return SCRIPTED
        engine = self.expected_engine(gpus)
        size = billions(model.name) or 7.0
        published = published_pace(size, engine, horizon, self.engine.max_num_seqs)
        if model.name in self.measured:
            return Pace(LOAD_S, self.measured[model.name].step_s, published.concurrency, MEASURED)
        return published

    def expected_engine(self, gpus: int) -> str:
        """The column of the guide's table that its jobs will be in."""
        return expected_engine(self.engine, gpus, self.environ.get("VENDOMINI_USE_VLLM") == "0")

    def size_b(self, model: Model) -> float:
        """Billions of parameters.

        Raises:
            ClusterError: nobody knows.
        """
        size = billions(model.name)
        if size is None:
            raise ClusterError(f"the size of {model.name} is unknown: set engine.gpus, for example -o engine.gpus=1")
        return size


def fits(size_b: float, gpus: int, memory_gb: float) -> bool:
    """Whether 16-bit weights and, for a batch's keys and values, a third as much again fit into 90 % of the memory."""
    return 2 * size_b * 4 / 3 <= 0.9 * gpus * memory_gb


def _with_template(gpus: int) -> int:
    if gpus not in GPU_COUNTS:
        raise ConfigError(f"engine.gpus is {gpus}, but there are templates for {', '.join(map(str, GPU_COUNTS))} GPUs")
    return gpus
