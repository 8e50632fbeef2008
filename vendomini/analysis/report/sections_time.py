"""Does the hazard rise or fall, how reliable is a cell over replications, and when do agents melt down?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vendomini.analysis.report.content import Block, Figure, Note, Section, Series, Table, number, slug
from vendomini.analysis.report.sections import attempt, strata, wholes
from vendomini.analysis.report.sections_effects import covariates
from vendomini.analysis.statistics.estimate import CannotFit
from vendomini.analysis.statistics.survival import kaplan_meier
from vendomini.analysis.statistics.time_models import FEW_TIMES, discrete_hazards, reliability, weibull
from vendomini.analysis.tables.study import Study

if TYPE_CHECKING:
    import pandas


def time_section(study: Study) -> Section:
    blocks = attempt(partial(_shapes, study), "Shape of the hazard")
    for name, frame in wholes(study):
        among = f", {name}" if study.apart else ""
        blocks += attempt(partial(_reliability, study, frame, among), f"Reliability over replications{among}")
    blocks += attempt(partial(_onsets, study), "Onset of crashes")
    blocks += attempt(partial(_discrete, study), "Discrete-time model")
    return Section("time", "Hazard over time", blocks)


def _shapes(study: Study) -> list[Block]:
    rows: list[list[object]] = []
    notes: list[Block] = []
    for label, frame in strata(study):
        try:
            found = weibull(frame)
        except CannotFit as exc:
            notes.append(Note(f"{label}: {exc}"))
            continue
        told = "no trend shown" if not found.p < 0.05 else "falls" if found.shape.value < 1 else "rises"
        rows.append([label, found.shape, found.p, told, found.scale, found.n, found.events])
    if not rows:
        return notes
    columns = ("Among", "Shape (95 % CI)", "p", "The hazard", "Scale (95 % CI), steps", "n", "Events")
    note = "Weibull (lifelines); a shape below 1 is a hazard that falls with time at risk, p tests for a constant one."
    return [Table("Shape of the hazard", columns, rows, note), *notes]


def _reliability(study: Study, frame: pandas.DataFrame, among: str) -> list[Block]:
    """pass^k: all k replications of a cell alive."""
    cells = [factor.path for factor in study.factors]
    found = reliability(frame, cells)
    lines = [Series(f"all {k} of {k}" if k > 1 else "one run", found.steps, y) for k, y in found.shares.items()]
    last = "; ".join(f"{line.label}: {number(line.y[-1])}" for line in lines)
    return [
        Figure(
            key=slug(f"reliability{among}"),
            title=f"Reliability over replications (pass^k){among}",
            x_label="step",
            y_label="share of cells",
            series=lines,
            description=f"Chance that k replications of a cell all pass a step, mean over {found.cells} cells. At the "
            f"last step, {last}.",
            y_range=(0.0, 1.02),
        )
    ]


def _onsets(study: Study) -> list[Block]:
    """When crashes begin: among the runs that crash, and per 100 steps at risk."""
    rows = []
    for label, frame in strata(study):
        crashed = frame[frame["ending"] == "crashed"]
        for kind, group in crashed.groupby("crash_type"):
            onsets = kaplan_meier(group.assign(event_observed=True))
            risk = float(frame["durations"].sum())
            rows.append([label, str(kind), len(group), onsets.median, 100 * len(group) / risk if risk else None])
    if not rows:
        raise CannotFit("No run has crashed yet.")
    columns = ("Among", "Type", "Crashes", "Median onset (95 % CI), step", "Crashes per 100 steps at risk")
    note = "Median over the runs that crashed so; the rate is over all runs."
    return [Table("Onset of crashes", columns, rows, note)]


def _discrete(study: Study) -> list[Block]:
    events = study.analysed.loc[study.analysed["event_observed"].astype(bool), "durations"].nunique()
    if not 0 < events <= FEW_TIMES:
        return []
    found = discrete_hazards(study.analysed, covariates(study.factors))
    n, total = len(study.analysed), int(study.analysed["event_observed"].sum())
    rows = [[hazard.name, hazard.ratio, hazard.p, hazard.p_adjusted, n, total] for hazard in found]
    note = (
        f"Events fall on {events} distinct steps only. Complementary log-log regression at each of them (statsmodels), "
        "errors clustered by seed: the Cox model's own ratios where time is discrete."
    )
    columns = ("Covariate", "Hazard ratio (95 % CI)", "p", "p, Holm", "n", "Events")
    return [Table("Hazard ratios in discrete time", columns, rows, note)]
