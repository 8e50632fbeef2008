"""Runs → jobs: few and long, one model each, its engine kept full, done before the time limit. Pure functions.

A group is what one loaded model can carry. It is cut into shards that fit the time limit and are long enough for the
loading to cost next to nothing, but never so small that the engine would run half empty: a shard that is too long for
its limit stops, requeues itself and resumes, which costs one more load; a half-empty engine wastes GPU-hours
throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vendomini.config.grid import RunSpec
from vendomini.config.models import model_section
from vendomini.config.schema import Model
from vendomini.errors import UsageError
from vendomini.records import Shard
from vendomini.runner.run import load_key

MARGIN = 0.85
"""Share of a job's time that is planned for; the rest covers errors in the estimates."""

LOADING = 0.03
"""Share of a job that loading the model may take. Longer jobs would save less than this, and end later."""

BATCHES = 2
"""Full batches in a job, at least: its last runs leave the batch half empty, however many went before."""


class Shape(NamedTuple):
    """What one job gets, and how many engines share it.

    Attributes:
        gpus: of each node.
        replicas: engines, each with its part of the GPUs and of the runs.
    """

    gpus: int
    nodes: int = 1
    replicas: int = 1

    @property
    def total_gpus(self) -> int:
        return self.gpus * self.nodes

    @property
    def engine_gpus(self) -> int:
        """GPUs of one engine."""
        return self.total_gpus // self.replicas


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one job works.

    Attributes:
        load_s: seconds until the model answers.
        step_s: seconds of a job per step, with ``concurrency`` episodes in flight.
        concurrency: episodes that keep the engine's batch full.
        source: where the figures come from, for people.
    """

    load_s: float
    step_s: float
    concurrency: int
    source: str


@dataclass(frozen=True, slots=True)
class Item:
    """One run to plan: its id, the steps that are still to be done, at most, and its number in the grid."""

    run_id: str
    steps: int
    number: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that can share one loaded model."""

    model: Model
    shape: Shape
    pace: Pace
    items: tuple[Item, ...]

    @property
    def seconds(self) -> float:
        """Seconds of work, without loading."""
        return self.pace.step_s * sum(item.steps for item in self.items)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on how groups are cut into shards.

    Attributes:
        usable_s: seconds that a job of this shape may run before it is told to stop.
        runs_per_job: this many, whatever the estimate says.
        max_jobs: over all groups.
    """

    usable_s: dict[Shape, float]
    runs_per_job: int | None = None
    max_jobs: int | None = None


def group_runs(
    specs: Iterable[RunSpec], shape_of: Callable[[Model], Shape], pace_of: Callable[[Model, Shape, int], Pace]
) -> list[Group]:
    """One group for each model to load, in the order in which they first appear.

    Args:
        shape_of: the job that a model is to run in.
        pace_of: how fast that goes, from the model, its job and the longest horizon in steps.
    """
    items: dict[tuple[object, ...], list[Item]] = {}
    models: dict[tuple[object, ...], Model] = {}
    for spec in specs:
        key = load_key(spec)
        if key not in items:
            items[key], models[key] = [], Model.model_validate(model_section(spec.parameters))
        items[key].append(Item(spec.run_id, spec.horizon, spec.number))
    groups = []
    for key, model in models.items():
        shape, horizon = shape_of(model), max(item.steps for item in items[key])
        groups.append(Group(model, shape, pace_of(model, shape, horizon), tuple(items[key])))
    return groups


def cut(groups: Sequence[Group], limits: Limits) -> list[tuple[Shape, Shard]]:
    """Every group's shards, each with its shape; together they hold every run once.

    Raises:
        UsageError: there are more models than jobs allowed.
    """
    counts = [_jobs(group, limits) for group in groups]
    if limits.max_jobs is not None:
        counts = _at_most(limits.max_jobs, groups, counts)
    return [(g.shape, shard) for g, n in zip(groups, counts, strict=True) for shard in _deal(g, n)]


def arrays(shards: Sequence[tuple[Shape, Shard]], max_array_size: int) -> list[tuple[Shape, list[Shard]]]:
    """Shards of one shape go into one array, or into several where the cluster's limit requires it.

    Args:
        max_array_size: array indices must stay below it; 0 where there are no arrays.
    """
    by_shape: dict[Shape, list[Shard]] = {}
    for shape, shard in shards:
        by_shape.setdefault(shape, []).append(shard)
    size = max(max_array_size, 1)
    return [(shape, some[i : i + size]) for shape, some in by_shape.items() for i in range(0, len(some), size)]


def _jobs(group: Group, limits: Limits) -> int:
    runs = len(group.items)
    if limits.runs_per_job is not None:
        return math.ceil(runs / limits.runs_per_job)
    usable = min(limits.usable_s[group.shape] * MARGIN - group.pace.load_s, group.pace.load_s / LOADING)
    fit = max(math.floor(usable * runs / group.seconds), 1)
    return max(min(math.ceil(runs / fit), runs // (BATCHES * group.pace.concurrency)), 1)


def _at_most(max_jobs: int, groups: Sequence[Group], counts: list[int]) -> list[int]:
    """Fewer jobs, in proportion to each group's work."""
    if len(groups) > max_jobs:
        raise UsageError(f"--max-jobs {max_jobs}: there are {len(groups)} models to load, and a job loads one of them")
    if sum(counts) <= max_jobs:
        return counts
    scale = (max_jobs - len(groups)) / (sum(counts) - len(groups)) if sum(counts) > len(groups) else 0.0
    return [1 + math.floor((count - 1) * scale) for count in counts]


def _deal(group: Group, jobs: int) -> list[Shard]:
    """Deals out the longest runs first: shards differ by one run at most, and no long run starts last."""
    longest_first = sorted(group.items, key=lambda item: -item.steps)
    hands = [longest_first[job::jobs] for job in range(jobs)]
    return [
        Shard(
            model=group.model.name,
            run_ids=[item.run_id for item in hand],
            numbers=[item.number for item in hand],
            seconds=group.pace.load_s + group.pace.step_s * sum(item.steps for item in hand),
        )
        for hand in hands
        if hand
    ]
