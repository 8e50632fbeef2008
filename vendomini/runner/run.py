"""Many runs to their end: one loaded model at a time, many episodes at once on it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import resource
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from vendomini.config import Phase, RunSpec, count
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.base import Engine
from vendomini.errors import CorruptRecordError, EngineUnavailable, RunEndedError, RunLockedError
from vendomini.records import Plan, Results, write_record
from vendomini.runner.episode import Episode
from vendomini.runner.progress import Counters, Progress
from vendomini.runner.stop import Stop

StartEngine = Callable[[Model, EngineConfig], Awaitable[Engine]]

SPARE_FILES = 64
"""Open at once beside the logs of the episodes and what the engine holds open when they begin."""


@dataclass(slots=True)
class Tally:
    """What became of the runs that were asked for.

    Attributes:
        finished: ended in this call with an analysable ending.
        already: had ended before, or were ended by another process meanwhile.
        failed: run id → why; rerun by the next call.
        locked: ids that another process is writing.
        refused: run id → what is wrong with its files; left alone.
        unfinished: ids begun or waiting when the call was stopped, or when its engine was gone for good.
        stopped: the signal that stopped the call, if one did.
    """

    finished: int = 0
    already: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    locked: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every run that was asked for has its result."""
        return not (self.failed or self.locked or self.refused or self.unfinished)


def pending(specs: Iterable[RunSpec], results: Results) -> tuple[list[RunSpec], Tally]:
    """Those runs without a final summary, and a tally of the others."""
    tally, todo = Tally(), []
    for spec in specs:
        try:
            outcome = results.outcome(spec.run_id)
        except CorruptRecordError as exc:
            tally.refused[spec.run_id] = str(exc)
            continue
        if outcome is not None and outcome.finished:
            tally.already += 1
        else:
            todo.append(spec)
    return todo, tally


async def run_all(
    todo: Sequence[RunSpec],
    tally: Tally,
    results: Results,
    engine: EngineConfig,
    start_engine: StartEngine,
    stop: Stop,
    progress: Progress,
    counters: Counters,
    engines: Mapping[str, EngineConfig] = MappingProxyType({}),
) -> None:
    """Runs what is pending, model by model, and adds to the tally.

    Args:
        todo, tally: as :func:`pending` gives them.
        engines: model name → config of its engine, for those that don't take ``engine``.
        start_engine: makes a started engine; asked once for each model, and only if there is something to run.

    Raises:
        EngineUnavailable: no engine can run the only model there is. Of several, one that can't run fails its own runs.
        ResultsError: results can't be written; what is written is kept.
    """
    results.create()
    counters.runs_total = len(todo)
    counters.steps_total = sum(spec.horizon for spec in todo)
    with _rare_collections():
        groups = _by_model(todo)
        for specs in groups:
            if stop.reason is not None:
                tally.unfinished += [spec.run_id for spec in specs]
                continue
            model = specs[0].config().agent.model
            own = engines.get(model.name, engine)
            try:
                started = await start_engine(model, own)
            except EngineUnavailable as exc:
                if len(groups) == 1:
                    raise
                progress.say(f"[WARNING] {model.name} can't run here, and its {len(specs):,} runs fail: {exc}")
                tally.failed.update((spec.run_id, str(exc)) for spec in specs)
                counters.runs_failed += len(specs)
                continue
            try:
                await _run_on(started, specs, tally, results, own, stop, progress, counters)
            finally:
                await started.close()
    tally.stopped = stop.reason


async def _run_on(
    started: Engine,
    specs: Sequence[RunSpec],
    tally: Tally,
    results: Results,
    engine: EngineConfig,
    stop: Stop,
    progress: Progress,
    counters: Counters,
) -> None:
    queue = deque(specs)

    async def work() -> None:
        while queue:
            spec = queue.popleft()
            if stop.reason is not None or started.gone is not None:
                tally.unfinished.append(spec.run_id)
                continue
            await _run_one(spec, started, tally, results, stop, progress, counters)

    wished = min(engine.max_num_seqs or started.max_num_seqs, len(specs))
    width = _room_for(wished)
    if width < wished:
        progress.say(
            f"[WARNING] {width} episodes at once and not {wished:,}: raise the limit of open files (ulimit -Hn)"
        )
    workers = [asyncio.create_task(work()) for _ in range(width)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _run_one(
    spec: RunSpec,
    started: Engine,
    tally: Tally,
    results: Results,
    stop: Stop,
    progress: Progress,
    counters: Counters,
) -> None:
    try:
        summary = await Episode(spec, results.run(spec.run_id), started, counters).run(stop)
    except RunLockedError:
        tally.locked.append(spec.run_id)
        return
    except RunEndedError:
        tally.already += 1
        counters.runs_done += 1
        return
    except CorruptRecordError as exc:
        tally.refused[spec.run_id] = str(exc)
        progress.say(f"[WARNING] {exc}")
        return
    if summary is None:
        tally.unfinished.append(spec.run_id)
        return
    counters.runs_done += 1
    counters.steps_total -= spec.horizon - summary.steps
    if summary.finished:
        tally.finished += 1
    else:
        counters.runs_failed += 1
        tally.failed[spec.run_id] = summary.reason or "unknown"
        progress.say(f"[WARNING] {spec.run_id} failed after {summary.steps} steps: {summary.reason}")


def _by_model(todo: Iterable[RunSpec]) -> list[list[RunSpec]]:
    """Runs that one loaded model can serve, together."""
    groups: defaultdict[tuple[object, ...], list[RunSpec]] = defaultdict(list)
    for spec in todo:
        groups[load_key(spec)].append(spec)
    return list(groups.values())


def load_key(spec: RunSpec) -> tuple[object, ...]:
    """What a model has to be loaded again for: everything about it but how it is sampled."""
    model = spec.parameters["agent"]["model"]
    return tuple(
        model[key] for key in ("name", "revision", "dtype", "quantization", "trust_remote_code", "context_length")
    )


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Steps make many objects and hardly a cycle: looking for cycles as often as Python does by default, through all
    that is loaded, costs a scripted step several per cent of its time."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _room_for(episodes: int) -> int:
    """How many of these can be in flight: each holds its log open. The soft limit, often 1,024, is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return episodes
    others = len(os.listdir("/dev/fd")) + SPARE_FILES
    wanted = episodes + others if hard == resource.RLIM_INFINITY else min(episodes + others, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(min(episodes, max(wanted, soft) - others), 1)


def save_plan(phase: Phase, results: Results) -> None:
    """Keeps the resolved config in the results folder, under its own hash: what was asked for here.

    Raises:
        ResultsError: the place is not writable.
    """
    results.create()
    config = phase.config.model_dump(mode="json")
    plan = Plan(name=phase.name, runs=count(phase), config=config)
    digest = hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()[:16]
    path = results.plans / f"{digest}.json"
    if not path.exists():
        write_record(path, plan)
