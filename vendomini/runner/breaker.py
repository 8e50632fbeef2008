"""The breaker: stops the runs of a model where going on would only cost.

It trips where the replies of runs whose agents are set alike can't be used, or where run after run fails on an engine.
Why is kept in the results folder: ``submit`` does not send such runs again until a setting has changed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from vendomini.config import RunSpec
from vendomini.config import schema as config
from vendomini.errors import CorruptRecordError, ResultsError
from vendomini.records import Halt, Results, read_record, write_record

FEWEST_FRUITLESS = 3
"""Failed runs in a row, without a step between them, that may still be chance, however few are in flight."""

_canonical = msgspec.json.Encoder(order="sorted")


def halt_key(spec: RunSpec, engine: config.EngineConfig, breaker: config.Breaker) -> str:
    """16 hexadecimal digits, the same for all runs whose agents are set alike, on the same engine."""
    settings = [spec.parameters["agent"], engine.model_dump(mode="json"), breaker.model_dump(mode="json")]
    return hashlib.sha256(_canonical.encode(settings)).hexdigest()[:16]


@dataclass(slots=True)
class Watch:
    """The first replies of episodes whose agents are set alike.

    Attributes:
        until: the last step of an episode that counts; 0 where nothing is watched.
        episodes: those that have done all the steps that count.
        replies: seen so far.
        unusable: why a reply could not be used → how many.
        reason: why these runs stop; None while they go on.
    """

    limits: config.Breaker
    episodes: int = 0
    replies: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    reason: str | None = None
    until: int = field(init=False)

    def __post_init__(self) -> None:
        self.until = self.limits.steps if self.limits.unusable is not None else 0

    def add(self, step: int, trouble: str | None) -> None:
        """Takes a reply.

        Args:
            trouble: why it can't be used, if so.
        """
        if step > self.until or self.limits.unusable is None:
            return
        self.replies += 1
        if trouble is not None:
            self.unusable[trouble] += 1
        if step == self.until:
            self.episodes += 1
            self._judge(self.limits.unusable)

    def _judge(self, limit: float) -> None:
        share = self.unusable.total() / self.replies
        if self.reason is None and share > limit and self.episodes >= self.limits.episodes:
            self.reason = f"{share:.0%} of its first {self.replies:,} replies can't be used ({shares(self.unusable)})"


def shares(counts: Counter[str]) -> str:
    """``no_object 60 %, cut_off 40 %``: the three most frequent."""
    total = max(counts.total(), 1)
    return ", ".join(f"{name} {number / total:.0%}" for name, number in counts.most_common(3))


class Breaker:
    """Watches the runs of one loaded model.

    Args:
        results: where halts are kept.
        engine: how the model runs.
        limits: on replies.
        anyway: replies are not watched, and what was halted before is run.
    """

    def __init__(
        self, results: Results, engine: config.EngineConfig, limits: config.Breaker, *, anyway: bool = False
    ) -> None:
        self._results, self._engine, self._limits, self._anyway = results, engine, limits, anyway
        self._watched = config.Breaker(unusable=None) if anyway else limits
        self._keys: dict[int, str] = {}
        self._watches: dict[str, Watch] = {}
        self._fruitless = self._steps_before = 0

    def watch(self, spec: RunSpec) -> Watch:
        """What it knows of runs set like this one."""
        return self._watches.setdefault(self.key(spec), Watch(self._watched))

    def stops(self, spec: RunSpec) -> bool:
        """Whether runs set like this one stop: by what was seen here, or in another job meanwhile."""
        watch = self.watch(spec)
        if watch.reason is None and not self._anyway:
            with suppress(FileNotFoundError, CorruptRecordError):
                halt = read_record(self._results.halt(self.key(spec)), Halt)
                watch.reason = halt.reason if halt.cause == "replies" else None
        return watch.reason is not None

    def key(self, spec: RunSpec) -> str:
        place = id(spec.parameters)  # which all replications of a cell share
        if place not in self._keys:
            self._keys[place] = halt_key(spec, self._engine, self._limits)
        return self._keys[place]

    def failed(self, steps: int) -> None:
        """Counts a failed run.

        Args:
            steps: done until now, over all runs.
        """
        self._fruitless = self._fruitless + 1 if steps == self._steps_before else 1
        self._steps_before = steps

    def hopeless(self, width: int) -> str | None:
        """Why the engine is given up: runs fail that began after the last answer, since they are more than were in
        flight then."""
        if self._fruitless <= max(width, FEWEST_FRUITLESS):
            return None
        return f"{self._fruitless} runs failed in a row, without a step between them"

    def before(self, specs: Iterable[RunSpec]) -> dict[str, Halt]:
        """Key → why these runs were stopped before. Where an engine had failed, it is tried again."""
        if not (self._results.root / "halts").is_dir():
            return {}
        halts = self._results.halts()
        found = {key: halts[key] for key in dict.fromkeys(map(self.key, specs)) if key in halts}
        for key in [key for key, halt in found.items() if halt.cause == "engine"]:
            del found[key]
            with suppress(OSError):
                self._results.halt(key).unlink(missing_ok=True)
        return {} if self._anyway else found

    def halted(self, specs: Iterable[RunSpec], engine_reason: str | None) -> list[Halt]:
        """Why these runs were stopped, and now also in the results folder.

        Args:
            specs: that were left unfinished.
            engine_reason: why the engine was given up, if it was.
        """
        found: dict[str, Halt] = {}
        for spec in specs:
            key = self.key(spec)
            unusable = self.watch(spec).reason
            reason = unusable or engine_reason
            if reason is not None and key not in found:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                found[key] = Halt(
                    key=key,
                    model=spec.model,
                    cause="replies" if unusable else "engine",
                    reason=reason,
                    halted_at=now,
                )
        for halt in found.values():
            self._keep(halt)
        return list(found.values())

    def _keep(self, halt: Halt) -> None:
        path = self._results.halt(halt.key)
        with suppress(OSError, ResultsError):  # a full disk, for example: the next start finds out by itself
            path.parent.mkdir(exist_ok=True)
            write_record(path, halt)
