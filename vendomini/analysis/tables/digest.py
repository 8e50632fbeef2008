"""What a run's row says beyond its summary: how the run went up to its event, from one pass over its log."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from vendomini.measures.detectors import WINDOW, replay
from vendomini.records import JsonObject, RunSummary, StepRecord

LEVELS = ("strict", "moderate", "lenient")
FORMAT_ERRORS = frozenset({"unparsable", "unknown_tool", "invalid_arguments", "card_missing", "card_invalid"})
"""Calls that fail because of how they are written, whatever the world's state."""
BURST = "invalid_burst"
"""The one detector that can't tell a badly written call from a badly chosen one."""


class Digest:
    """Counts over the steps up to the event; the steps after it show the derailed agent, and say nothing of the cause.

    Args:
        summary: of the run.
    """

    def __init__(self, summary: RunSummary) -> None:
        self._summary = summary
        self._last = summary.time_to_crash or summary.steps
        self._steps = self._unparsable = self._cut = self._failed = self._format = self._resolved = 0
        self._errors = 0.0
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._detected: list[StepRecord] = []

    def watching(self, steps: Iterable[StepRecord]) -> Iterator[StepRecord]:
        """Yields the same steps, counting them."""
        for step in steps:
            if step.step <= self._last:
                self._count(step)
            self._detected.append(step)
            yield step

    def _count(self, step: StepRecord) -> None:
        error = step.result.get("error")
        failed = not step.result.get("ok")
        badly_written = failed and isinstance(error, dict) and error.get("code") in FORMAT_ERRORS
        self._steps += 1
        self._unparsable += step.parse == "unparsable"
        self._cut += step.finish_reason == "length"
        self._failed += failed
        self._format += badly_written
        if failed:
            self._recent.append(badly_written)
        self._resolved += len(step.resolved)
        self._errors += sum(float(claim["pe"]) for claim in step.resolved)

    def row(self) -> dict[str, object]:
        """Columns ``until_event.…`` (counts, and the mean error), ``crash_origin`` and ``replay.<level>.…``."""
        row: dict[str, object] = {
            "until_event.steps": self._steps,
            "until_event.unparsable": self._unparsable,
            "until_event.cut_off": self._cut,
            "until_event.failed": self._failed,
            "until_event.badly_written": self._format,
            "until_event.pe_mean": self._errors / self._resolved if self._resolved else None,
            "crash_origin": self._origin(),
        }
        for level in LEVELS:
            flags = replay(self._detected, level)
            row[f"replay.{level}.onset"], row[f"replay.{level}.type"] = flags.onset, flags.first
        return row

    def _origin(self) -> str | None:
        """``format`` where a burst of failed calls consisted mostly of badly written ones."""
        if self._summary.ending != "crashed":
            return None
        burst = self._summary.crash_type == BURST and sum(self._recent) * 2 > len(self._recent)
        return "format" if burst else "behaviour"


class CausedErrors:
    """Accumulated error that shocks caused, and that the agent caused itself, step by step.

    Each type of error has an exponentially weighted mean that begins at 0, as no promise was broken before the first;
    types are summed. Any error beyond what the world did to its promises is the agent's own.

    Args:
        event: step of the run's event.

    Attributes:
        largest: the type of which shocks had caused most one detector window before the event; None without any.
    """

    ALPHAS: ClassVar = {"fast": 0.3, "medium": 0.1, "slow": 0.01}

    def __init__(self, event: int) -> None:
        self.largest: str | None = None
        self._until = event - WINDOW
        self._caused: dict[str, dict[str, float]] = {name: {} for name in self.ALPHAS}
        self._own: dict[str, float] = {}

    def update(self, step: int, caused: Mapping[str, float], resolved: Sequence[JsonObject]) -> dict[str, float]:
        """Takes one step; the cells ``caused.fast``, ``caused.medium``, ``caused.slow`` and ``own.medium``.

        Args:
            caused: type → mean error of the promises that the step settled.
            resolved: the claims that it settled.
        """
        for name, alpha in self.ALPHAS.items():
            _accumulate(self._caused[name], caused, alpha)
        if resolved:
            errors: dict[str, list[float]] = {}
            for claim in resolved:
                errors.setdefault(str(claim["type"]), []).append(float(claim["pe"]))
            own = {kind: max(sum(v) / len(v) - caused.get(kind, 0.0), 0.0) for kind, v in errors.items()}
            _accumulate(self._own, own, self.ALPHAS["medium"])
        levels = self._caused["medium"]
        if step <= self._until and any(levels.values()):
            self.largest = max(levels, key=levels.__getitem__)
        cells = {f"caused.{name}": sum(levels.values()) for name, levels in self._caused.items()}
        cells["own.medium"] = sum(self._own.values())
        return cells


def _accumulate(levels: dict[str, float], values: Mapping[str, float], alpha: float) -> None:
    for kind, value in values.items():
        level = levels.get(kind, 0.0)
        levels[kind] = level + alpha * (value - level)
