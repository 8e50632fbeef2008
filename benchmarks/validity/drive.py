"""Episodes for the evidence: the shipped runner, agent, world and controls, in a folder that is thrown away."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from vendomini.config import RunSpec
from vendomini.config.paths import assign
from vendomini.engines.scripted import ScriptedEngine
from vendomini.records import Results, RunSummary, StepRecord, read_steps
from vendomini.runner import Counters, Stop
from vendomini.runner.episode import Episode
from vendomini.worlds.vending.config import VendingConfig

PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to be run.

    Attributes:
        control: name of the control.
        seed: of the run.
        settings: dot path → value, over the defaults.
    """

    control: str
    seed: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished episode. ``steps`` reads its log, once."""

    job: Job
    summary: RunSummary
    steps: Iterator[StepRecord]


Result = TypeVar("Result")
Digest = Callable[[Outcome], Result]
"""Boils an outcome down to what a claim needs; runs where the episode ran."""


def run(job: Job, digest: Digest[Result]) -> Result:
    """One episode, by the runner that ships."""
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        paths = Results(Path(folder)).run("episode")
        summary = asyncio.run(_episode(job, paths).run(Stop()))
        assert summary is not None
        assert summary.finished, summary.reason
        return digest(Outcome(job, summary, read_steps(paths.steps)))


def run_many(jobs: Iterable[Job], digest: Digest[Result]) -> Iterator[Result]:
    """The digests of many episodes, in the order of the jobs."""
    yield from pool().map(partial(run, digest=digest), jobs, chunksize=4)


@cache
def pool() -> ProcessPoolExecutor:
    """One for all claims: to start processes costs more than a short claim."""
    return ProcessPoolExecutor(PROCESSES)


def summary(outcome: Outcome) -> RunSummary:
    """The digest that keeps the summary."""
    return outcome.summary


def parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameter tree of a run that differs from the defaults in ``settings``."""
    tree = _defaults()
    for path, value in settings.items():
        tree = assign(tree, path, value)
    return tree


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    return VendingConfig().model_dump(mode="json")


def _episode(job: Job, paths: Any) -> Episode:
    model = f"scripted/{job.control}"
    spec = RunSpec("episode", parameters({**job.settings, "agent.model.name": model}), job.seed, 0)
    return Episode(spec, paths, ScriptedEngine(model), Counters())


def _scratch() -> str | None:
    """Memory, where there is a file system in it."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
