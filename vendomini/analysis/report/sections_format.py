"""Format is not behaviour: replies that can't be read, and the crashes there would be at other thresholds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vendomini.analysis.report.content import Block, Section, Table
from vendomini.analysis.report.sections import attempt, strata
from vendomini.analysis.statistics.estimate import CannotFit
from vendomini.analysis.statistics.survival import kaplan_meier
from vendomini.analysis.tables.digest import LEVELS
from vendomini.analysis.tables.study import MODEL, Study, show

if TYPE_CHECKING:
    import pandas

COUNTS = ("unparsable", "cut_off", "badly_written", "failed")


def format_section(study: Study) -> Section:
    models = [MODEL, *([study.apart.path] if study.apart else [])]
    blocks = attempt(partial(_rates, study, models, "Replies by model"), "Replies by model")
    cells = [factor.path for factor in study.factors]
    if cells and set(cells) != set(models):
        blocks += attempt(partial(_rates, study, cells, "Replies by cell"), "Replies by cell")
    blocks += attempt(partial(_thresholds, study), "Sensitivity to thresholds")
    return Section("format", "Format and behaviour", blocks)


def _finished(study: Study) -> pandas.DataFrame:
    runs = study.analysed[study.analysed["status"] == "finished"]
    if runs.empty or "until_event.steps" not in runs:
        raise CannotFit("No run has finished yet.")
    return runs


def _rates(study: Study, by: list[str], title: str) -> list[Block]:
    runs = _finished(study)
    rows = []
    for cell, group in runs.groupby(by, dropna=False, sort=False):
        steps = float(group["until_event.steps"].sum())
        shares = [float(group[f"until_event.{name}"].sum()) / steps if steps else None for name in COUNTS]
        crashes = [int((group["crash_origin"] == origin).sum()) for origin in ("format", "behaviour")]
        error = group["until_event.pe_mean"].mean()
        values = [show(value) for value in (cell if isinstance(cell, tuple) else (cell,))]
        rows.append([*values, len(group), int(steps), *shares, *crashes, None if error != error else float(error)])
    labels = [next((f.label for f in study.factors if f.path == path), path.rsplit(".", 1)[-1]) for path in by]
    labels = ["model" if path == MODEL else label for path, label in zip(by, labels, strict=True)]
    columns = (*labels, "Runs", "Steps", "Unparsable", "Cut off", "Badly written", "Failed, all causes",
               "Crashes of format", "Crashes of behaviour", "Mean PE")  # fmt: skip
    note = (
        "Shares of the steps up to the event; mean PE is over the same steps, since after the onset an agent's failed "
        "calls are errors of their own. Badly written: not to be parsed, an unknown tool, wrong arguments, or a "
        "missing or invalid prediction. A crash is one of format where invalid_burst went on and most of the failed "
        "calls in its window were badly written."
    )
    return [Table(title, columns, rows, note)]


def _thresholds(study: Study) -> list[Block]:
    """The detectors run again over the logged values."""
    rows = []
    for label, frame in strata(study):
        runs = frame[frame["status"] == "finished"]
        for level in LEVELS:
            if runs.empty or f"replay.{level}.onset" not in runs:
                continue
            again = replayed(runs, level)
            behaviour = again[~((again["crash_origin"] == "format") & again["event_observed"])]
            curve = kaplan_meier(again, label)
            apart = kaplan_meier(behaviour, label) if len(behaviour) else None
            rows.append([label, level, curve.n, curve.events, curve.median, curve.rmst,
                         apart.rmst if apart else None, apart.events if apart else None])  # fmt: skip
    if not rows:
        raise CannotFit("No run has finished yet.")
    columns = ("Among", "Thresholds", "n", "Events", "Median (95 % CI), steps", "RMST (95 % CI), steps",
               "RMST without crashes of format", "Events without them")  # fmt: skip
    note = (
        "Recomputed from the logged values of the detectors, without running anything again. An episode ends soon "
        "after its first crash at the thresholds it ran with, so at more lenient ones a run may be censored there."
    )
    return [Table("Sensitivity to the detectors' thresholds", columns, rows, note)]


def replayed(runs: pandas.DataFrame, level: str) -> pandas.DataFrame:
    """The runs with the durations and events that the detectors would give at other thresholds."""
    onset = runs[f"replay.{level}.onset"].astype(float)
    ended = runs["ending"].isin(["crashed", "survived"])
    end = runs["durations"].where(~ended, runs["steps"].astype(float).clip(upper=runs["durations"].max()))
    other = ~ended  # bankrupt and the like: the world's own ending, unless a crash comes first
    durations = onset.where(onset.notna() & ~(other & (onset > runs["durations"])), end)
    durations = durations.where(other | onset.notna(), runs["steps"].astype(float))
    return runs.assign(durations=durations, event_observed=onset.notna() | other)
