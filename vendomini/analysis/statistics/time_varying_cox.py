"""Does error that the world caused predict the event? Cox with a covariate that changes from step to step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from vendomini.analysis.statistics import partial_likelihood
from vendomini.analysis.statistics.cox import hazards
from vendomini.analysis.statistics.estimate import CannotFit, Estimate
from vendomini.analysis.statistics.partial_likelihood import cox_data

if TYPE_CHECKING:
    import pandas

ROWS = 40_000
"""Approximate number of intervals that the model is fitted on; with more steps, intervals get wider."""
EVENTS = 10
EVENTS_PER_CELL = 5
"""Runs are also compared within cells, where these have this many events on average."""


@dataclass(frozen=True, slots=True)
class VaryingHazard:
    """Hazard ratio per standard deviation of a covariate that changes from step to step.

    Attributes:
        ratio: with a 95 % interval.
        sd: one standard deviation of the covariate, in its own unit.
        p: two-sided.
        n, events, intervals: runs, events and rows that it rests on.
        method: as shown.
    """

    ratio: Estimate
    sd: float
    p: float
    n: int
    events: int
    intervals: int
    method: str


def interval_width(steps: int) -> int:
    """Steps per interval, so that about ``ROWS`` intervals cover all of them."""
    return max(1, math.ceil(steps / ROWS))


def lag_of(width: int, window: int) -> int:
    """Steps that the covariate lies behind an interval: at least the detectors' window, in whole intervals."""
    return math.ceil(window / width) * width


def intervals(
    steps: pandas.DataFrame, runs: pandas.DataFrame, covariate: str, width: int, lag: int
) -> pandas.DataFrame:
    """One row for each stretch of ``width`` steps of a run, with the covariate as it was ``lag`` steps before it.

    Args:
        steps: columns run, step and the covariate; the rows whose step is a multiple of ``width`` suffice.
        runs: columns run, durations, event_observed, seed, and those to be kept.
        lag: steps, a multiple of ``width``; that long before the event, nothing had set off a detector.

    A run enters at step 0, with 0: nothing has been caused yet.
    """
    ends = runs["durations"].to_numpy(float)
    counts = numpy.maximum(numpy.ceil(ends / width).astype(int), 1)
    place = numpy.repeat(numpy.arange(len(runs)), counts)
    table = runs.iloc[place].reset_index(drop=True)
    table["start"] = (numpy.arange(len(place)) - numpy.repeat(numpy.cumsum(counts) - counts, counts)) * width
    table["stop"] = numpy.minimum(table["start"] + width, ends[place])
    table["event"] = (table["stop"] == table["durations"]) & table["event_observed"].astype(bool)
    known = steps.loc[steps["step"] % width == 0, ["run", "step", covariate]].rename(columns={covariate: "x"})
    table = table.merge(known.assign(start=known["step"] + lag).drop(columns="step"), on=["run", "start"], how="left")
    table["x"] = table.groupby("run")["x"].ffill().fillna(0.0)
    return table


def baselines(runs: pandas.DataFrame, model: str, cell: Sequence[str]) -> dict[str, pandas.Series]:
    """Which runs share a baseline hazard: those of a model; and, where there are enough events, those of a cell.

    By model, the randomised doses are compared; by cell, only chance variation at one dose.
    """
    found = {"model": runs.groupby(model, dropna=False).ngroup() if model in runs else runs["seed"] * 0}
    if cell and list(cell) != [model]:
        by_cell = runs.groupby([*cell], dropna=False).ngroup()
        if runs["event_observed"].sum() >= EVENTS_PER_CELL * by_cell.nunique():
            found["cell of the grid"] = by_cell
    return found


def varying_hazard(table: pandas.DataFrame, width: int, lag: int) -> VaryingHazard:
    """Fits ``table`` as :func:`intervals` gives it, with a column ``stratum``; robust errors clustered by seed.

    Intervals and p-values use Student's t on (seeds − 1) degrees of freedom.

    Raises:
        CannotFit: too few events, a constant covariate, fewer than two seeds, or no finite solution.
    """
    events, seeds = int(table["event"].sum()), table["seed"].nunique()
    if events < EVENTS:
        raise CannotFit(f"It needs at least {EVENTS} events, and there are {events}.")
    sd = float(table["x"].std())
    if not sd > 0:
        raise CannotFit("No shock has caused an error in time, so there is nothing that could foretell an event.")
    if seeds < 2:
        raise CannotFit("All runs share one seed, and an interval needs two or more.")
    x = table[["x"]].to_numpy(float) / sd
    data = cox_data(x, table["stop"], table["event"], table["start"], table["stratum"])
    model = partial_likelihood.fit(data)
    se = math.sqrt(float(model.robust(numpy.unique(table["seed"], return_inverse=True)[1])[0, 0]))
    (found,) = hazards(["x"], model.coef.tolist(), [se], seeds)
    return VaryingHazard(
        ratio=found.ratio,
        sd=sd,
        p=found.p,
        n=table["run"].nunique(),
        events=events,
        intervals=len(table),
        method=f"Cox, error as of {lag} steps before each {width}-step interval; "
        f"robust errors clustered by {seeds} seeds, t with {seeds - 1} degrees of freedom",
    )
