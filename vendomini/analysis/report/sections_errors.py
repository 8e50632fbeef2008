"""What the report says about prediction errors: those that shocks caused, and those that the agents caused
themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy

from vendomini.analysis.report.content import Block, Figure, Note, Section, Series, Table
from vendomini.analysis.report.sections import attempt, wholes
from vendomini.analysis.statistics.estimate import CannotFit, Estimate, holm
from vendomini.analysis.statistics.survival import Z
from vendomini.analysis.statistics.time_varying_cox import (
    VaryingHazard,
    baselines,
    interval_width,
    intervals,
    lag_of,
    varying_hazard,
)
from vendomini.analysis.tables.aggregate import Tables
from vendomini.analysis.tables.study import MODEL, Factor, Study, show
from vendomini.measures.detectors import WINDOW

if TYPE_CHECKING:
    import pandas

TRAJECTORY_POINTS = 100
SCALES = {"fast": "α = 0.3", "medium": "α = 0.1", "slow": "α = 0.01"}
NONE_YET = "No prediction error has been resolved in a finished run yet."

SERIES = {
    "caused.medium": ("Error that shocks caused", "broken promises (EWMA)",
                      "What was promised against what came, whatever the agent expected"),
    "own.medium": ("Self-inflicted error (descriptive)", "other error (EWMA)",
                   "What agents erred by beyond what shocks did. A derailing agent's failed calls are such errors: "
                   "they accompany a crash and say nothing about its cause"),
}  # fmt: skip


def errors_section(study: Study, tables: Tables) -> Section:
    blocks = attempt(partial(_foretold, study, tables), "Error that shocks caused, and the event")
    blocks += attempt(partial(_mediator, study, tables), "Dose and error")
    for column, (title, _, _) in SERIES.items():
        blocks += attempt(partial(_trajectories, study, tables, column), title)
    return Section("errors", "Prediction errors", blocks)


def _foretold(study: Study, tables: Tables) -> list[Block]:
    """A row for each time scale and baseline; a fit that fails costs only its own row."""
    runs = study.analysed[study.analysed["status"] == "finished"]
    width = interval_width(int(runs["durations"].sum()))
    steps = _scan(tables, [f"caused.{scale}" for scale in SCALES], width)
    found: list[tuple[str, str, VaryingHazard]] = []
    sentences: dict[str, list[str]] = {}
    for by, stratum in baselines(_own_models(study, runs), MODEL, [factor.path for factor in study.factors]).items():
        for scale, told in SCALES.items():
            try:
                found.append((told, by, foretold(steps, runs.assign(stratum=stratum), f"caused.{scale}", width)))
            except CannotFit as exc:
                sentences.setdefault(str(exc), []).append(f"{told} by {by}")
    notes: list[Block] = [Note(f"Does error that shocks caused foretell the event ({', '.join(rows)})? {text}")
                          for text, rows in sentences.items()]  # fmt: skip
    return [*notes, _foretold_table(found)] if found else notes


def _own_models(study: Study, runs: pandas.DataFrame) -> pandas.DataFrame:
    """Runs in which a model of two experiments counts as two, so that only runs of one experiment share a baseline."""
    if study.apart is None:
        return runs
    return runs.assign(**{MODEL: runs[MODEL].astype(str) + " " + runs[study.apart.path].astype(str)})


def _foretold_table(found: Sequence[tuple[str, str, VaryingHazard]]) -> Table:
    adjusted = holm([hazard.p for _, _, hazard in found])
    rows = [
        [scale, by, h.ratio, h.p, p, h.sd, h.n, h.events, h.intervals, h.method]
        for (scale, by, h), p in zip(found, adjusted, strict=True)
    ]
    ratio = "Hazard ratio per SD (95 % CI)"
    columns = ("Accumulated with", "Baseline by", ratio, "p", "p, Holm", "SD", "n", "Events", "Intervals", "Method")
    note = (
        "Runs are compared at the same step: does the one whose promises were broken more crash first? Only error that "
        f"the world caused counts, on promises made before any detector went on, as it stood at least {WINDOW} steps "
        "(one detector window) before; an agent's own errors have no part in it. Baselines by model compare doses, "
        "which are randomised; by cell, only what chance made of one dose. The error itself is not randomised: this is "
        "how the dose may act, and no effect of its own."
    )
    return Table("Does error that shocks caused foretell the event?", columns, rows, note)


def foretold(steps: pandas.DataFrame, runs: pandas.DataFrame, column: str, width: int) -> VaryingHazard:
    """Cox with the error as a covariate that changes over time, and seeds as clusters.

    Args:
        steps: columns run, step and ``column``, every ``width``-th step.
        runs: finished runs, with a column ``stratum``.
    """
    frame = runs[["run", "durations", "event_observed", "seed", "stratum"]]
    lag = lag_of(width, WINDOW)
    return varying_hazard(intervals(steps, frame, column, width, lag), width, lag)


def _mediator(study: Study, tables: Tables) -> list[Block]:
    """Mean error that shocks caused, at each dose: what the dose does to the mediator."""
    dose = study.dose
    if dose is None:
        return []
    steps = _until_event(study, _scan(tables, ["caused.medium"], 1 + _longest(study) // TRAJECTORY_POINTS), dose)
    by_run = steps.groupby(["run", "seed", dose.path])["caused.medium"].mean().reset_index()
    rows: list[list[object]] = []
    for name, frame in wholes(study):
        among = [name] if study.apart else []
        for level in dose.levels:
            group = by_run[by_run["run"].isin(frame["run"]) & (by_run[dose.path] == level)]
            seeds = group.groupby("seed")["caused.medium"].mean()
            if len(group):
                rows.append([*among, level, _mean(seeds), len(group), len(seeds)])
    note = (
        "The dose is randomised; this is what it does to the error that agents meet up to their event (mean over time "
        "of the EWMA with α = 0.1; 95 % intervals by Student's t over seeds)."
    )
    among_column = (study.apart.label,) if study.apart else ()
    columns = (*among_column, dose.label, "Error that shocks caused (95 % CI)", "Runs", "Seeds")
    return [Table("What the dose does to the error that shocks cause", columns, rows, note)]


def _mean(values: pandas.Series) -> Estimate:
    from scipy import stats

    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean, numpy.nan, numpy.nan)
    half = float(stats.t.ppf(0.975, n - 1)) * float(values.std()) / n**0.5
    return Estimate(mean, max(mean - half, 0.0), mean + half)


def _longest(study: Study) -> int:
    return int(study.analysed["durations"].max()) if len(study.analysed) else 0


def _until_event(study: Study, steps: pandas.DataFrame, factor: Factor | None) -> pandas.DataFrame:
    """The steps up to each run's event, with the run's seed and factor."""
    columns = ["run", "seed", "durations", *([factor.path] if factor else [])]
    steps = steps.merge(study.analysed[columns], on="run")
    steps = steps[steps["step"] <= steps["durations"]]
    if steps.empty:
        raise CannotFit(NONE_YET)
    return steps


def _trajectories(study: Study, tables: Tables, column: str) -> list[Block]:
    """Mean accumulated error over the runs still alive, at about a hundred steps."""
    factor = study.apart or study.dose or (study.factors[0] if study.factors else None)
    steps = _until_event(study, _scan(tables, [column], max(1, _longest(study) // TRAJECTORY_POINTS)), factor)
    lines = [_trajectory(steps, column, factor, level) for level in (factor.levels if factor else [None])]
    title, axis, told = SERIES[column]
    return [
        Figure(
            key="prediction-errors" if column.startswith("caused") else "self-inflicted-errors",
            title=f"{title}{f', by {factor.label}' if factor else ''}",
            x_label="step",
            y_label=axis,
            series=[line for line in lines if line.x],
            description=f"{told}. All types, EWMA with α = 0.1; mean over the runs that have not had an event by that "
            "step, with its 95 % interval.",
            legend=factor.label if factor else "",
            ordered=bool(factor and factor.numeric),
        )
    ]


def _trajectory(steps: pandas.DataFrame, column: str, factor: Factor | None, level: object) -> Series:
    rows = steps if factor is None else steps[steps[factor.path] == level]
    means = rows.groupby("step")[column].agg(["mean", "sem", "size"])
    means = means[means["size"] >= 2]
    half = Z * means["sem"].fillna(0)
    return Series(
        label=show(level) if factor else "all runs",
        x=means.index.tolist(),
        y=means["mean"].tolist(),
        lower=(means["mean"] - half).clip(lower=0).tolist(),
        upper=(means["mean"] + half).tolist(),
    )


def _scan(tables: Tables, columns: list[str], width: int) -> pandas.DataFrame:
    """Every ``width``-th step of all finished runs, streamed from the steps table: run, step and the columns."""
    import pyarrow.compute as compute
    import pyarrow.dataset

    dataset = tables.steps()
    if dataset is None or not set(columns) <= set(dataset.schema.names):
        raise CannotFit(NONE_YET)
    step = pyarrow.dataset.field("step")
    chosen = step == compute.multiply(compute.divide(step, width), width)
    found = dataset.to_table(columns=["folder", "run_id", "step", *columns], filter=chosen).to_pandas()
    found.insert(0, "run", found["folder"] + "/" + found["run_id"])
    return found.drop(columns=["folder", "run_id"])
