"""Cox's partial likelihood: start and stop times, strata, tied times, robust errors by cluster.

Formulas as in Therneau & Grambsch, Modeling Survival Data (2000): the likelihood and Efron's and Breslow's ties in
section 3.3, score residuals and the robust variance in 7.2. The test of proportional hazards is the score test that
R's ``survival`` has used since version 3.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy
from numpy.typing import ArrayLike, NDArray

from vendomini.analysis.statistics.estimate import CannotFit

Floats = NDArray[numpy.float64]
Ints = NDArray[numpy.int64]
Ties = Literal["efron", "breslow"]

ITERATIONS = 40
HALVINGS = 20
LONGEST = 5.0
"""Longest step, in log hazard per standard deviation of a covariate."""
TOLERANCE = 1e-10
"""Relative change of the log-likelihood at which the iteration ends."""

INFINITE = (
    "The Cox model has no finite solution: a factor (or a combination of factors) separates the runs with an event "
    "from those without."
)
DETERMINED = "The Cox model has no unique solution: a factor is determined by the other factors."


@dataclass(frozen=True, slots=True)
class CoxData:
    """What a Cox model is fitted on: n rows, each at risk in (start, stop].

    Attributes:
        x: (n, p) covariates.
        start, stop: (n,) times.
        event: (n,) whether the row ends with the event.
        strata: (n,) small integers; rows are compared within their stratum only.
    """

    x: Floats
    start: Floats
    stop: Floats
    event: NDArray[numpy.bool_]
    strata: Ints


@dataclass(frozen=True, slots=True)
class CoxFit:
    """A fitted model.

    Attributes:
        coef: (p,) log hazard ratios.
        variance: (p, p) inverse of the information.
        loglik: at 0 and at ``coef``.
        dfbeta: (n, p) change of ``coef`` if a row was left out, to first order.
    """

    coef: Floats
    variance: Floats
    loglik: tuple[float, float]
    dfbeta: Floats

    def robust(self, cluster: Ints) -> Floats:
        """(p, p) sandwich variance, rows of one cluster taken together, as R's ``coxph(cluster=)`` has it.

        Args:
            cluster: (n,) integers from 0.
        """
        sums = numpy.zeros((int(cluster.max()) + 1, self.dfbeta.shape[1]))
        numpy.add.at(sums, cluster, self.dfbeta)
        return sums.T @ sums


def cox_data(
    x: ArrayLike, stop: ArrayLike, event: ArrayLike, start: ArrayLike | None = None, strata: ArrayLike | None = None
) -> CoxData:
    """The data as arrays of the right types; without ``start`` every row enters at once."""
    end = numpy.asarray(stop, float)
    codes = numpy.zeros(len(end), int) if strata is None else numpy.unique(strata, return_inverse=True)[1]
    begin = numpy.full(len(end), -numpy.inf) if start is None else numpy.asarray(start, float)
    matrix = numpy.asarray(x, float).reshape(len(end), -1)
    return CoxData(matrix, begin, end, numpy.asarray(event, bool), codes)


def fit(data: CoxData, ties: Ties = "efron") -> CoxFit:
    """Newton's method on centred and scaled covariates, with halved steps where the likelihood falls.

    Raises:
        CannotFit: there is no event, or no finite or no unique solution.
    """
    if not data.event.any():
        raise CannotFit(f"None of the {len(data.stop)} runs has had an event yet, so no hazard can be compared.")
    centre, scale = data.x.mean(axis=0), data.x.std(axis=0)
    if not (scale > 1e-12 * (1 + abs(centre))).all():
        raise CannotFit("A covariate is the same in all runs, so no hazard can depend on it.")
    likelihood = _Likelihood(CoxData((data.x - centre) / scale, data.start, data.stop, data.event, data.strata), ties)
    null, gradient, information = likelihood.at(numpy.zeros(data.x.shape[1]))
    _require_unique(information)
    coef, value, start_value = numpy.zeros(data.x.shape[1]), null, null
    for _ in range(ITERATIONS):
        step: Floats = numpy.asarray(numpy.linalg.lstsq(information, gradient, rcond=1e-13)[0], float)
        step *= min(1.0, LONGEST / max(float(abs(step).max()), 1e-300))
        coef, value, gradient, information, gained = _climb(likelihood, coef, value, step)
        if gained <= TOLERANCE * (abs(value) + 1):
            break
    variance = numpy.linalg.pinv(information, rcond=1e-13, hermitian=True)
    if (abs(variance @ gradient) > 1e-4 * (1 + abs(coef))).any() or (abs(coef) > 1e3).any() or _lost(information):
        raise CannotFit(INFINITE)
    dfbeta = likelihood.score_residuals(coef) @ variance
    return CoxFit(coef / scale, variance / numpy.outer(scale, scale), (start_value, value), dfbeta / scale)


def _require_unique(information: Floats) -> None:
    values = numpy.linalg.eigvalsh(information)
    if not values[0] > 1e-10 * max(values[-1], 1e-300):
        raise CannotFit(DETERMINED if len(values) > 1 and values[-1] > 0 else "No covariate differs among the runs at "
                        "risk at the times of the events, so no hazard ratio can be estimated.")  # fmt: skip


def _lost(information: Floats) -> bool:
    """Whether the information has vanished: the likelihood is flat because a coefficient diverges."""
    return not float(numpy.linalg.eigvalsh(information)[0]) > 1e-9


def _climb(
    likelihood: _Likelihood, coef: Floats, value: float, step: Floats
) -> tuple[Floats, float, Floats, Floats, float]:
    """One step, halved until the likelihood is no lower: (coef, value, gradient, information, gain)."""
    for _ in range(HALVINGS):
        new, gradient, information = likelihood.at(coef + step)
        if numpy.isfinite(information).all() and new >= value - TOLERANCE * (abs(value) + 1):
            return coef + step, new, gradient, information, new - value
        step = step / 2
    _, gradient, information = likelihood.at(coef)
    return coef, value, gradient, information, 0.0


def proportional_hazards(
    data: CoxData, fitted: CoxFit, ties: Ties = "efron"
) -> tuple[list[tuple[float, float, float]], float]:
    """Score test of coefficients that change with 1 − Kaplan–Meier, as R's ``cox.zph`` (survival 3.0 and later).

    Returns:
        For each covariate (chi-square on 1 degree of freedom, change of the log hazard ratio per unit of transformed
        time, its standard error), the change being one Newton step from none; and the global chi-square on p.

    Raises:
        CannotFit: all events are at one time.
    """
    moments = _Likelihood(data, ties).moments(fitted.coef)
    time = transformed_time(data)[moments.slot_time]
    if numpy.ptp(time) == 0:
        raise CannotFit("All events are at one time, so nothing can change over time.")
    time = time - time.mean()
    residual = moments.slot_x - moments.slot_mean
    score = (time[:, None] * residual).sum(axis=0)
    blocks = [(moments.slot_variance * weight[:, None, None]).sum(axis=0) for weight in (time**0, time, time**2)]
    full = numpy.block([[blocks[0], blocks[1]], [blocks[1], blocks[2]]])
    p = data.x.shape[1]
    tests = []
    for index in range(p):
        kept = [*range(p), p + index]
        inverse = float(numpy.linalg.pinv(full[numpy.ix_(kept, kept)], hermitian=True)[p, p])
        tests.append((score[index] ** 2 * inverse, score[index] * inverse, max(inverse, 0.0) ** 0.5))
    padded = numpy.concatenate([numpy.zeros(p), score])
    return tests, float(padded @ numpy.linalg.pinv(full, hermitian=True) @ padded)


def transformed_time(data: CoxData) -> Floats:
    """1 − Kaplan–Meier just before each distinct (stratum, event time), in order; over all strata together."""
    _, times = _event_times(data)
    pooled, counts = numpy.unique(data.stop[data.event], return_counts=True)
    at_risk = numpy.array([((data.start < t) & (data.stop >= t)).sum() for t in pooled])
    before = numpy.concatenate([[1.0], numpy.cumprod(1 - counts / at_risk)[:-1]])
    return 1 - before[numpy.searchsorted(pooled, times)]


def concordance(data: CoxData, coef: Floats) -> float:
    """Share of comparable pairs in which the run with the higher hazard has its event first; NaN without a pair.

    A pair is comparable where one has its event while the other, of the same stratum, stays at risk; runs of equal
    hazard count half (Harrell's C, as R's ``coxph`` prints it).
    """
    risk = data.x @ coef
    pairs = agreed = 0.0
    for stratum, time in zip(*_event_times(data), strict=True):
        here = data.strata == stratum
        dies = here & data.event & (data.stop == time)
        stays = risk[here & ~dies & (data.start < time) & (data.stop >= time)]
        pairs += int(dies.sum()) * len(stays)
        for own in risk[dies]:
            agreed += float((stays < own).sum() + (stays == own).sum() / 2)
    return agreed / pairs if pairs else numpy.nan


def _event_times(data: CoxData) -> tuple[Ints, Floats]:
    """(stratum, time) of each distinct event time, in order."""
    pairs = numpy.unique(numpy.column_stack([data.strata[data.event], data.stop[data.event]]), axis=0)
    return pairs[:, 0].astype(int), pairs[:, 1]


@dataclass(frozen=True, slots=True)
class _Moments:
    """Weighted moments of the covariates in the risk set of each death ("slot").

    With Efron's ties the k-th of d deaths at one time sees the deaths with weight 1 − k/d; with Breslow's, 1.
    """

    slot_time: Ints
    slot_share: Floats
    slot_x: Floats
    slot_total: Floats
    slot_mean: Floats
    slot_variance: Floats


class _Likelihood:
    """The partial likelihood of some data: its order is worked out once, each evaluation costs O(n p²)."""

    def __init__(self, data: CoxData, ties: Ties) -> None:
        self.data = data
        self._strata, self._times = _event_times(data)
        self._deaths = numpy.flatnonzero(data.event)
        keys = {pair: index for index, pair in enumerate(zip(self._strata, self._times, strict=True))}
        slots = numpy.array([keys[data.strata[row], data.stop[row]] for row in self._deaths], int)
        order = numpy.argsort(slots, kind="stable")
        self._deaths, self._slots = self._deaths[order], slots[order]
        counts = numpy.bincount(self._slots, minlength=len(self._times))
        firsts = numpy.concatenate([[0], numpy.cumsum(counts)[:-1]])
        rank = numpy.arange(len(self._slots)) - firsts[self._slots]
        self._share = rank / counts[self._slots] if ties == "efron" else numpy.zeros(len(rank))
        self._leaving = self._place(data.stop)
        self._entering = self._place(data.start)

    def _place(self, edge: Floats) -> tuple[Ints, Ints, Ints]:
        """(rows by stratum and time, for each event time the first row at or after it, the end of its stratum)."""
        order = numpy.lexsort((edge, self.data.strata))
        strata, times = self.data.strata[order], edge[order]
        first = numpy.searchsorted(strata, self._strata, side="left")
        end = numpy.searchsorted(strata, self._strata, side="right")
        at = [a + numpy.searchsorted(times[a:b], t) for a, b, t in zip(first, end, self._times, strict=True)]
        return order, numpy.array(at, int), end

    def _at_risk(self, weighted: Floats) -> Floats:
        """Sum of rows at risk, at each event time: those that have not left, less those that have not entered."""
        total = self._from(weighted, *self._leaving)
        if (self.data.start == -float("inf")).all():
            return total
        return total - self._from(weighted, *self._entering)

    @staticmethod
    def _from(values: Floats, order: Ints, at: Ints, end: Ints) -> Floats:
        sums = numpy.concatenate([numpy.zeros((1, *values.shape[1:])), numpy.cumsum(values[order], axis=0)])
        remaining: Floats = sums[end] - sums[at]
        return remaining

    def moments(self, coef: Floats) -> _Moments:
        x, slots, share = self.data.x, self._slots, self._share
        weight = numpy.exp(x @ coef - float((x @ coef).max()))
        second = x[:, :, None] * x[:, None, :] * weight[:, None, None]
        first = x * weight[:, None]
        sums = [self._at_risk(values)[slots] for values in (weight, first, second)]
        for index, values in enumerate((weight, first, second)):
            dying = numpy.zeros((len(self._times), *values.shape[1:]))
            numpy.add.at(dying, slots, values[self._deaths])
            shape = (-1, *(1 for _ in values.shape[1:]))
            sums[index] = sums[index] - share.reshape(shape) * dying[slots]
        total = numpy.maximum(sums[0], 1e-300)
        mean = sums[1] / total[:, None]
        variance = sums[2] / total[:, None, None] - mean[:, :, None] * mean[:, None, :]
        return _Moments(slots, share, x[self._deaths], total, mean, variance)

    def at(self, coef: Floats) -> tuple[float, Floats, Floats]:
        """(log-likelihood, its gradient, the information)."""
        with numpy.errstate(over="ignore", invalid="ignore"):
            moments = self.moments(coef)
            eta = self.data.x @ coef
            value = float((eta[self._deaths] - eta.max() - numpy.log(moments.slot_total)).sum())
        return value, (moments.slot_x - moments.slot_mean).sum(axis=0), moments.slot_variance.sum(axis=0)

    def score_residuals(self, coef: Floats) -> Floats:
        """(n, p): each row's share of the gradient, its own event less what its time at risk was expected to bring."""
        data, moments = self.data, self.moments(coef)
        eta = data.x @ coef
        weight = numpy.exp(eta - eta.max())
        hazard, drift = 1 / moments.slot_total, moments.slot_mean / moments.slot_total[:, None]
        by_time = numpy.zeros((len(self._times), 1 + data.x.shape[1]))
        numpy.add.at(by_time, self._slots, numpy.column_stack([hazard, drift]))
        met = self._met(by_time)
        residuals: Floats = -weight[:, None] * (data.x * met[:, :1] - met[:, 1:])
        counts = numpy.bincount(self._slots, minlength=len(self._times)).astype(float)
        own = numpy.zeros((len(self._times), 2 + 2 * data.x.shape[1]))
        spared = self._share[:, None]
        numpy.add.at(own, self._slots, numpy.column_stack(
            [numpy.ones(len(spared)), spared * hazard[:, None], moments.slot_mean, spared * drift]))  # fmt: skip
        p, x, mine = data.x.shape[1], data.x[self._deaths], own[self._slots]
        residuals[self._deaths] += x - mine[:, 2 : 2 + p] / counts[self._slots][:, None]
        residuals[self._deaths] += weight[self._deaths][:, None] * (x * mine[:, 1:2] - mine[:, 2 + p :])
        return residuals

    def _met(self, by_time: Floats) -> Floats:
        """Sum over the event times in each row's own time at risk."""
        sums = numpy.concatenate([numpy.zeros((1, by_time.shape[1])), numpy.cumsum(by_time, axis=0)])
        data = self.data
        first = numpy.searchsorted(self._strata, data.strata, side="left")
        end = numpy.searchsorted(self._strata, data.strata, side="right")
        low, high = (numpy.empty(len(data.stop), int) for _ in range(2))
        for stratum in numpy.unique(data.strata):
            rows = data.strata == stratum
            a, b = int(first[rows][0]), int(end[rows][0])
            low[rows] = a + numpy.searchsorted(self._times[a:b], data.start[rows], side="right")
            high[rows] = a + numpy.searchsorted(self._times[a:b], data.stop[rows], side="right")
        met: Floats = sums[numpy.maximum(low, high)] - sums[low]
        return met
