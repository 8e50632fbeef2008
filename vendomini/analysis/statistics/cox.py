"""Cox regression with robust errors clustered by seed, and its proportional-hazards check."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from vendomini.analysis.statistics import partial_likelihood
from vendomini.analysis.statistics.estimate import CannotFit, Estimate, Test, holm
from vendomini.analysis.statistics.partial_likelihood import CoxData, cox_data
from vendomini.analysis.statistics.survival import Z, correct

if TYPE_CHECKING:
    import pandas

EVENTS_PER_COVARIATE = 5
"""Below this the large-sample theory of the Cox model says nothing (Vittinghoff & McCulloch, 2007)."""


@dataclass(frozen=True, slots=True)
class Hazard:
    """One coefficient.

    Attributes:
        name: the covariate, with what its ratio is per or against.
        ratio: hazard ratio with its 95 % interval.
        coef, se: logarithm of the ratio and its robust standard error, as R's coxph(cluster=) gives them.
        p: of the two-sided test that the ratio is 1; ``p_adjusted`` after Holm over the model's coefficients.
    """

    name: str
    ratio: Estimate
    coef: float
    se: float
    p: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class CoxModel:
    """A fitted model: its coefficients, and what they rest on."""

    hazards: list[Hazard]
    n: int
    events: int
    concordance: float
    method: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Covariate:
    """A factor in the model: a numeric one per step between its levels, another against the first of its levels."""

    column: str
    label: str
    levels: Sequence[Any]
    numeric: bool
    show: Callable[[object], str] = str


def cox(frame: pandas.DataFrame, covariates: Sequence[Covariate], cluster: str | None = "seed") -> CoxModel:
    """Fits the main effects of all covariates at once.

    With clusters, intervals and p-values use Student's t with (clusters − 1) degrees of freedom and errors scaled by
    √(clusters / (clusters − 1)), since a sandwich estimate from a handful of seeds is too small (Cameron & Miller,
    Journal of Human Resources 50, 2015). ``se`` stays as R has it.

    Raises:
        CannotFit: too few events, no covariate that varies, or separation.
    """
    notes: list[str] = []
    frame = _with_events(frame, covariates, notes)
    columns = design(frame, covariates)
    events = int(frame["event_observed"].sum())
    _require_events(columns, len(frame), events, notes)
    clusters = frame[cluster].nunique() if cluster else 0
    if cluster and clusters < 2:
        notes.append(
            f"All runs share one {cluster}: errors are by run, and say nothing about other values of {cluster}."
        )
        cluster, clusters = None, 0
    data = _data(frame, columns)
    fitted = partial_likelihood.fit(data)
    codes = numpy.unique(frame[cluster], return_inverse=True)[1] if cluster else numpy.arange(len(frame))
    errors = numpy.sqrt(numpy.diag(fitted.robust(codes)))
    return CoxModel(
        hazards=hazards([*columns.columns], fitted.coef.tolist(), errors.tolist(), clusters),
        n=len(frame),
        events=events,
        concordance=float(partial_likelihood.concordance(data, fitted.coef)),
        method=_method(cluster, clusters),
        notes=notes,
    )


def _data(frame: pandas.DataFrame, columns: pandas.DataFrame) -> CoxData:
    return cox_data(columns.to_numpy(float), frame["durations"].to_numpy(float), frame["event_observed"].to_numpy(bool))


def _method(cluster: str | None, clusters: int) -> str:
    if not cluster:
        return "Cox regression (Efron's ties), robust errors by run"
    return (
        f"Cox regression (Efron's ties), robust errors clustered by {clusters} {cluster}s, "
        f"t with {clusters - 1} degree{'s' if clusters != 2 else ''} of freedom"
    )


def _with_events(frame: pandas.DataFrame, covariates: Sequence[Covariate], notes: list[str]) -> pandas.DataFrame:
    """Leaves out levels without any event: their hazard ratio is 0 and would have no interval."""
    for covariate in covariates:
        if covariate.numeric:
            continue
        events = frame.groupby(covariate.column)["event_observed"].sum()
        for level in events[events == 0].index:
            rows = frame[covariate.column] == level
            notes.append(
                f"None of the {int(rows.sum())} runs with {covariate.label} = {covariate.show(level)} had an event: "
                "their hazard ratio is 0 without an interval, and the model leaves them out."
            )
            frame = frame[~rows]
    return frame


def design(frame: pandas.DataFrame, covariates: Sequence[Covariate]) -> pandas.DataFrame:
    """The covariates as columns of numbers, named as their coefficients are shown."""
    import pandas

    columns: dict[str, object] = {}
    for covariate in covariates:
        values, levels = frame[covariate.column], covariate.levels
        if values.nunique() < 2:
            continue
        if covariate.numeric:
            unit = step_of(levels)
            columns[f"{covariate.label}, per +{unit:g}"] = _filled(values.astype(float) / unit, values)
        else:
            levels = [level for level in levels if (values == level).any()]
            for level in levels[1:]:
                name = f"{covariate.label}: {covariate.show(level)} vs {covariate.show(levels[0])}"
                columns[name] = _filled((values == level).astype(float), values)
    return pandas.DataFrame(columns, index=frame.index)


def _filled(column: pandas.Series, values: pandas.Series) -> pandas.Series:
    """Runs that belong to no level (a factor that does nothing at p_shock 0) take the mean of the others."""
    return column.where(values.notna(), column[values.notna()].mean())


def step_of(levels: Sequence[float]) -> float:
    """The distance between levels where they are evenly spaced, else the largest power of ten below their mean
    distance."""
    mean = (max(levels) - min(levels)) / (len(levels) - 1)
    even = all(abs(b - a - mean) < 1e-9 * max(abs(mean), 1) for a, b in itertools.pairwise(sorted(levels)))
    return float(f"{mean:.6g}") if even else 10.0 ** math.floor(math.log10(mean))


def _require_events(columns: pandas.DataFrame, n: int, events: int, notes: Sequence[str]) -> None:
    if columns.columns.empty:
        raise CannotFit(" ".join([*notes, f"No factor varies among the {n} runs that a Cox model could use."]))
    needed = EVENTS_PER_COVARIATE * columns.shape[1]
    if events < needed:
        told = (
            f"A Cox model of {columns.shape[1]} coefficient{'s' if columns.shape[1] > 1 else ''} needs at least "
            f"{needed} events, and the {n} runs have {events}."
        )
        raise CannotFit(" ".join([*notes, told]))


def hazards(names: Sequence[str], coefs: Sequence[float], errors: Sequence[float], clusters: int) -> list[Hazard]:
    """Ratios with intervals from robust errors; with clusters, by Student's t as :func:`cox` says."""
    from scipy import stats

    scale, law = 1.0, stats.norm()
    if clusters:
        scale, law = math.sqrt(clusters / (clusters - 1)), stats.t(clusters - 1)
    reach = float(law.ppf(0.975)) * scale
    p_values = [
        2 * float(law.sf(abs(c) / (se * scale))) if se else math.nan for c, se in zip(coefs, errors, strict=True)
    ]
    return [
        Hazard(name, Estimate(_exp(c), _exp(c - reach * se), _exp(c + reach * se)), c, se, p, adjusted)
        for name, c, se, p, adjusted in zip(names, coefs, errors, p_values, holm(p_values), strict=True)
    ]


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def proportionality(frame: pandas.DataFrame, covariates: Sequence[Covariate]) -> list[Test]:
    """Whether the hazard ratios of :func:`cox` hold at all times: the score test of R's ``cox.zph``.

    Its effect is the change of the log hazard ratio from the first event to the last, on the time scale of
    1 − Kaplan–Meier.

    Raises:
        CannotFit: see :func:`cox`; or all events are at one time.
    """
    from scipy import stats

    notes: list[str] = []
    frame = _with_events(frame, covariates, notes)
    columns = design(frame, covariates)
    events = int(frame["event_observed"].sum())
    _require_events(columns, len(frame), events, notes)
    data = _data(frame, columns)
    rows, _ = partial_likelihood.proportional_hazards(data, partial_likelihood.fit(data))
    reach = float(partial_likelihood.transformed_time(data).max())
    return correct([
        Test(str(name), "score test on scaled Schoenfeld residuals (as R's cox.zph), Kaplan–Meier time", len(frame),
             events, chi, 1, (p := float(stats.chi2.sf(chi, 1))), p,
             "change of the log hazard ratio, first to last event",
             Estimate(change * reach, (change - Z * se) * reach, (change + Z * se) * reach))
        for name, (chi, change, se) in zip(columns.columns, rows, strict=True)
    ])  # fmt: skip
