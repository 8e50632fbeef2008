"""Episodes for the evidence: the shipped runner, agent, world and controls, in a folder that is thrown away."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vendomini.config import RunConfig, RunSpec
from vendomini.config.paths import assign
from vendomini.engines.scripted import ScriptedEngine
from vendomini.records import Results, RunSummary, StepRecord, read_steps
from vendomini.runner import Counters, Stop
from vendomini.runner.episode import Episode

PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to be run.

    Attributes:
        control: name of the control.
        seed: of the run.
        settings: dot path → value, over the defaults.
        steps: whether to bring the step records, too.
    """

    control: str
    seed: int
    settings: Mapping[str, Any]
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    job: Job
    summary: RunSummary
    steps: list[StepRecord]


def run(job: Job) -> Outcome:
    """One episode, by the runner that ships."""
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        paths = Results(Path(folder)).run("episode")
        summary = asyncio.run(_episode(job, paths).run(Stop()))
        assert summary is not None
        assert summary.finished, summary.reason
        return Outcome(job, summary, list(read_steps(paths.steps)) if job.steps else [])


def run_many(jobs: Iterable[Job], processes: int = PROCESSES) -> Iterator[Outcome]:
    """The outcomes of many episodes, in the order of the jobs."""
    if processes == 1:
        yield from map(run, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run, jobs, chunksize=8)


def parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameter tree of a run that differs from the defaults in ``settings``."""
    tree = _defaults()
    for path, value in settings.items():
        tree = assign(tree, path, value)
    return tree


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    return RunConfig().model_dump(mode="json")


def _episode(job: Job, paths: Any) -> Episode:
    model = f"scripted/{job.control}"
    spec = RunSpec("episode", parameters({**job.settings, "agent.model.name": model}), job.seed, 0)
    return Episode(spec, paths, ScriptedEngine(model), Counters())


def _scratch() -> str | None:
    """Memory, where there is a file system in it."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
