"""Kaplan–Meier curves, restricted means and log-rank tests, by lifelines.

Frames have one row a run with ``durations`` (steps) and ``event_observed``, and a column for each factor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vendomini.analysis.statistics.estimate import CannotFit, Estimate, Test, holm

if TYPE_CHECKING:
    import pandas

Z = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A Kaplan–Meier estimate.

    Attributes:
        label: the group.
        n, events: runs and observed events.
        times, survival, lower, upper: the step function and its pointwise 95 % band (log-log Greenwood).
        censored: times at which runs were censored.
        median: steps that half of the runs survive.
        rmst: restricted mean survival time up to ``horizon``, in steps.
        horizon: steps.
    """

    label: str
    n: int
    events: int
    times: list[float]
    survival: list[float]
    lower: list[float]
    upper: list[float]
    censored: list[float]
    median: Estimate
    rmst: Estimate
    horizon: float


def kaplan_meier(frame: pandas.DataFrame, label: str = "all", horizon: float | None = None) -> Curve:
    """The curve of all rows.

    Args:
        horizon: of the restricted mean, in steps; by default the last observed time.

    Raises:
        CannotFit: there are no rows.
    """
    if frame.empty:
        raise CannotFit("There is no run to draw a curve of.")
    from lifelines import KaplanMeierFitter
    from lifelines.utils import median_survival_times

    horizon = float(frame["durations"].max()) if horizon is None else horizon
    fitter = KaplanMeierFitter().fit(frame["durations"], frame["event_observed"])
    band = fitter.confidence_interval_
    medians = median_survival_times(band)
    low, high = (float(medians.iloc[0, column]) for column in (0, 1))
    return Curve(
        label=label,
        n=len(frame),
        events=int(frame["event_observed"].sum()),
        times=[float(t) for t in fitter.timeline],
        survival=[float(s) for s in fitter.survival_function_.iloc[:, 0]],
        lower=[float(s) for s in band.iloc[:, 0]],
        upper=[float(s) for s in band.iloc[:, 1]],
        censored=sorted(float(t) for t in frame.loc[~frame["event_observed"].astype(bool), "durations"]),
        median=Estimate(float(fitter.median_survival_time_), low, high),
        rmst=_restricted_mean(fitter, horizon),
        horizon=horizon,
    )


def _restricted_mean(fitter: Any, horizon: float) -> Estimate:
    """RMST by lifelines, its variance after Greenwood (Klein & Moeschberger, Survival Analysis, eq. 4.5.2)."""
    import numpy
    from lifelines.utils import restricted_mean_survival_time

    mean = float(restricted_mean_survival_time(fitter, t=horizon))
    times = fitter.timeline
    survival = fitter.survival_function_.iloc[:, 0].to_numpy()
    table = fitter.event_table.loc[times]
    deaths, at_risk = table["observed"].to_numpy(float), table["at_risk"].to_numpy(float)
    widths = numpy.diff(numpy.minimum(numpy.append(times, horizon), horizon))
    remaining = numpy.cumsum((survival * widths)[::-1])[::-1]
    if not (deaths[times <= horizon] > 0).any():
        return Estimate(mean, math.nan, math.nan)  # nothing varied: Greenwood's 0 would look like certainty
    counts = (deaths > 0) & (at_risk > deaths) & (times <= horizon)
    terms = remaining[counts] ** 2 * deaths[counts] / (at_risk[counts] * (at_risk[counts] - deaths[counts]))
    half = Z * math.sqrt(float(terms.sum()))
    return Estimate(mean, mean - half, mean + half)


def curves(
    frame: pandas.DataFrame, factor: str, levels: Sequence[Any], show: Callable[[Any], str] = str
) -> list[Curve]:
    """One curve for each level that has runs, with restricted means up to one common horizon."""
    groups = [(level, frame[frame[factor] == level]) for level in levels]
    groups = [(level, group) for level, group in groups if len(group)]
    horizon = common_horizon([group for _, group in groups])
    return [kaplan_meier(group, show(level), horizon) for level, group in groups]


def common_horizon(groups: Sequence[pandas.DataFrame]) -> float:
    """The longest time up to which every group's curve is known: its last observed time unless it has reached 0."""
    longest = max((float(group["durations"].max()) for group in groups), default=0.0)
    return min([longest, *(end for group in groups if (end := _unknown_after(group)) is not None)])


def _unknown_after(group: pandas.DataFrame) -> float | None:
    """The last observed time, unless the curve is 0 from there on."""
    last = float(group["durations"].max())
    return None if group.loc[group["durations"] == last, "event_observed"].all() else last


def logrank(frame: pandas.DataFrame, factor: str, levels: Sequence[Any], show: Callable[[Any], str] = str) -> Test:
    """Whether survival differs between the levels at all.

    Runs of one seed meet the same customers, which makes groups alike and this test conservative.

    Raises:
        CannotFit: fewer than two levels have runs, or there is no event.
    """
    from lifelines.statistics import multivariate_logrank_test

    groups = curves(frame, factor, levels, show)
    _require_groups(groups, factor)
    used = frame[frame[factor].isin(list(levels))]
    result = multivariate_logrank_test(used["durations"], used[factor].map(show), used["event_observed"])
    first, last = _extremes(groups, numeric=all(isinstance(level, int | float) for level in levels))
    return Test(
        subject=factor,
        method="log-rank",
        n=len(used),
        events=int(used["event_observed"].sum()),
        statistic=float(result.test_statistic),
        df=len(groups) - 1,
        p=float(result.p_value),
        p_adjusted=float(result.p_value),
        effect=f"restricted mean to step {first.horizon:g}, {last.label} − {first.label} (steps)",
        size=last.rmst - first.rmst,
    )


def pairwise_logrank(
    frame: pandas.DataFrame, factor: str, levels: Sequence[Any], show: Callable[[Any], str] = str
) -> list[Test]:
    """Every pair of levels, Holm-corrected over the pairs.

    Raises:
        CannotFit: see :func:`logrank`.
    """
    present = [level for level in levels if (frame[factor] == level).any()]
    _require_groups(curves(frame, factor, present, show), factor)
    tests = []
    for pair in itertools.combinations(present, 2):
        part = frame[frame[factor].isin(list(pair))]
        if part["event_observed"].any():
            subject = f"{show(pair[0])} vs {show(pair[1])}"
            tests.append(replace(_pair(part, factor, pair, show), subject=subject))
    return correct(tests)


def _pair(frame: pandas.DataFrame, factor: str, pair: Sequence[Any], show: Callable[[Any], str]) -> Test:
    """As :func:`logrank`, with the effect always second minus first."""
    test = logrank(frame, factor, pair, show)
    first, last = curves(frame, factor, pair, show)
    effect = f"restricted mean to step {first.horizon:g}, second − first (steps)"
    return replace(test, effect=effect, size=last.rmst - first.rmst)


def correct(tests: Sequence[Test]) -> list[Test]:
    """The tests with Holm's correction over all of them."""
    adjusted = holm([test.p for test in tests])
    return [
        replace(test, p_adjusted=p, method=f"{test.method}, Holm over {len(tests)}")
        for test, p in zip(tests, adjusted, strict=True)
    ]


def _require_groups(groups: Sequence[Curve], factor: str) -> None:
    if len(groups) < 2:
        raise CannotFit(f"Only one level of {factor} has runs, so there is nothing to compare it with.")
    if not any(group.events for group in groups):
        runs = sum(group.n for group in groups)
        raise CannotFit(f"None of the {runs} runs has had an event yet, so levels of {factor} can't differ.")


def _extremes(groups: Sequence[Curve], *, numeric: bool) -> tuple[Curve, Curve]:
    """Lowest and highest level of a numeric factor; of another one, those with the shortest and longest survival."""
    if numeric:
        return groups[0], groups[-1]
    ranked = sorted(groups, key=lambda group: group.rmst.value)
    return ranked[0], ranked[-1]
