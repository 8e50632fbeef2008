"""Contrasts within seeds: runs of one seed meet the same suppliers and customers, so they are compared pair by pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy
from numpy.typing import NDArray

from vendomini.analysis.statistics.estimate import CannotFit, Estimate, Test
from vendomini.analysis.statistics.survival import common_horizon

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
    whole, n = _restricted_mean(durations, events, horizon), len(durations)
    kept = ~numpy.eye(n, dtype=bool)
    without = numpy.array([_restricted_mean(durations[rows], events[rows], horizon) for rows in kept])
    pseudo: NDArray[numpy.float64] = n * whole - (n - 1) * without
    return pseudo


def _restricted_mean(durations: NDArray[numpy.float64], events: NDArray[numpy.bool_], horizon: float) -> float:
    times = numpy.unique(durations[events & (durations < horizon)])
    at_risk = (durations[:, None] >= times).sum(axis=0)
    deaths = ((durations[:, None] == times) & events[:, None]).sum(axis=0)
    survival = numpy.concatenate([[1.0], numpy.cumprod(1 - deaths / at_risk)])
    return float((survival * numpy.diff(numpy.concatenate([[0.0], times, [horizon]]))).sum())


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
    slopes = []
    for _, rows in table.dropna(subset=["restricted", factor]).groupby("seed"):
        means = rows.groupby(factor)["restricted"].mean()
        if len(means) > 1:
            slopes.append(float(numpy.polyfit(means.index.to_numpy(float) / unit, means.to_numpy(), 1)[0]))
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
