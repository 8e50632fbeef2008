"""How many GPUs a model gets and how fast it runs on them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from vendomini.cluster.offers import Offer, Offers
from vendomini.cluster.plan import Pace, Shape
from vendomini.cluster.templates import GPU_COUNTS
from vendomini.cluster.throughput import (
    LOAD_S,
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
"""Full-length conversations that should fit beside the weights."""

ALONE = 2 / 3
"""The share of a GPU's memory that the weights may take for an engine of its own. A step reads weights and
conversations, which fill the rest: of memory M and weights W, two engines do 2 (M - W) / M, and one over both GPUs,
which work one after another, (2 M - W) / 2 M."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """Decides for one phase on one cluster.

    Attributes:
        offers: what a job of each size gets.
        measured: (model name, engine) → throughput of one engine, from results.
        whole_nodes: a job gets a whole node, and small models share it.
        environ: for ``VENDOMINI_USE_VLLM``.
        engines: model name → config of its engine, for those that don't take ``engine``.
    """

    engine: EngineConfig
    offers: Offers
    measured: Mapping[tuple[str, str], Throughput] = field(default_factory=dict)
    whole_nodes: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    engines: Mapping[str, EngineConfig] = field(default_factory=dict)

    def of(self, model: Model) -> EngineConfig:
        return self.engines.get(model.name, self.engine)

    def shape(self, model: Model) -> Shape:
        """The shape of one job: the model's GPUs; or, if jobs get whole nodes only, a node and its engines.

        Transformers gets an engine for as few GPUs as hold the model well, since one engine would use its GPUs one
        after another.

        Raises:
            ConfigError: the config asks for a number that no template has.
            ClusterError: the model's size is unknown, or it fits on no node.
        """
        engine = self.of(model)
        if engine.nodes > 1 and not is_scripted(model):
            return Shape(_with_template(engine.gpus or self._most()), engine.nodes)
        gpus = self.gpus(model)
        if not gpus:
            return Shape(gpus)
        whole = self.whole_nodes or "exclusive" in self.offers(gpus).template.options
        most = max(self._most(), gpus) if whole else gpus
        return Shape(most, replicas=most // self._of_one_engine(model, gpus))

    def _of_one_engine(self, model: Model, gpus: int) -> int:
        """GPUs of each engine in a job that was to have one on so many."""
        if self.expected_engine(model, gpus) == "vllm" or gpus == 1:
            return gpus
        try:
            weights = facts.weight_bytes if (facts := self.facts(model)) else 2e9 * self.size_b(model)
        except ClusterError:  # engine.gpus says what to run it on
            return gpus
        memory = _memory(self.offers(gpus)) * GIB
        return next((n for n in GPU_COUNTS[1:] if n < gpus and weights <= n * memory * ALONE), gpus)

    def _most(self) -> int:
        """GPUs of the largest job on one node."""
        least = GPU_COUNTS[1]
        return max((n for n in GPU_COUNTS[1:] if n <= self.offers(least).site.gpus_per_node), default=least)

    def gpus(self, model: Model) -> int:
        """GPUs of one job: as the config says, else as many as the model needs to have room for its batch.

        Raises:
            ConfigError: the config asks for a number that no template has.
            ClusterError: the model's size is unknown, or it fits on no node.
        """
        engine = self.of(model)
        if is_scripted(model) or not wants_gpus(engine):
            return 0
        if engine.gpus is not None:
            return _with_template(engine.gpus)
        found = self._fewest(model)
        if found is None:
            largest = self.offers(self._most())
            site, memory = largest.site, _memory(largest)
            raise ClusterError(
                f"{model.name} does not fit on the {site.gpus_per_node} GPUs ({memory} GB each) of a node of "
                f"partition {site.partition}: choose another with --partition, or set engine.gpus if you know better, "
                "or engine.nodes for several nodes"
            )
        return found

    def _fewest(self, model: Model) -> int | None:
        offered = ((count, self.offers(count)) for count in GPU_COUNTS[1:])
        memories = ((count, _memory(offer)) for count, offer in offered if count <= offer.site.gpus_per_node)
        facts = self.facts(model)
        if facts is not None:
            return _smallest(facts, memories, model.context_length, self.of(model).gpu_memory_utilization)
        size = self.size_b(model)
        return next((count for count, memory in memories if fits_by_size(size, count, memory)), None)

    def pace(self, model: Model, shape: Shape, horizon: int) -> Pace:
        """The pace of all of a job's engines: measured in the results folder, else the published estimate."""
        if is_scripted(model):
            return SCRIPTED
        engine = self.expected_engine(model, shape.gpus)
        try:
            size = self.size_b(model)
        except ClusterError:  # engine.gpus says what to run it on, or a server somewhere runs it
            size = SIZES_B[0]
        published = published_pace(size, engine, horizon, self.of(model).max_num_seqs)
        measured = self.measured.get((model.name, engine))
        one = published if measured is None else Pace(LOAD_S, measured.step_s, published.concurrency, measured.source)
        return replace(one, step_s=one.step_s / shape.replicas, concurrency=one.concurrency * shape.replicas)

    def expected_engine(self, model: Model, gpus: int) -> str:
        """The engine by which its jobs are estimated: a key of the published estimates."""
        return expected_engine(self.of(model), gpus, self.environ.get("VENDOMINI_USE_VLLM") == "0")

    def size_b(self, model: Model) -> float:
        """Billions of parameters: from the model's files, or, before they are here, from its name.

        Raises:
            ClusterError: it is unknown.
        """
        facts = self.facts(model)
        if facts is not None:
            return (facts.parameters or facts.weight_bytes) / 1e9
        size = billions(model.name)
        if size is None:
            raise ClusterError(f"the size of {model.name} is unknown until it is here: vendomini prefetch {model.name}")
        return size

    def facts(self, model: Model) -> ModelFacts | None:
        """What the model's files say; None if they are not in the cache."""
        cache = HFCache(path=str(hf_cache_folder(self.environ)))
        try:
            return model_facts(model.name, model.revision, Capabilities(hf_cache=cache))
        except EngineUnavailable:
            return None


def _memory(offer: Offer) -> int:
    """GB of the smallest GPU that a job may get."""
    return offer.site.gpu_memory_gb(offer.template.gpus, offer.template.gpu_kind)


def _smallest(facts: ModelFacts, memories: Iterable[tuple[int, int]], tokens: int, utilization: float) -> int | None:
    """The fewest GPUs with room for a batch of whole conversations, else the most on which the model fits at all.

    Args:
        memories: numbers of GPUs, rising, and GB of each.
    """
    able = None
    for gpus, memory in memories:
        found = fit(facts, gpus=gpus, memory=memory * GIB, tokens=tokens, utilization=utilization)
        if found.gpus == gpus and found.fits:
            able = gpus
            if found.conversations >= BATCH:
                break
    return able


def fits_by_size(size_b: float, gpus: int, memory_gb: float) -> bool:
    """Whether 16-bit weights and, for a batch's keys and values, a third as much again fit into 90 % of the memory."""
    return 2 * size_b * 4 / 3 <= 0.9 * gpus * memory_gb


def _with_template(gpus: int) -> int:
    if gpus not in GPU_COUNTS:
        raise ConfigError(f"engine.gpus is {gpus}, but there are templates for {', '.join(map(str, GPU_COUNTS))} GPUs")
    return gpus
