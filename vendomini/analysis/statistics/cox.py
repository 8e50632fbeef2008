"""Cox regression with robust errors clustered by seed, and its proportional-hazards check."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vendomini.analysis.statistics.estimate import CannotFit, Estimate, Test
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
        coef, se: logarithm of the ratio and its robust standard error, as lifelines gives them.
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
    show: Callable[[Any], str] = str


def cox(frame: pandas.DataFrame, covariates: Sequence[Covariate], cluster: str | None = "seed") -> CoxModel:
    """Fits the main effects of all covariates at once.

    With clusters, intervals and p-values use Student's t with (clusters − 1) degrees of freedom and errors scaled by
    √(clusters / (clusters − 1)), since a sandwich of a handful of seeds is too small (Cameron & Miller, Journal of
    Human Resources 50, 2015). ``se`` stays lifelines' own.

    Raises:
        CannotFit: too few events, no covariate that varies, or separation.
    """
    notes: list[str] = []
    frame = _with_events(frame, covariates, notes)
    design = _design(frame, covariates)
    events = int(frame["event_observed"].sum())
    _require_events(design, len(frame), events, notes)
    clusters = frame[cluster].nunique() if cluster else 0
    if cluster and clusters < 2:
        notes.append(
            f"All runs share one {cluster}: errors are by run, and say nothing about other values of {cluster}."
        )
        cluster, clusters = None, 0
    outcome = frame[["durations", "event_observed"]].astype(float)
    table = design.join(outcome).join(frame[[cluster]]) if cluster else design.join(outcome)
    fitted = _fit(table, cluster, robust=True)
    return CoxModel(
        hazards=_hazards(fitted, clusters),
        n=len(frame),
        events=events,
        concordance=float(fitted.concordance_index_),
        method=_method(cluster, clusters),
        notes=notes,
    )


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


def _design(frame: pandas.DataFrame, covariates: Sequence[Covariate]) -> pandas.DataFrame:
    """Columns named as the coefficients are shown."""
    import pandas

    columns: dict[str, Any] = {}
    for covariate in covariates:
        values, levels = frame[covariate.column], covariate.levels
        if values.nunique() < 2:
            continue
        if covariate.numeric:
            unit = (max(levels) - min(levels)) / (len(levels) - 1)
            columns[f"{covariate.label}, per +{unit:.3g}"] = values.astype(float) / unit
        else:
            levels = [level for level in levels if (values == level).any()]
            for level in levels[1:]:
                name = f"{covariate.label}: {covariate.show(level)} vs {covariate.show(levels[0])}"
                columns[name] = (values == level).astype(float)
    return pandas.DataFrame(columns, index=frame.index)


def _require_events(design: pandas.DataFrame, n: int, events: int, notes: Sequence[str]) -> None:
    if design.columns.empty:
        raise CannotFit(" ".join([*notes, f"No factor varies among the {n} runs that a Cox model could use."]))
    needed = EVENTS_PER_COVARIATE * design.shape[1]
    if events < needed:
        told = (
            f"A Cox model of {design.shape[1]} coefficient{'s' if design.shape[1] > 1 else ''} needs at least {needed} "
            f"events, and the {n} runs have {events}."
        )
        raise CannotFit(" ".join([*notes, told]))


def _fit(table: pandas.DataFrame, cluster: str | None, *, robust: bool) -> Any:
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError, ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return CoxPHFitter().fit(table, "durations", "event_observed", cluster_col=cluster, robust=robust)
        except (ConvergenceError, ConvergenceWarning) as exc:
            raise CannotFit(
                "The Cox model has no finite solution: a factor (or a combination of factors) separates the runs with "
                "an event from those without, or is determined by another factor."
            ) from exc


def _hazards(fitted: Any, clusters: int) -> list[Hazard]:
    from scipy import stats

    from vendomini.analysis.statistics.estimate import holm

    scale, law = 1.0, stats.norm()
    if clusters:
        scale, law = math.sqrt(clusters / (clusters - 1)), stats.t(clusters - 1)
    reach = float(law.ppf(0.975)) * scale
    rows = [(str(name), float(row["coef"]), float(row["se(coef)"])) for name, row in fitted.summary.iterrows()]
    p_values = [2 * float(law.sf(abs(coef) / (se * scale))) if se else math.nan for _, coef, se in rows]
    return [
        Hazard(name, Estimate(math.exp(coef), _exp(coef - reach * se), _exp(coef + reach * se)), coef, se, p, adjusted)
        for (name, coef, se), p, adjusted in zip(rows, p_values, holm(p_values), strict=True)
    ]


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def proportionality(frame: pandas.DataFrame, covariates: Sequence[Covariate]) -> list[Test]:
    """Whether the hazard ratios of :func:`cox` hold at all times: Grambsch & Therneau's test by lifelines.

    Its effect is the correlation of the scaled Schoenfeld residuals with ranked time.

    Raises:
        CannotFit: see :func:`cox`.
    """
    import numpy
    from lifelines.statistics import proportional_hazard_test

    notes: list[str] = []
    frame = _with_events(frame, covariates, notes)
    design = _design(frame, covariates)
    events = int(frame["event_observed"].sum())
    _require_events(design, len(frame), events, notes)
    table = design.join(frame[["durations", "event_observed"]].astype(float))
    fitted = _fit(table, None, robust=False)
    result = proportional_hazard_test(fitted, table, time_transform="rank").summary
    residuals = fitted.compute_residuals(table, "scaled_schoenfeld")
    times = table.loc[residuals.index, "durations"].rank()
    tests = []
    for name, row in result.iterrows():
        rho = float(numpy.corrcoef(residuals[name], times)[0, 1])
        size = _correlation(rho, events)
        statistic, p = float(row["test_statistic"]), float(row["p"])
        tests.append(
            Test(str(name), "scaled Schoenfeld residuals, rank time", len(table), events, statistic, 1, p, p,
                 "correlation of residuals with time", size)
        )  # fmt: skip
    return correct(tests)


def _correlation(rho: float, n: int) -> Estimate:
    """With Fisher's interval."""
    if n <= 3 or abs(rho) >= 1:
        return Estimate(rho, -1.0, 1.0)
    reach = Z / math.sqrt(n - 3)
    return Estimate(rho, math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach))
