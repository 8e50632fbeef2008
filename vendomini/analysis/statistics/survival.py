"""Kaplan–Meier curves (lifelines), their medians and restricted means, and log-rank tests.

Frames have one row a run with ``durations`` (steps) and ``event_observed``, and a column for each factor.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vendomini.analysis.statistics.estimate import CannotFit, Estimate, Test, holm

if TYPE_CHECKING:
    import numpy
    import pandas
    from numpy.typing import NDArray

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
        median: steps that half of the runs survive, with R's conventions: see :func:`crossing`.
        rmst: restricted mean survival time up to ``horizon``, in steps, its interval within 0 and the horizon.
        rmst_se: its standard error; NaN where no event fell within the horizon.
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
    rmst_se: float
    horizon: float


@dataclass(frozen=True, slots=True)
class _Steps:
    """lifelines' estimate, its band, events and runs at risk, from time 0 on: (t,) each."""

    times: NDArray[numpy.float64]
    survival: NDArray[numpy.float64]
    lower: NDArray[numpy.float64]
    upper: NDArray[numpy.float64]
    deaths: NDArray[numpy.float64]
    at_risk: NDArray[numpy.float64]

    def restricted_mean(self, horizon: float) -> tuple[float, float]:
        """The area below the curve, and its error after Greenwood (Klein & Moeschberger, Survival Analysis, eq. 4.5.1
        and 4.5.2).

        The error is NaN where nothing varied: Greenwood's 0 would look like certainty.
        """
        import numpy

        widths = numpy.diff(numpy.minimum(numpy.append(self.times, horizon), horizon))
        remaining = numpy.cumsum((self.survival * widths)[::-1])[::-1]
        left = self.at_risk - self.deaths
        counts = (self.deaths > 0) & (left > 0) & (self.times <= horizon)
        terms = remaining[counts] ** 2 * self.deaths[counts] / (self.at_risk[counts] * left[counts])
        se = math.sqrt(float(terms.sum()))
        return float(remaining[0]), se if se > 0 else math.nan


@functools.lru_cache(maxsize=256)
def _product_limit(durations: bytes, observed: bytes) -> _Steps:
    """Of a column's floats and a column's booleans. Kept, since a level is asked for once for each pair that it is in
    and for each section."""
    import numpy
    from lifelines import KaplanMeierFitter

    fitter = KaplanMeierFitter().fit(numpy.frombuffer(durations), numpy.frombuffer(observed, bool))
    band, table = fitter.confidence_interval_, fitter.event_table.loc[fitter.timeline]
    columns = [
        fitter.survival_function_.iloc[:, 0],
        band.iloc[:, 0],
        band.iloc[:, 1],
        table["observed"],
        table["at_risk"],
    ]
    return _Steps(fitter.timeline, *(column.to_numpy(float) for column in columns))


def kaplan_meier(frame: pandas.DataFrame, label: str = "all", horizon: float | None = None) -> Curve:
    """The curve of all rows.

    Args:
        horizon: of the restricted mean, in steps; by default the last observed time.

    Raises:
        CannotFit: there are no rows.
    """
    if frame.empty:
        raise CannotFit("There is no run to draw a curve of.")
    horizon = float(frame["durations"].max()) if horizon is None else horizon
    steps = _product_limit(
        frame["durations"].to_numpy(float).tobytes(), frame["event_observed"].to_numpy(bool).tobytes()
    )
    times, survival = steps.times.tolist(), steps.survival.tolist()
    # at 0 the log-log band is undefined, which lifelines shows as 0
    lower, upper = (
        [b if s > 0 else math.nan for b, s in zip(band.tolist(), survival, strict=True)]
        for band in (steps.lower, steps.upper)
    )
    mean, se = steps.restricted_mean(horizon)
    return Curve(
        label=label,
        n=len(frame),
        events=int(frame["event_observed"].sum()),
        times=times,
        survival=survival,
        lower=lower,
        upper=upper,
        censored=sorted(float(t) for t in frame.loc[~frame["event_observed"].astype(bool), "durations"]),
        median=_median(times, survival, lower, upper),
        rmst=Estimate(mean, max(mean - Z * se, 0.0), min(mean + Z * se, horizon)) if se == se else _unknown(mean),
        rmst_se=se,
        horizon=horizon,
    )


def _median(times: list[float], survival: list[float], lower: list[float], upper: list[float]) -> Estimate:
    """The median; without an interval if the band is unknown there, as with all events at one step."""
    middle, low, high = (crossing(times, curve) for curve in (survival, lower, upper))
    return _unknown(middle) if low > middle else Estimate(middle, low, high)


def _unknown(value: float) -> Estimate:
    return Estimate(value, math.nan, math.nan)


def crossing(times: Sequence[float], curve: Sequence[float], level: float = 0.5) -> float:
    """When a step curve falls to ``level``; infinite where it never does.

    A curve that stays exactly at the level for a while crosses it in the middle of that stretch, and a band that is
    not known (NaN) has not crossed it: both as R's ``quantile.survfit``.
    """
    known = [(t, s) for t, s in zip(times, curve, strict=True) if not math.isnan(s)]
    reached = next((t for t, s in known if s <= level + TOLERANCE), None)
    if reached is None:
        return math.inf
    below = next((t for t, s in known if s < level - TOLERANCE), None)
    if below is None:
        return (reached + times[-1]) / 2
    return (reached + below) / 2


TOLERANCE = 1e-8


def difference(first: Curve, last: Curve) -> Estimate:
    """Restricted mean of the last curve less that of the first, taken as independent; within ± their horizon."""
    value, reach = last.rmst.value - first.rmst.value, Z * math.hypot(first.rmst_se, last.rmst_se)
    if math.isnan(reach):
        return _unknown(value)
    return Estimate(value, max(value - reach, -first.horizon), min(value + reach, first.horizon))


def curves(
    frame: pandas.DataFrame, factor: str, levels: Sequence[object], show: Callable[[object], str] = str
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


def logrank(
    frame: pandas.DataFrame,
    factor: str,
    levels: Sequence[object],
    show: Callable[[object], str] = str,
    strata: str | None = None,
) -> Test:
    """Whether survival differs between the levels at all.

    Args:
        strata: column within whose values runs are compared, such as the seed. Without it, runs of one seed, which
            meet the same customers, make groups alike and the test conservative.

    Raises:
        CannotFit: fewer than two levels have runs, there is no event, or all runs end at one step.
    """
    from scipy import stats

    groups = curves(frame, factor, levels, show)
    _require_groups(groups, factor)
    used = frame[frame[factor].isin(list(levels))]
    statistic, df = logrank_statistic(used, factor, strata)
    first, last = _extremes(groups, numeric=all(isinstance(level, int | float) for level in levels))
    p = float(stats.chi2.sf(statistic, df))
    return Test(
        subject=factor,
        method=f"log-rank, stratified by {strata}" if strata else "log-rank",
        n=len(used),
        events=int(used["event_observed"].sum()),
        statistic=statistic,
        df=df,
        p=p,
        p_adjusted=p,
        effect=f"restricted mean to step {first.horizon:g}, {last.label} − {first.label} (steps)",
        size=difference(first, last),
    )


def logrank_statistic(frame: pandas.DataFrame, factor: str, strata: str | None = None) -> tuple[float, int]:
    """(chi-square, degrees of freedom) over the groups of ``factor``, as R's ``survdiff``, strata included.

    Raises:
        CannotFit: the groups are never at risk together at an event that not all runs at risk have.
    """
    import numpy
    import pandas

    codes = pandas.factorize(frame[factor])[0]
    member = (codes[:, None] == numpy.arange(codes.max() + 1)).astype(float)
    durations, died = frame["durations"].to_numpy(float), frame["event_observed"].to_numpy(bool)
    within = pandas.factorize(frame[strata])[0] if strata else numpy.zeros(len(frame), int)
    gap, variance = numpy.zeros(member.shape[1]), numpy.zeros((member.shape[1],) * 2)
    for here in numpy.split(numpy.argsort(within, kind="stable"), numpy.cumsum(numpy.bincount(within))[:-1]):
        times = numpy.unique(durations[here][died[here]])
        at_risk, deaths = at_risk_and_deaths(durations[here], died[here], times, member[here])
        n, d = at_risk.sum(axis=0), deaths.sum(axis=0)
        share = at_risk / n
        gap += (deaths - share * d).sum(axis=1)
        weight = d * (n - d) / numpy.maximum(n - 1, 1)
        variance += numpy.diag((share * weight).sum(axis=1)) - (share * weight) @ share.T
    df = int(numpy.linalg.matrix_rank(variance, tol=1e-9 * max(float(numpy.trace(variance)), 1e-9)))
    if not df:
        raise CannotFit(f"No event tells the levels of {factor} apart: all runs at risk had it at one step.")
    return float(gap @ numpy.linalg.pinv(variance, rcond=1e-9, hermitian=True) @ gap), df


def at_risk_and_deaths(
    durations: NDArray[numpy.float64],
    died: NDArray[numpy.bool_],
    times: NDArray[numpy.float64],
    member: NDArray[numpy.float64] | None = None,
) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
    """How many runs are at risk just before each of the times, and how many have their event there.

    Args:
        times: (t,) at which runs have their event, in order.
        member: (n, g) 1 where a run is in a group; None for one group of all.

    Returns:
        (t,) each, or (g, t) with groups.
    """
    import numpy

    groups = numpy.ones((len(durations), 1)) if member is None else member
    order = numpy.argsort(durations)
    gone = numpy.concatenate([numpy.zeros((1, groups.shape[1])), numpy.cumsum(groups[order], axis=0)])
    at_risk = gone[-1] - gone[numpy.searchsorted(durations[order], times)]
    deaths = numpy.zeros_like(at_risk)
    numpy.add.at(deaths, numpy.searchsorted(times, durations[died]), groups[died])
    return (at_risk[:, 0], deaths[:, 0]) if member is None else (at_risk.T, deaths.T)


def pairwise_logrank(
    frame: pandas.DataFrame, factor: str, levels: Sequence[object], show: Callable[[object], str] = str
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
        try:
            tests.append(replace(_pair(part, factor, pair, show), subject=f"{show(pair[0])} vs {show(pair[1])}"))
        except CannotFit:
            continue  # these two can't be compared; the others can
    return correct(tests)


def _pair(frame: pandas.DataFrame, factor: str, pair: Sequence[object], show: Callable[[object], str]) -> Test:
    """Like :func:`logrank`, with the effect always second minus first."""
    test = logrank(frame, factor, pair, show)
    first, last = curves(frame, factor, pair, show)
    effect = f"restricted mean to step {first.horizon:g}, second − first (steps)"
    return replace(test, effect=effect, size=difference(first, last))


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
