"""The short table at the end of ``vendomini run``: the result of each cell, without any extra package."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vendomini.config import RunSpec
from vendomini.config.paths import lookup
from vendomini.errors import CorruptRecordError
from vendomini.records import Results, RunPaths, RunSummary, read_steps


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of grid values.

    Attributes:
        values: one for each axis.
        runs: analysable runs; those that failed or have not ended are not among them.
        events: runs with an event.
        mean_survival: steps, with a run without an event counted up to its last step. Where none was cut off, this is
            the restricted mean survival time; a run that was cut off makes it too short.
        mean_pe: mean of the runs' mean prediction errors up to their events, since the failed calls of a derailed
            agent are errors of their own; None where none was resolved.
        endings: ending → runs.
    """

    values: tuple[object, ...]
    runs: int
    events: int
    mean_survival: float
    mean_pe: float | None
    endings: dict[str, int]


def summarise_cells(specs: Iterable[RunSpec], axes: Sequence[str], results: Results) -> list[Cell]:
    """A cell for every combination of the axes' values that has an analysable run, in the order of the runs."""
    groups: defaultdict[tuple[object, ...], list[_Run]] = defaultdict(list)
    for spec in specs:
        try:
            summary = results.summary(spec.run_id)
        except CorruptRecordError:
            continue  # reported when the run was first read
        if summary is not None and summary.finished:
            cell = tuple(lookup(spec.parameters, axis) for axis in axes)
            groups[cell].append(_run(summary, results.run(spec.run_id)))
    return [_cell(values, runs) for values, runs in groups.items()]


_Run = tuple[str, bool, int, float | None]
"""Ending, event, steps survived, mean prediction error: the fields of a summary that a cell needs."""


def _run(summary: RunSummary, paths: RunPaths) -> _Run:
    error = summary.pe["all"]["mean"] if summary.pe.get("all") else None
    if error is not None and summary.time_to_crash is not None and summary.time_to_crash < summary.steps:
        error = _mean_until(paths, summary.time_to_crash)
    return summary.ending, bool(summary.event_observed), summary.time_to_crash or 0, error


def _mean_until(paths: RunPaths, last: int) -> float | None:
    """Mean prediction error of the steps up to ``last``; None where the log can't be read, or none was resolved."""
    errors: list[float] = []
    try:
        for step in read_steps(paths.steps):
            if step.step > last:
                break
            errors += [float(claim["pe"]) for claim in step.resolved]
    except (CorruptRecordError, OSError):
        return None  # reported when the run is read for a report
    return sum(errors) / len(errors) if errors else None


def _cell(values: tuple[object, ...], runs: list[_Run]) -> Cell:
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
