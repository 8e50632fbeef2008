"""How many GPUs a model gets and how fast it goes there, from what is known of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vendomini.cluster.plan import Pace
from vendomini.cluster.site import Site
from vendomini.cluster.templates import GPU_COUNTS
from vendomini.cluster.throughput import (
    LOAD_S,
    MEASURED,
    SCRIPTED,
    SIZES_B,
    Throughput,
    billions,
    expected_engine,
    is_scripted,
    published_pace,
)
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.resolve import wants_gpus
from vendomini.errors import ClusterError, ConfigError, EngineUnavailable
from vendomini.model_info import GIB, ModelFacts, fit, model_facts
from vendomini.probe import Capabilities, HFCache
from vendomini.probe.storage import hf_cache_folder

BATCH = 8
"""Conversations of full length that should find room beside the weights."""

UNKNOWN_GPU_GB = 40
"""Memory of a GPU whose type is unknown: better too many GPUs than a model that does not fit."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """Decides for one phase on one cluster.

    Attributes:
        measured: (model name, engine) → throughput of a job, from results.
        environ: for ``VENDOMINI_USE_VLLM``.
        engines: model name → config of its engine, for those that don't take ``engine``.
    """

    engine: EngineConfig
    site: Site
    measured: Mapping[tuple[str, str], Throughput] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    engines: Mapping[str, EngineConfig] = field(default_factory=dict)

    def of(self, model: Model) -> EngineConfig:
        return self.engines.get(model.name, self.engine)

    def gpus(self, model: Model) -> int:
        """Of one job: as the config says, else as many as the model needs to have room for its batch.

        Raises:
            ConfigError: the config asks for a number that no template has.
            ClusterError: the model's size is unknown, or it fits on no node.
        """
        engine = self.of(model)
        if is_scripted(model) or not wants_gpus(engine):
            return 0
        if engine.gpus is not None:
            return _with_template(engine.gpus)
        memory = self.site.gpu_memory_gb or UNKNOWN_GPU_GB
        counts = [count for count in GPU_COUNTS[1:] if count <= self.site.gpus_per_node]
        facts = self.facts(model)
        if facts is None:
            size = self.size_b(model)
            found = next((count for count in counts if fits_by_size(size, count, memory)), None)
        else:
            found = _smallest(facts, counts, memory, model.context_length, engine.gpu_memory_utilization)
        if found is None:
            raise ClusterError(
                f"{model.name} does not fit on the {self.site.gpus_per_node} GPUs ({memory} GB each) of a node of "
                f"partition {self.site.partition}: choose another with --partition, or set engine.gpus if you know "
                "better"
            )
        return found

    def pace(self, model: Model, gpus: int, horizon: int) -> Pace:
        """Measured in the results folder, else the guide's published estimate."""
        if is_scripted(model):
            return SCRIPTED
        engine = self.expected_engine(model, gpus)
        try:
            size = self.size_b(model)
        except ClusterError:  # engine.gpus says what to run it on, or a server somewhere runs it
            size = SIZES_B[0]
        published = published_pace(size, engine, horizon, self.of(model).max_num_seqs)
        measured = self.measured.get((model.name, engine))
        return published if measured is None else Pace(LOAD_S, measured.step_s, published.concurrency, MEASURED)

    def expected_engine(self, model: Model, gpus: int) -> str:
        """The column of the guide's table that its jobs will be in."""
        return expected_engine(self.of(model), gpus, self.environ.get("VENDOMINI_USE_VLLM") == "0")

    def size_b(self, model: Model) -> float:
        """Billions of parameters: from the model's files, or, before they are here, as its name says.

        Raises:
            ClusterError: nobody knows.
        """
        facts = self.facts(model)
        if facts is not None:
            return (facts.parameters or facts.weight_bytes) / 1e9
        size = billions(model.name)
        if size is None:
            raise ClusterError(f"the size of {model.name} is unknown until it is here: vendomini prefetch {model.name}")
        return size

    def facts(self, model: Model) -> ModelFacts | None:
        """From the model's files; None where they are not in the cache."""
        cache = HFCache(path=str(hf_cache_folder(self.environ)))
        try:
            return model_facts(model.name, model.revision, Capabilities(hf_cache=cache))
        except EngineUnavailable:
            return None


def _smallest(facts: ModelFacts, counts: Sequence[int], memory_gb: int, tokens: int, utilization: float) -> int | None:
    """The fewest GPUs with room for a batch of whole conversations, else the most on which the model fits at all."""
    fits = {n: fit(facts, gpus=n, memory=memory_gb * GIB, tokens=tokens, utilization=utilization) for n in counts}
    able = {n: found.conversations for n, found in fits.items() if found.gpus == n and found.fits}
    roomy = (n for n, conversations in able.items() if conversations >= BATCH)
    return next(roomy, max(able, default=None))


def fits_by_size(size_b: float, gpus: int, memory_gb: float) -> bool:
    """Whether 16-bit weights and, for a batch's keys and values, a third as much again fit into 90 % of the memory."""
    return 2 * size_b * 4 / 3 <= 0.9 * gpus * memory_gb


def _with_template(gpus: int) -> int:
    if gpus not in GPU_COUNTS:
        raise ConfigError(f"engine.gpus is {gpus}, but there are templates for {', '.join(map(str, GPU_COUNTS))} GPUs")
    return gpus
