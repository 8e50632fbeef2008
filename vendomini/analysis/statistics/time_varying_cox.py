"""Does the prediction error that an agent has met so far foretell its crash? Cox with a time-varying covariate."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vendomini.analysis.statistics.estimate import CannotFit, Estimate

if TYPE_CHECKING:
    import pandas

ROWS = 40_000
"""Intervals that the model is fitted on, about; more steps than that are taken in wider intervals."""
EVENTS = 10


@dataclass(frozen=True, slots=True)
class VaryingHazard:
    """Hazard ratio per standard deviation of a covariate that changes from step to step.

    Attributes:
        covariate: the column.
        ratio: with a 95 % interval.
        sd: one standard deviation of the covariate, in its own unit.
        p: two-sided.
        n, events, intervals: runs, events and rows that it rests on.
        method: as shown.
    """

    covariate: str
    ratio: Estimate
    sd: float
    p: float
    n: int
    events: int
    intervals: int
    method: str


def interval_width(steps: int) -> int:
    """Steps that one interval takes in, so that about ``ROWS`` intervals cover all."""
    return max(1, math.ceil(steps / ROWS))


def intervals(steps: pandas.DataFrame, runs: pandas.DataFrame, covariate: str, width: int) -> pandas.DataFrame:
    """One row for each stretch of ``width`` steps of a run, with the covariate as it was *before* the stretch.

    Args:
        steps: columns run_id, step and the covariate; the rows whose step is a multiple of ``width`` suffice.
        runs: columns run_id, durations, event_observed, seed.

    A run enters at the first step after which the covariate has a value (an error has been resolved).
    """
    at = steps.loc[steps["step"] % width == 0, ["run_id", "step", covariate]].dropna()
    table = at.merge(runs[["run_id", "durations", "event_observed", "seed"]], on="run_id")
    table = table[table["step"] < table["durations"]].rename(columns={"step": "start", covariate: "x"})
    table = table.sort_values(["run_id", "start"])
    following = table.groupby("run_id")["start"].shift(-1)
    table["stop"] = following.fillna(table["durations"])
    table["event"] = following.isna() & table["event_observed"].astype(bool)
    return table[["run_id", "seed", "start", "stop", "event", "x"]].reset_index(drop=True)


def varying_hazard(table: pandas.DataFrame, covariate: str, width: int) -> VaryingHazard:
    """Fits ``table`` as :func:`intervals` gives it.

    lifelines has no robust error for this model: the interval is a delete-one-seed jackknife, with t on
    (seeds − 1) degrees of freedom.

    Raises:
        CannotFit: too few events, a constant covariate, or fewer than two seeds.
    """
    from scipy import stats

    events = int(table["event"].sum())
    seeds = sorted(table["seed"].unique())
    if events < EVENTS:
        raise CannotFit(
            f"A hazard over {covariate} needs at least {EVENTS} events with a prediction error before them, and there "
            f"are {events}."
        )
    sd = float(table["x"].std())
    if not sd > 0:
        raise CannotFit(f"{covariate} is the same at all steps, so no hazard can depend on it.")
    if len(seeds) < 2:
        raise CannotFit("All runs share one seed: an interval for the hazard over prediction errors needs two or more.")
    scaled = table.assign(x=(table["x"] - table["x"].mean()) / sd).drop(columns="seed")
    coef = _coefficient(scaled)
    without = [_coefficient(scaled[table["seed"] != seed]) for seed in seeds]
    count = len(seeds)
    centre = sum(without) / count
    se = math.sqrt((count - 1) / count * sum((value - centre) ** 2 for value in without))
    reach = float(stats.t.ppf(0.975, count - 1)) * se
    return VaryingHazard(
        covariate=covariate,
        ratio=Estimate(math.exp(coef), math.exp(coef - reach), math.exp(coef + reach)),
        sd=sd,
        p=2 * float(stats.t.sf(abs(coef) / se, count - 1)) if se else 0.0,
        n=table["run_id"].nunique(),
        events=events,
        intervals=len(table),
        method=f"Cox with a time-varying covariate, its value before each {width}-step interval; "
        f"jackknife over {count} seeds",
    )


def _coefficient(table: pandas.DataFrame) -> float:
    from lifelines import CoxTimeVaryingFitter
    from lifelines.exceptions import ConvergenceError

    fitter: Any = CoxTimeVaryingFitter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fitter.fit(table, id_col="run_id", event_col="event", start_col="start", stop_col="stop")
        except (ConvergenceError, ValueError) as exc:
            raise CannotFit(f"The time-varying Cox model has no finite solution ({exc}).") from exc
    return float(fitter.params_["x"])
