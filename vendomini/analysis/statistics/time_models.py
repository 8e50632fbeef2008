"""Parametric models of time: whether the hazard rises or falls, and discrete time where it has few values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from vendomini.analysis.statistics.cox import Covariate, Hazard, design, hazards
from vendomini.analysis.statistics.estimate import CannotFit, Estimate
from vendomini.analysis.statistics.survival import Z

if TYPE_CHECKING:
    import pandas

FEW_TIMES = 30
"""Distinct event times below which time is taken as discrete, too."""
EVENTS = 5


@dataclass(frozen=True, slots=True)
class Shape:
    """A Weibull fit: ``shape`` below 1 means that the hazard falls with time at risk, above 1 that it rises.

    Attributes:
        shape, scale: with 95 % intervals; the scale in steps.
        p: of the two-sided test that the hazard is constant.
    """

    shape: Estimate
    scale: Estimate
    p: float
    n: int
    events: int


def weibull(frame: pandas.DataFrame) -> Shape:
    """Fit a Weibull distribution with lifelines, parametrised as in R's ``survreg``.

    Raises:
        CannotFit: fewer than five events, or they are all at one step.
    """
    from lifelines import WeibullFitter
    from scipy import stats

    events = int(frame["event_observed"].sum())
    if events < EVENTS:
        raise CannotFit(f"A Weibull fit needs at least {EVENTS} events, and there are {events}.")
    if frame.loc[frame["event_observed"].astype(bool), "durations"].nunique() < 2:
        raise CannotFit("All events are at one step, so the hazard has no shape.")
    fitted = WeibullFitter().fit(frame["durations"], frame["event_observed"])
    table = fitted.summary
    pairs = [(float(table.loc[name, "coef"]), float(table.loc[name, "se(coef)"])) for name in ("rho_", "lambda_")]
    shape, scale = (_on_logs(value, error) for value, error in pairs)
    error = float(table.loc["rho_", "se(coef)"]) / shape.value
    return Shape(shape, scale, 2 * float(stats.norm.sf(abs(math.log(shape.value)) / error)), len(frame), events)


def _on_logs(value: float, error: float) -> Estimate:
    """A positive estimate with its interval on the logarithmic scale."""
    reach = math.exp(Z * error / value)
    return Estimate(value, value / reach, value * reach)


def discrete_hazards(frame: pandas.DataFrame, covariates: Sequence[Covariate], cluster: str = "seed") -> list[Hazard]:
    """Complementary log-log regression of the event at each distinct time: exp(coefficient) is a hazard ratio.

    The discrete-time form of the Cox model, exact where time has few values (Prentice & Gloeckler, Biometrics 34,
    1978). By statsmodels, with errors clustered by seed and Student's t on (seeds − 1) degrees of freedom.

    Raises:
        CannotFit: time has many values, or there is no finite solution.
    """
    import pandas

    columns = design(frame, covariates)
    events = frame["event_observed"].astype(bool)
    times = numpy.unique(frame.loc[events, "durations"])
    if len(times) > FEW_TIMES or columns.empty or events.sum() < EVENTS * columns.shape[1]:
        raise CannotFit(
            f"It is meant for at most {FEW_TIMES} distinct event times, and for {EVENTS} events a coefficient."
        )
    import statsmodels.api as sm  # half a second

    stay = frame["durations"].to_numpy()[:, None] >= times
    row, when = numpy.nonzero(stay)
    happened = (frame["durations"].to_numpy()[row] == times[when]) & events.to_numpy()[row]
    baseline = pandas.get_dummies(pandas.Series(when), prefix="t").astype(float)
    x = pandas.concat([baseline, columns.iloc[row].reset_index(drop=True)], axis=1)
    codes = numpy.unique(frame[cluster], return_inverse=True)[1][row]
    family = sm.families.Binomial(link=sm.families.links.CLogLog())
    many = len(numpy.unique(codes)) > 1
    options = {"cov_type": "cluster", "cov_kwds": {"groups": codes, "use_correction": False}} if many else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of separation, which is asked for below
        fitted = sm.GLM(happened.astype(float), x, family=family).fit(**options)
    if not fitted.converged or (abs(fitted.params[columns.columns]) > 20).any():
        raise CannotFit(
            "The discrete-time model has no finite solution: a factor separates runs with an event from others."
        )
    coefs, errors = (values[columns.columns].tolist() for values in (fitted.params, fitted.bse))
    return hazards([*columns.columns], coefs, errors, len(numpy.unique(codes)) if many else 0)


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often all of k replications of a cell reach a step (pass^k), over cells.

    Attributes:
        steps: at which it is evaluated.
        shares: k → share at each step.
        cells: with at least the largest k of runs.
    """

    steps: list[float]
    shares: dict[int, list[float]]
    cells: int


def reliability(frame: pandas.DataFrame, cell: Sequence[str], points: int = 60) -> Reliability:
    """pass^k, unbiased over the ways of choosing k of a cell's n runs: C(c, k) / C(n, k) with c that reach the step.

    As in Yao et al., τ-bench (2024). Runs censored before a step are left out of their cell from there on.

    Raises:
        CannotFit: no cell has two runs.
    """
    groups = [group for _, group in frame.groupby([*cell], dropna=False)] if len(cell) else [frame]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        raise CannotFit("No cell has two runs or more, so nothing is repeated.")
    largest = min(len(group) for group in groups)
    counts = sorted({1, 2, largest})
    horizon = min(float(group["durations"].max()) for group in groups)
    steps = numpy.linspace(0, horizon, points)
    shares = {k: [_pass(groups, step, k) for step in steps] for k in counts}
    return Reliability(steps.tolist(), shares, len(groups))


def _pass(groups: Sequence[pandas.DataFrame], step: float, k: int) -> float:
    found = []
    for group in groups:
        durations, events = group["durations"].to_numpy(float), group["event_observed"].to_numpy(bool)
        known = events | (durations >= step)
        reached = known & ((durations > step) | ((durations == step) & ~events))
        if known.sum() >= k:
            found.append(math.comb(int(reached.sum()), k) / math.comb(int(known.sum()), k))
    return float(numpy.mean(found)) if found else math.nan
