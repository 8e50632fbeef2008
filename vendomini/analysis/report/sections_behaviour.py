"""What the report says about how runs end, and about models of different sizes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vendomini.analysis.report.content import (
    Block,
    Figure,
    Heatmap,
    Note,
    Section,
    Series,
    Table,
    interval,
    number,
    p_value,
    slug,
)
from vendomini.analysis.report.sections import attempt, wholes
from vendomini.analysis.report.sections_effects import evidence
from vendomini.analysis.statistics.competing import association, cumulative_incidence
from vendomini.analysis.statistics.estimate import CannotFit
from vendomini.analysis.statistics.scaling import Point, ScalingLaw, parameters_of, scaling_law
from vendomini.analysis.statistics.survival import curves
from vendomini.analysis.tables.study import MODEL, Study, show

if TYPE_CHECKING:
    import pandas


def endings_section(study: Study) -> Section:
    blocks: list[Block] = []
    groups = [(f", {name}" if study.apart else "", frame) for name, frame in wholes(study)]
    for among, frame in groups:
        blocks += attempt(partial(_incidence, frame, among), f"How runs end{among}")
    blocks += _severities(study)
    for among, frame in groups:
        blocks += attempt(partial(_crash_by_pe, study, frame, among), f"Crash type and prediction error{among}")
    return Section("endings", "How runs end", blocks)


def _incidence(frame: pandas.DataFrame, among: str) -> list[Block]:
    estimates = cumulative_incidence(frame, "outcome")
    ends = "; ".join(f"{one.ending}: {interval(one.final)}" for one in estimates)
    figure = Figure(
        key=slug(f"endings{among}"),
        title=f"How runs end{among}",
        x_label="step",
        y_label="cumulative incidence",
        series=[Series(one.ending, one.times, one.incidence, shape="stack") for one in estimates],
        description=f"Cumulative incidence of each ending, stacked. At the last event, {ends}.",
        y_range=(0.0, 1.0),
    )
    rows = [[one.ending, one.events, one.n, one.final] for one in estimates]
    note = "Aalen–Johansen, each ending competing with the others; 95 % intervals by the log-log delta method."
    return [
        figure,
        Table(f"Endings{among}", ("Ending", "Events", "n", "Incidence at the last event (95 % CI)"), rows, note),
    ]


def _severities(study: Study) -> list[Block]:
    """Shares are of the crashed runs of an experiment."""
    rows: list[list[object]] = []
    for name, frame in wholes(study):
        crashed = frame[frame["ending"] == "crashed"] if len(frame) else frame
        if crashed.empty or "severity" not in crashed:
            continue
        counts = crashed.groupby(["crash_type", "severity"]).size()
        among = [name] if study.apart else []
        rows += [[*among, kind, severity, int(n), int(n) / len(crashed)] for (kind, severity), n in counts.items()]
    if not rows:
        return []
    note = (
        "Soft: let go within 20 steps and stayed off. Hard: did not. Mission abandon: hard, and nothing that the agent "
        "is there for was done since, although somebody waited for it."
    )
    columns = ("Type", "Severity", "Runs", "Share of crashes")
    among_column = (study.apart.label,) if study.apart else ()
    return [Table("Crashes by type and severity", (*among_column, *columns), rows, note)]


def _crash_by_pe(study: Study, frame: pandas.DataFrame, among: str) -> list[Block]:
    """Crash type against the type of shocks where the experiment varies it, else against the error type that shocks had
    caused most.

    An agent's own errors are left out: a derailing agent's failed calls are errors, and would always agree with its
    crash.
    """
    crashed = frame[frame["ending"] == "crashed"].rename(columns={"crash_type": "crash type"})
    if crashed.empty:
        raise CannotFit("No run has crashed yet, so there is no crash type to compare.")
    mix = study.mix if study.mix and frame[study.mix.path].nunique() > 1 else None
    column = "PE type" if mix else "error that shocks had caused most"
    source = mix.path if mix else "caused.largest"
    if source not in crashed:
        raise CannotFit("No shock has caused an error in a crashed run.")
    found = association(crashed.assign(**{column: crashed[source]}), "crash type", column)
    figure = Heatmap(
        key=slug(f"crash-by-pe-type{among}"),
        title=f"Crash type by {column}{among}",
        x_label=column,
        y_label="crash type",
        columns=found.columns,
        rows=found.rows,
        values=found.residuals,
        texts=[[str(count) for count in row] for row in found.counts],
        description=f"Counts of runs; colour: Pearson residual. {found.test.effect}: {interval(found.test.size)}.",
    )
    return [figure, evidence(f"Does the crash type go with the {column}{among}?", [found.test])]


# -------------------------------------------------------------------------------------- scaling law


def scaling_section(study: Study) -> Section:
    return Section("scaling", "Model size", attempt(partial(_scaling, study), "Scaling law"))


def _scaling(study: Study) -> list[Block]:
    models = next((factor for factor in study.factors if factor.path == MODEL), None)
    if models is None:
        raise CannotFit("There is one model only, so its size can't be compared.")
    if study.apart:
        raise CannotFit("These are several experiments, and a scaling law is of one: report them one by one.")
    sizes = {show(name): size for name in models.levels if (size := parameters_of(str(name)))}
    law = scaling_law(curves(study.analysed, MODEL, models.levels, show), sizes)
    told = (
        f"Median survival grows with parameters to the power {interval(law.exponent)} "
        f"(p {p_value(law.p)}, R² {number(law.r_squared)}; {law.method}). Sizes are those that the models' names state."
    )
    columns = ("Model", "Parameters, 10⁹", "Median survival (95 % CI), steps", "n", "Events")
    rows = [[point.model, point.parameters / 1e9, point.median, point.n, point.events] for point in law.points]
    return [
        Note(told),
        *(Note(text) for text in law.left_out),
        _scaling_figure(law),
        Table("Models by size", columns, rows),
    ]


def _scaling_figure(law: ScalingLaw) -> Figure:
    points = sorted(law.points, key=lambda point: point.parameters)
    ends = [points[0].parameters, points[-1].parameters]
    line = Series("fitted", [x / 1e9 for x in ends], [10**law.intercept * x**law.exponent.value for x in ends])
    return Figure(
        key="scaling-law",
        title="Median survival against model size",
        x_label="parameters, 10⁹",
        y_label="median survival, steps",
        series=[*(_scaling_point(point) for point in points), line],
        description=f"Each model is a point; the fitted exponent is {interval(law.exponent)}.",
        x_log=True,
        y_log=True,
    )


def _scaling_point(point: Point) -> Series:
    median = point.median
    return Series(point.model, [point.parameters / 1e9], [median.value], [median.lower], [median.upper], shape="points")
