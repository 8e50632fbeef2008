"""Contrasts within seeds: runs of one seed meet the same suppliers and customers, so they are compared pair by pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy
from numpy.typing import NDArray

from vendomini.analysis.statistics.estimate import CannotFit, Estimate, Test
from vendomini.analysis.statistics.survival import at_risk_and_deaths, common_horizon

if TYPE_CHECKING:
    import pandas

FEWEST_SEEDS = 3
"""With two seeds, Student's t has one degree of freedom and says next to nothing."""


def restricted_times(frame: pandas.DataFrame, horizon: float) -> NDArray[numpy.float64]:
    """(n,) each run's time up to the horizon; of a run censored before it, its jackknife pseudo-value.

    The mean over the runs is their restricted mean survival time (Andersen, Hansen & Klein, Lifetime Data Analysis
    10, 2004). Without censoring before the horizon these are the times themselves.
    """
    durations, events = frame["durations"].to_numpy(float), frame["event_observed"].to_numpy(bool)
    times: NDArray[numpy.float64] = numpy.minimum(durations, horizon)
    if (events | (durations >= horizon)).all():
        return times
    whole, without = _restricted_means(durations, events, horizon)
    pseudo: NDArray[numpy.float64] = len(durations) * whole - (len(durations) - 1) * without
    return pseudo


def _restricted_means(
    durations: NDArray[numpy.float64], events: NDArray[numpy.bool_], horizon: float
) -> tuple[float, NDArray[numpy.float64]]:
    """The restricted mean of all runs, and (n,) those of all but one each, in one pass over the event times."""
    died = events & (durations < horizon)
    times = numpy.unique(durations[died])
    at_risk, deaths = at_risk_and_deaths(durations, died, times)
    width = numpy.diff(numpy.concatenate([[0.0], times, [horizon]]))
    after = width.copy()  # the area that is left at each event time, for a curve that is 1 there
    for k in range(len(times) - 1, -1, -1):
        after[k] += (1 - deaths[k] / at_risk[k]) * after[k + 1]
    # What one run fewer changes: the curve falls faster while the run would have been at risk, and then as before.
    others = numpy.maximum(at_risk - 1, 1)
    curve = numpy.concatenate([[1.0], numpy.cumprod(1 - deaths / others)])
    area = numpy.concatenate([[0.0], numpy.cumsum(curve * width)])
    passed = numpy.searchsorted(times, durations, side="right")
    without = area[passed] + curve[passed] * after[passed]
    own = passed[died] - 1
    without[died] = area[own + 1] + curve[own] * (1 - (deaths[own] - 1) / others[own]) * after[own + 1]
    return float(after[0]), without


def paired_difference(
    frame: pandas.DataFrame,
    factor: str,
    levels: Sequence[object],
    within: Sequence[str],
    show: Callable[[object], str] = str,
) -> Test:
    """Restricted mean survival at the second level less that at the first, seed by seed.

    Runs are paired that share the seed and every other factor; the differences of a seed are averaged, and the test
    is Student's t over seeds.

    Args:
        levels: two.
        within: columns that the runs of a pair share, beside the seed.

    Raises:
        CannotFit: fewer than three seeds have runs at both levels.
    """
    first, second = levels
    differences, horizon, used = _differences(frame, factor, first, second, within)
    subject = f"{show(second)} − {show(first)}"
    return _over_seeds(
        differences, subject, f"restricted mean to step {horizon:g}, {subject}, paired by seed (steps)", used
    )


def paired_slope(frame: pandas.DataFrame, factor: str, levels: Sequence[float], unit: float) -> Test:
    """Change of restricted mean survival per ``unit`` of a numeric factor: a line for each seed, Student's t over them.

    Raises:
        CannotFit: fewer than three seeds have runs at two levels or more.
    """
    groups = [group for level in levels if len(group := frame[frame[factor] == level])]
    horizon = common_horizon(groups)
    table = frame.assign(restricted=numpy.nan)
    for group in groups:
        table.loc[group.index, "restricted"] = restricted_times(group, horizon)
    means = table.dropna(subset=["restricted", factor]).groupby(["seed", factor])["restricted"].mean().unstack()
    y = means[means.count(axis=1) > 1].to_numpy()
    x = numpy.where(numpy.isnan(y), numpy.nan, means.columns.to_numpy(float) / unit)
    gap = x - numpy.nanmean(x, axis=1, keepdims=True)
    slopes = (numpy.nansum(gap * y, axis=1) / numpy.nansum(gap**2, axis=1)).tolist()
    effect = f"restricted mean to step {horizon:g}, per +{unit:g}, a line for each seed (steps)"
    return _over_seeds(slopes, f"per +{unit:g}", effect, frame)


def _differences(
    frame: pandas.DataFrame, factor: str, first: object, second: object, within: Sequence[str]
) -> tuple[list[float], float, pandas.DataFrame]:
    groups = [frame[frame[factor] == level] for level in (first, second)]
    if any(group.empty for group in groups):
        raise CannotFit(f"There are no runs at {first if groups[0].empty else second}, so nothing can be paired.")
    horizon = common_horizon(groups)
    keys = ["seed", *within]
    sides = [
        group.assign(restricted=restricted_times(group, horizon)).groupby(keys, dropna=False)["restricted"].mean()
        for group in groups
    ]
    both = sides[1].sub(sides[0]).dropna()
    if both.empty:
        raise CannotFit("No two runs share a seed and every other factor, so nothing can be paired.")
    by_seed = both.groupby(level=0).mean()
    import pandas

    used = pandas.concat(groups)
    return by_seed.tolist(), horizon, used


def _over_seeds(values: Sequence[float], subject: str, effect: str, used: pandas.DataFrame) -> Test:
    from scipy import stats

    n = len(values)
    if n < FEWEST_SEEDS:
        raise CannotFit(
            f"A contrast paired by seed needs {FEWEST_SEEDS} seeds with runs on both sides, and there are {n}."
        )
    mean, se = float(numpy.mean(values)), float(numpy.std(values, ddof=1)) / math.sqrt(n)
    law = stats.t(n - 1)
    reach = float(law.ppf(0.975)) * se
    if abs(mean) + se < 1e-9:
        raise CannotFit("Within every seed, runs lasted as long at one level as at another: there is nothing to test.")
    statistic = mean / se if se else math.copysign(math.inf, mean)
    p = 2 * float(law.sf(abs(statistic)))
    return Test(
        subject=subject, method=f"paired by seed, t over {n} seeds", n=len(used),
        events=int(used["event_observed"].sum()), statistic=statistic, df=n - 1, p=p, p_adjusted=p, effect=effect,
        size=Estimate(mean, mean - reach, mean + reach),
    )  # fmt: skip
