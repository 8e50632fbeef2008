"""The short table at the end of ``vendomini run``: what came out of each cell, without any extra package."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vendomini.config import RunSpec
from vendomini.config.paths import lookup
from vendomini.errors import CorruptRecordError
from vendomini.records import Results, RunSummary


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of grid values.

    Attributes:
        values: one for each axis.
        runs: analysable runs; those that failed or have not ended are not among them.
        events: runs that ended before their horizon.
        mean_survival: steps, with a run that survived counted at its horizon. Since no run is censored before its
            horizon, this is the restricted mean survival time.
        mean_pe: mean of the runs' mean prediction errors; None where none was resolved.
        endings: ending → runs.
    """

    values: tuple[Any, ...]
    runs: int
    events: int
    mean_survival: float
    mean_pe: float | None
    endings: dict[str, int]


def summarise_cells(specs: Iterable[RunSpec], axes: Sequence[str], results: Results) -> list[Cell]:
    """A cell for every combination of the axes' values that has an analysable run, in the order of the runs."""
    groups: defaultdict[tuple[Any, ...], list[_Run]] = defaultdict(list)
    for spec in specs:
        try:
            summary = results.summary(spec.run_id)
        except CorruptRecordError:
            continue  # named when the run was looked at
        if summary is not None and summary.finished:
            groups[tuple(lookup(spec.parameters, axis) for axis in axes)].append(_run(summary))
    return [_cell(values, runs) for values, runs in groups.items()]


_Run = tuple[str, bool, int, float | None]
"""Ending, event, steps survived, mean prediction error: what a cell needs of a summary, not its trees."""


def _run(summary: RunSummary) -> _Run:
    error = summary.pe["all"]["mean"] if summary.pe.get("all") else None
    return summary.ending, bool(summary.event_observed), summary.time_to_crash or 0, error


def _cell(values: tuple[Any, ...], runs: list[_Run]) -> Cell:
    endings, events, times, means = zip(*runs, strict=True)
    errors = [mean for mean in means if mean is not None]
    return Cell(
        values=values,
        runs=len(runs),
        events=sum(events),
        mean_survival=sum(times) / len(runs),
        mean_pe=sum(errors) / len(errors) if errors else None,
        endings=dict(Counter(endings)),
    )
