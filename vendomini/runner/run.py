"""Runs to completion: one loaded model at a time, many episodes at once on it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import msgspec

from vendomini.config import Phase, RunSpec, count
from vendomini.config.models import model_section
from vendomini.config.schema import Breaker as BreakerConfig
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import Engine
from vendomini.engines.resolve import start_engine
from vendomini.errors import (
    ConfigError,
    CorruptRecordError,
    EngineUnavailable,
    MissingExtraError,
    ResultsError,
    RunChangedError,
    RunEndedError,
    RunLockedError,
    VendoMiniError,
    counted,
)
from vendomini.records import Halt, Plan, Results, RunSummary, is_full, write_record
from vendomini.runner.breaker import Breaker
from vendomini.runner.episode import Episode
from vendomini.runner.limits import rare_collections, room_for
from vendomini.runner.progress import Progress
from vendomini.runner.stop import Stop
from vendomini.runner.tally import Tally, pending

StartEngine = Callable[[Model, EngineConfig], Awaitable[Engine]]

LOOK_EVERY = 0.2
"""Seconds between checks of whether to stop."""


class Runner:
    """Runs episodes to completion: one loaded model at a time, many episodes at once on it.

    Args:
        results: the folder.
        engine: how models run.
        engines: model name → how this one runs, for those that don't take ``engine``.
        progress: shows how far it is; it owns the counters.
        start: makes a started engine, called once for each model that has something to run; by default the fallback
            chain.
        stop: checked between steps.
        on_begin: called once a model is ready, before its first run.
        restart_changed: restart what was begun under another prompt or version, instead of leaving it alone.
        limits: when runs are stopped because the replies can't be used.
        more: what is asked for once the runs of a model have ended; what it can serve is done before it is closed.
        anyway: they are not, and what was stopped before is run.

    Attributes:
        tally: of all runs that :meth:`pending` was asked about.
    """

    def __init__(
        self,
        results: Results,
        engine: EngineConfig,
        progress: Progress,
        *,
        engines: Mapping[str, EngineConfig] = MappingProxyType({}),
        start: StartEngine | None = None,
        stop: Stop | None = None,
        on_begin: Callable[[], None] = lambda: None,
        restart_changed: bool = False,
        limits: BreakerConfig = BreakerConfig(),  # noqa: B008 - frozen
        more: Callable[[], Iterable[RunSpec]] = tuple,
        anyway: bool = False,
    ) -> None:
        self.results, self.engine, self.engines, self.progress = results, engine, engines, progress
        self.counters = progress.counters
        self.stop = stop or Stop()
        self.tally = Tally()
        self._start = start or self._start_by_chain
        self._on_begin = on_begin
        self._restart_changed = restart_changed
        self._limits, self._anyway = limits, anyway
        self._more = more
        self._asked: set[str] = set()
        self._said: set[str] = set()

    async def _start_by_chain(self, model: Model, engine: EngineConfig) -> Engine:
        return await start_engine(model, engine, say=self.progress.say)

    def pending(self, specs: Iterable[RunSpec]) -> list[RunSpec]:
        """Those runs without a final summary; the others go into the tally."""
        todo, self.tally = pending(specs, self.results)
        return todo

    def run(self, todo: Sequence[RunSpec]) -> None:
        """Runs what is pending and shows how far it is; signals stop it after the steps in flight.

        Also works where an event loop is running already, as in a notebook.

        Raises:
            EngineUnavailable: no engine can run the only model there is.
            ResultsError: the results folder can't be made.
            KeyboardInterrupt: a second signal came.
        """
        with self.stop.on_signals(self.progress.say), self.progress:
            try:
                _complete(self.run_all(todo))
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None

    async def run_all(self, todo: Sequence[RunSpec]) -> None:
        """Runs what is pending, model by model, and adds to the tally.

        Raises:
            EngineUnavailable: no engine can run the only model there is. Of several, one that can't run fails its own
                runs.
            ResultsError: the results folder can't be made.
        """
        self.stop.task = asyncio.current_task()
        self.results.create()
        self._expect(todo)
        groups = _by_model(todo)
        with rare_collections():
            for specs in groups:
                if self.stop.reason is not None:
                    self.tally.unfinished += [spec.run_id for spec in specs]
                    continue
                engine = self.engines.get(specs[0].model, self.engine)
                breaker = Breaker(self.results, engine, self._limits, anyway=self._anyway)
                specs = self._not_halted(specs, breaker)
                if not specs:
                    continue
                try:
                    started = await self._start(specs[0].config().agent.model, engine)
                except (EngineUnavailable, ConfigError, MissingExtraError) as exc:
                    if len(groups) == 1:
                        self.results.remove_if_empty()
                        raise
                    self._refuse_model(specs, exc)
                    continue
                try:
                    self._on_begin()
                    while specs:
                        await self._run_on(started, engine, specs, breaker)
                        specs = self._not_halted(self._further(specs[0]), breaker)
                finally:
                    await started.close()
        self.tally.stopped = self.stop.reason

    def _expect(self, specs: Sequence[RunSpec]) -> None:
        self._asked.update(spec.run_id for spec in specs)
        self.counters.runs_total += len(specs)
        self.counters.steps_total += sum(spec.horizon for spec in specs)

    def _further(self, like: RunSpec) -> list[RunSpec]:
        """What is asked for now, was not before, and needs the model that is loaded."""
        if self.stop.reason is not None:
            return []
        key = load_key(like)
        new = [spec for spec in self._more() if spec.run_id not in self._asked and load_key(spec) == key]
        todo, _ = pending(new, self.results)
        self._expect(todo)
        return todo

    def _refuse_model(self, specs: Sequence[RunSpec], exc: VendoMiniError) -> None:
        self.progress.say(
            f"[WARNING] {specs[0].model} can't run here, and {counted(len(specs), 'run fails', 'runs fail')}: {exc}"
        )
        self.tally.failed.update((spec.run_id, str(exc)) for spec in specs)
        self.counters.runs_failed += len(specs)

    def _not_halted(self, specs: list[RunSpec], breaker: Breaker) -> list[RunSpec]:
        """Those that may begin; the others are left, with the reason why they were stopped before."""
        halts = breaker.before(specs)
        self._report(halts.values())
        left = [spec.run_id for spec in specs if breaker.key(spec) in halts] if halts else []
        self.tally.unfinished += left
        return [spec for spec in specs if breaker.key(spec) not in halts] if left else specs

    def _report(self, halts: Iterable[Halt]) -> None:
        for halt in halts:
            self.tally.halted[halt.key] = halt.cause
            self.progress.say(f"[WARNING] {halt.model} is stopped: {halt.reason}")

    async def _run_on(self, started: Engine, engine: EngineConfig, specs: Sequence[RunSpec], breaker: Breaker) -> None:
        queue = deque(specs)
        wished = min(engine.max_num_seqs or started.max_num_seqs, len(specs))
        width = room_for(wished)

        async def work() -> None:
            while queue:
                spec = queue.popleft()
                lost = started.gone or breaker.hopeless(width)
                if self.stop.reason is not None or lost or breaker.stops(spec):
                    self.tally.unfinished.append(spec.run_id)
                    continue
                try:
                    await self._run_one(spec, started, breaker)
                except asyncio.CancelledError:
                    self.tally.unfinished.append(spec.run_id)
                    if self.stop.reason is None:
                        raise

        if width < wished:
            self.progress.say(
                f"[WARNING] {width} episodes at once and not {wished:,}: raise the limit of open files (ulimit -Hn)"
            )
        workers = [asyncio.create_task(work()) for _ in range(width)]
        tasks = [*workers, asyncio.create_task(_leave(workers, self.stop))] if started.elsewhere else workers
        try:
            await asyncio.gather(*workers)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._conclude(started, specs, breaker, _given_up(started, breaker.hopeless(width)))

    def _conclude(self, started: Engine, specs: Sequence[RunSpec], breaker: Breaker, lost: str | None) -> None:
        """Says and keeps why runs were left. An engine in this process may do better on another machine."""
        if lost is not None and not started.elsewhere:
            self.progress.say(f"[WARNING] {specs[0].model}: {lost}; what is left is done by the next call")
            lost = None
        left = {*self.tally.unfinished, *(self.tally.failed if lost else ())}
        self._report(breaker.halted([spec for spec in specs if spec.run_id in left], lost))

    async def _run_one(self, spec: RunSpec, started: Engine, breaker: Breaker) -> None:
        try:
            paths, watch = self.results.run(spec.run_id), breaker.watch(spec)
            episode = Episode(spec, paths, started, self.counters, self._restart_changed, watch)
            summary = await episode.run(self.stop)
        except RunLockedError:
            self.tally.locked.append(spec.run_id)
        except RunEndedError:
            self.tally.already += 1
            self.counters.runs_done += 1
        except (CorruptRecordError, RunChangedError) as exc:
            self.tally.refused[spec.run_id] = str(exc)
            self.progress.say(f"[WARNING] {exc}")
        except (ResultsError, ConfigError) as exc:
            self._fail(spec, exc)
        else:
            if summary is None:
                self.tally.unfinished.append(spec.run_id)
            else:
                self._count(spec, summary, breaker)

    def _fail(self, spec: RunSpec, exc: VendoMiniError) -> None:
        """The others go on: they may be on another disk, or start when there is space again. What happens to many is
        reported once."""
        self.tally.failed[spec.run_id] = str(exc)
        self.counters.runs_failed += 1
        problem = "full disk" if is_full(exc) else str(exc)
        if problem not in self._said:
            self._said.add(problem)
            self.progress.say(f"[WARNING] {spec.run_id} failed: {exc}")

    def _count(self, spec: RunSpec, summary: RunSummary, breaker: Breaker) -> None:
        self.counters.runs_done += 1
        self.counters.steps_total -= spec.horizon - summary.steps
        if summary.finished:
            self.tally.finished += 1
        else:
            self.counters.runs_failed += 1
            breaker.failed(self.counters.steps)
            self.tally.failed[spec.run_id] = summary.reason or "unknown"
            self.progress.say(
                f"[WARNING] {spec.run_id} failed after {counted(summary.steps, 'step')}: {summary.reason}"
            )


def _given_up(started: Engine, hopeless: str | None) -> str | None:
    """Why no other run need be tried on this engine."""
    return f"it answers no more: {started.gone}" if started.gone else hopeless


async def _leave(workers: Sequence[asyncio.Task[None]], stop: Stop) -> None:
    """Cancels the steps in flight when the call is to stop: results from another machine are not waited for."""
    while stop.reason is None:
        await asyncio.sleep(LOOK_EVERY)
    for worker in workers:
        worker.cancel()


def _complete(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs it to its end: in a thread of its own where this one already has a running loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
    else:
        with ThreadPoolExecutor(1) as other:
            other.submit(asyncio.run, coroutine).result()


def _by_model(todo: Iterable[RunSpec]) -> list[list[RunSpec]]:
    """Runs that one loaded model can serve, together."""
    groups: defaultdict[tuple[object, ...], list[RunSpec]] = defaultdict(list)
    for spec in todo:
        groups[load_key(spec)].append(spec)
    return list(groups.values())


def load_key(spec: RunSpec) -> tuple[object, ...]:
    """What a model has to be reloaded for: everything about it but how it is sampled."""
    model = model_section(spec.parameters)
    return tuple(
        model[key] for key in ("name", "revision", "dtype", "quantization", "trust_remote_code", "context_length")
    )


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
