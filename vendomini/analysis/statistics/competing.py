"""How runs end, where one ending precludes the others; and which crash goes with which prediction error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vendomini.analysis.statistics.estimate import CannotFit, Estimate, Test
from vendomini.analysis.statistics.survival import Z

if TYPE_CHECKING:
    import numpy
    import pandas

PERMUTATIONS = 9999
FEWEST = 10


@dataclass(frozen=True, slots=True)
class Incidence:
    """Aalen–Johansen estimate of one ending.

    Attributes:
        ending: its name.
        n, events: runs, and those that ended so.
        times, incidence: the step function, from time 0 to the last observed time.
        final: incidence at the last event, with a 95 % interval (log-log delta method).
    """

    ending: str
    n: int
    events: int
    times: list[float]
    incidence: list[float]
    final: Estimate


def cumulative_incidence(frame: pandas.DataFrame, ending: str = "ending") -> list[Incidence]:
    """One estimate for each ending among the events of ``frame``, the most frequent first; they share their times.

    Exact for tied times: F(t) = Σ S(t−) d(t) / n(t), with S the Kaplan–Meier estimate over all endings
    (Aalen & Johansen, Scandinavian Journal of Statistics 5, 1978). The variance is the one lifelines has, from
    Collett, Modelling Survival Data in Medical Research (3rd ed.), p. 411.

    Raises:
        CannotFit: no run has had an event.
    """
    import numpy

    events = frame["event_observed"].astype(bool)
    if not events.any():
        raise CannotFit(f"None of the {len(frame)} runs has had an event yet, so there is no ending to compare.")
    durations = frame["durations"].to_numpy(float)
    times = numpy.unique(durations[events])
    at_risk = len(durations) - numpy.searchsorted(numpy.sort(durations), times)
    counts = frame.loc[events, ending].value_counts()
    by_ending = {
        name: numpy.bincount(
            numpy.searchsorted(times, durations[(events & (frame[ending] == name)).to_numpy()]), minlength=len(times)
        )
        for name in counts.index
    }
    total = numpy.sum(list(by_ending.values()), axis=0)
    before = numpy.concatenate([[1.0], numpy.cumprod(1 - total / at_risk)[:-1]])
    return [
        Incidence(
            ending=str(name),
            n=len(frame),
            events=int(counts[name]),
            times=[0.0, *times.tolist(), float(durations.max())],
            incidence=[0.0, *(path := numpy.cumsum(before * deaths / at_risk)).tolist(), float(path[-1])],
            final=_final(before, deaths, total, at_risk),
        )
        for name, deaths in by_ending.items()
    ]


def _final(before: numpy.ndarray, deaths: numpy.ndarray, total: numpy.ndarray, at_risk: numpy.ndarray) -> Estimate:
    import numpy

    path = numpy.cumsum(before * deaths / at_risk)
    value = float(path[-1])
    if not 0 < value < 1:
        return Estimate(value, value, value)
    gap = value - path
    alive = at_risk > total
    variance = float(
        (gap[alive] ** 2 * total[alive] / (at_risk[alive] * (at_risk[alive] - total[alive]))).sum()
        + (before**2 * deaths * (at_risk - deaths) / at_risk**3).sum()
        - 2 * (gap * before * deaths / at_risk**2).sum()
    )
    reach = Z * math.sqrt(max(variance, 0.0)) / (value * abs(math.log(value)))
    transformed = math.log(-math.log(value))
    low, high = (math.exp(-math.exp(transformed + sign * reach)) for sign in (1, -1))
    return Estimate(value, low, high)


@dataclass(frozen=True, slots=True)
class Association:
    """A contingency table and its test.

    Attributes:
        rows, columns: labels.
        counts: runs, row by row.
        residuals: Pearson residuals, in standard deviations from independence.
        test: chi-square with Cramér's V as effect.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    counts: list[list[int]]
    residuals: list[list[float]]
    test: Test


def association(frame: pandas.DataFrame, row: str, column: str) -> Association:
    """Whether two categorical columns of ``frame`` go together.

    Where an expected count is below 5 the p-value comes from permutations (seeded), otherwise from the
    chi-square distribution. Cramér's V has its bias removed (Bergsma, Journal of the Korean Statistical Society
    42, 2013), and a 95 % interval from the non-central chi-square distribution's normal approximation.

    Raises:
        CannotFit: there are fewer than 10 runs, or either column has fewer than two values.
    """
    import numpy
    import pandas
    from scipy import stats

    used = frame[[row, column]].dropna()
    if len(used) < FEWEST:
        raise CannotFit(
            f"A test of {row} against {column} needs at least {FEWEST} runs with a crash, and there are {len(used)}."
        )
    table = pandas.crosstab(used[row], used[column])
    if min(table.shape) < 2:
        few = row if table.shape[0] < 2 else column
        raise CannotFit(f"All {len(used)} runs with a crash share one {few}, so there is nothing to compare.")
    result = stats.chi2_contingency(table, correction=False)
    sparse = bool((result.expected_freq < 5).any())
    p = _permuted(table) if sparse else float(result.pvalue)
    how = f"{PERMUTATIONS} permutations, as an expected count is below 5" if sparse else "chi-square distribution"
    residuals = (table.to_numpy() - result.expected_freq) / numpy.sqrt(result.expected_freq)
    return Association(
        rows=[str(name) for name in table.index],
        columns=[str(name) for name in table.columns],
        counts=table.to_numpy().tolist(),
        residuals=residuals.tolist(),
        test=Test(
            f"{row} × {column}", f"Pearson's chi-square ({how})", len(used), len(used), float(result.statistic),
            float(result.dof), p, p, "Cramér's V, bias-corrected (0 none, 1 complete)",
            _cramers_v(float(result.statistic), int(table.to_numpy().sum()), table.shape),
        ),
    )  # fmt: skip


def _permuted(table: pandas.DataFrame) -> float:
    """The p-value over random tables of the same margins, seeded."""
    import numpy
    from scipy import stats

    method = stats.PermutationMethod(n_resamples=PERMUTATIONS, rng=numpy.random.default_rng(0))
    return float(stats.chi2_contingency(table, correction=False, method=method).pvalue)


def _cramers_v(statistic: float, n: int, shape: tuple[int, int]) -> Estimate:
    rows, columns = shape
    phi = statistic / n
    bias = (rows - 1) * (columns - 1) / max(n - 1, 1)
    width = min(rows - (rows - 1) ** 2 / max(n - 1, 1), columns - (columns - 1) ** 2 / max(n - 1, 1)) - 1
    reach = Z * math.sqrt(2 * ((rows - 1) * (columns - 1) + 2 * statistic)) / n

    def v(squared: float) -> float:
        excess = squared - bias
        return min(math.sqrt(excess / width), 1.0) if width > 0 and excess > 1e-12 else 0.0

    return Estimate(v(phi), v(phi - reach), v(phi + reach))
