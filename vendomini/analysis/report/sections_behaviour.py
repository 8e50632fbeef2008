"""What the report says about how runs end and about prediction errors."""

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
)
from vendomini.analysis.report.sections import attempt
from vendomini.analysis.report.sections_effects import evidence
from vendomini.analysis.statistics.competing import association, cumulative_incidence
from vendomini.analysis.statistics.estimate import CannotFit, holm
from vendomini.analysis.statistics.scaling import Point, ScalingLaw, parameters_of, scaling_law
from vendomini.analysis.statistics.survival import Z, curves
from vendomini.analysis.statistics.time_varying_cox import interval_width, intervals, varying_hazard
from vendomini.analysis.tables.study import MODEL, Factor, Study, show
from vendomini.analysis.tables.tables import Tables

if TYPE_CHECKING:
    import pandas

TRAJECTORY_POINTS = 100
SCALES = {"fast": "α = 0.3", "medium": "α = 0.1", "slow": "α = 0.01"}


def endings_section(study: Study, tables: Tables) -> Section:
    blocks = attempt(partial(_incidence, study), "How runs end")
    blocks += _severities(study)
    blocks += attempt(partial(_crash_by_pe, study, tables), "Crash type and prediction error")
    return Section("endings", "How runs end", blocks)


def _incidence(study: Study) -> list[Block]:
    estimates = cumulative_incidence(study.analysed, "outcome")
    ends = "; ".join(f"{one.ending}: {interval(one.final)}" for one in estimates)
    figure = Figure(
        key="endings",
        title="How runs end",
        x_label="step",
        y_label="cumulative incidence",
        series=[Series(one.ending, one.times, one.incidence, shape="stack") for one in estimates],
        description=f"Cumulative incidence of each ending, stacked. At the last event, {ends}.",
        y_range=(0.0, 1.0),
    )
    rows = [[one.ending, one.events, one.n, one.final] for one in estimates]
    note = "Aalen–Johansen, each ending competing with the others; 95 % intervals by the log-log delta method."
    return [figure, Table("Endings", ("Ending", "Events", "n", "Incidence at the last event (95 % CI)"), rows, note)]


def _severities(study: Study) -> list[Block]:
    crashed = study.analysed[study.analysed["ending"] == "crashed"] if len(study.analysed) else study.analysed
    if crashed.empty or "severity" not in crashed:
        return []
    counts = crashed.groupby(["crash_type", "severity"]).size()
    rows = [[kind, severity, int(n), int(n) / len(crashed)] for (kind, severity), n in counts.items()]
    note = f"n = {len(crashed)} crashed runs. Soft let go within 20 steps and stayed off; hard did not."
    return [Table("Crashes by type and severity", ("Type", "Severity", "Runs", "Share"), rows, note)]


def _crash_by_pe(study: Study, tables: Tables) -> list[Block]:
    """Against the type of shocks where the experiment varies it, else against the error that had accumulated most."""
    crashed = study.analysed[study.analysed["ending"] == "crashed"].rename(columns={"crash_type": "crash type"})
    if crashed.empty:
        raise CannotFit("No run has crashed yet, so there is no crash type to compare.")
    mix = study.mix
    column = "PE type" if mix else "largest PE at the crash"
    types = crashed[mix.path] if mix else crashed["run_id"].map(_largest_errors(study, tables, crashed))
    found = association(crashed.assign(**{column: types}), "crash type", column)
    figure = Heatmap(
        key="crash-by-pe-type",
        title=f"Crash type by {column}",
        x_label=column,
        y_label="crash type",
        columns=found.columns,
        rows=found.rows,
        values=found.residuals,
        texts=[[str(count) for count in row] for row in found.counts],
        description=f"Counts of runs; colour: Pearson residual. {found.test.effect}: {interval(found.test.size)}.",
    )
    return [figure, evidence(f"Does the crash type go with the {column}?", [found.test])]


def _largest_errors(study: Study, tables: Tables, crashed: pandas.DataFrame) -> dict[str, str]:
    """Run → the type whose error (EWMA, α = 0.1) was largest when the run crashed; streamed from the steps table."""
    dataset = tables.steps()
    columns = [f"pe.{kind}.medium" for kind in study.pe_types]
    columns = [name for name in columns if dataset is not None and name in dataset.schema.names]
    if dataset is None or not columns:
        raise CannotFit("No prediction error has been resolved in a crashed run.")
    onsets = crashed.set_index("run_id")["durations"]
    largest: dict[str, str] = {}
    for batch in dataset.to_batches(columns=["run_id", "step", *columns]):
        rows = batch.to_pandas()
        rows = rows[rows["step"] == rows["run_id"].map(onsets)].dropna(subset=columns, how="all")
        if len(rows):
            names = rows[columns].idxmax(axis=1).str.split(".").str[1]
            largest.update(zip(rows["run_id"], names, strict=True))
    return largest


# --------------------------------------------------------------------------------- prediction errors


def errors_section(study: Study, tables: Tables) -> Section:
    blocks = attempt(partial(_trajectories, study, tables), "Prediction errors over time")
    blocks += attempt(partial(_hazard_over_errors, study, tables), "Prediction error and the event")
    return Section("errors", "Prediction errors", blocks)


def _trajectories(study: Study, tables: Tables) -> list[Block]:
    """Mean accumulated error over the runs still alive, at about a hundred steps."""
    factor = study.dose or (study.factors[0] if study.factors else None)
    longest = int(study.analysed["durations"].max()) if len(study.analysed) else 0
    steps = _scan(tables, ["pe.all.medium"], max(1, longest // TRAJECTORY_POINTS))
    steps = steps.dropna(subset=["pe.all.medium"])
    columns = ["run_id", "durations", *([factor.path] if factor else [])]
    steps = steps.merge(study.analysed[columns], on="run_id")
    steps = steps[steps["step"] <= steps["durations"]]
    if steps.empty:
        raise CannotFit("No prediction error has been resolved in a finished run yet.")
    lines = [_trajectory(steps, factor, level) for level in (factor.levels if factor else [None])]
    lines = [line for line in lines if line.x]
    return [
        Figure(
            key="prediction-errors",
            title=f"Accumulated prediction error{f' by {factor.label}' if factor else ''}",
            x_label="step",
            y_label="mean PE (EWMA, α = 0.1, all types)",
            series=lines,
            description="Mean over the runs that have not had an event by that step, with its 95 % interval (normal).",
            ordered=bool(factor and factor.numeric),
        )
    ]


def _trajectory(steps: pandas.DataFrame, factor: Factor | None, level: object) -> Series:
    rows = steps if factor is None else steps[steps[factor.path] == level]
    means = rows.groupby("step")["pe.all.medium"].agg(["mean", "sem", "size"])
    means = means[means["size"] >= 2]
    half = Z * means["sem"].fillna(0)
    return Series(
        label=show(level) if factor else "all runs",
        x=means.index.tolist(),
        y=means["mean"].tolist(),
        lower=(means["mean"] - half).tolist(),
        upper=(means["mean"] + half).tolist(),
    )


def _hazard_over_errors(study: Study, tables: Tables) -> list[Block]:
    runs = study.analysed[study.analysed["status"] == "finished"]
    width = interval_width(int(runs["durations"].sum()))
    names = [f"pe.all.{scale}" for scale in SCALES]
    steps = _scan(tables, names, width)
    found = [varying_hazard(intervals(steps, runs, name, width), name, width) for name in names]
    rows = [
        [f"{h.covariate} ({scale})", h.ratio, h.p, adjusted, h.sd, h.n, h.events, h.intervals, h.method]
        for h, scale, adjusted in zip(found, SCALES.values(), holm([h.p for h in found]), strict=True)
    ]
    columns = ("Covariate", "Hazard ratio per SD (95 % CI)", "p", "p, Holm", "SD", "n", "Events", "Intervals", "Method")
    note = "Runs are compared at the same step: does the one that has met more error crash first?"
    return [Table("Does accumulated error foretell the event?", columns, rows, note)]


def _scan(tables: Tables, columns: list[str], width: int) -> pandas.DataFrame:
    """Every ``width``-th step of all finished runs, streamed from the steps table."""
    import pyarrow.compute as compute
    import pyarrow.dataset

    dataset = tables.steps()
    if dataset is None or not set(columns) <= set(dataset.schema.names):
        raise CannotFit("No prediction error has been resolved in a finished run yet.")
    step = pyarrow.dataset.field("step")
    chosen = step == compute.multiply(compute.divide(step, width), width)
    return dataset.to_table(columns=["run_id", "step", *columns], filter=chosen).to_pandas()


# -------------------------------------------------------------------------------------- scaling law


def scaling_section(study: Study) -> Section:
    return Section("scaling", "Model size", attempt(partial(_scaling, study), "Scaling law"))


def _scaling(study: Study) -> list[Block]:
    models = next((factor for factor in study.factors if factor.path == MODEL), None)
    if models is None:
        raise CannotFit("There is one model only, so its size can't be compared.")
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
