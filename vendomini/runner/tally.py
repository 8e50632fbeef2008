"""Which runs are still to do, and what became of those that were asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vendomini.config import RunSpec
from vendomini.errors import ResultsError
from vendomini.records import Results


@dataclass(slots=True)
class Tally:
    """What became of the runs that were asked for.

    Attributes:
        finished: ended in this call with an analysable ending.
        already: had ended before, or were ended by another process meanwhile.
        failed: run id → why; rerun by the next call.
        locked: ids that another process is writing.
        refused: run id → what is wrong with its files; left alone.
        unfinished: ids begun or waiting when the call was stopped, or when its engine had failed for good.
        halted: key of a halt → its cause: why runs are unfinished although nothing told the call to stop.
        stopped: the signal that stopped the call, if one did.
    """

    finished: int = 0
    already: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    locked: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    halted: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every run that was asked for has its result."""
        return not (self.failed or self.locked or self.refused or self.unfinished)


def pending(specs: Iterable[RunSpec], results: Results) -> tuple[list[RunSpec], Tally]:
    """Those runs without a final summary, and a tally of the others."""
    tally, todo, specs = Tally(), [], list(specs)
    for spec, outcome in zip(specs, results.outcomes([spec.run_id for spec in specs]), strict=True):
        if isinstance(outcome, ResultsError):
            tally.refused[spec.run_id] = str(outcome)
        elif outcome is not None and outcome.finished:
            tally.already += 1
        else:
            todo.append(spec)
    return todo, tally
