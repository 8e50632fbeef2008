"""What the report says about survival: curves, doses, tests, hazards."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from vendomini.analysis.report.content import Block, Choice, Figure, Note, Section, Series, Table, interval, slug
from vendomini.analysis.statistics.estimate import CannotFit
from vendomini.analysis.statistics.survival import Curve, curves, kaplan_meier
from vendomini.analysis.tables.study import MODEL, Factor, Study, show

if TYPE_CHECKING:
    import pandas

_log = logging.getLogger(__name__)

EVERYTHING = "all runs"
TOGETHER = "all together"


def attempt(build: Callable[[], list[Block]], what: str) -> list[Block]:
    """The blocks, or the sentence that says why there are none; a failure costs its own section and no more.

    Args:
        what: name of what is built, as the reader knows it.
    """
    try:
        return build()
    except CannotFit as exc:
        return [Note(f"{what}: {exc}")]
    except Exception:
        # numerical libraries raise anything, and the other parts of the report are still of use
        _log.exception("%s", what)
        return [Note(f"{what}: the computation failed on these data, so it is left out.", warning=True)]


def survival_section(study: Study) -> Section:
    blocks = attempt(partial(_overall, study), "Survival")
    blocks += attempt(partial(_curves, study), "Survival curves")
    blocks += attempt(partial(_doses, study), "Dose–response")
    return Section("survival", "Survival", blocks)


def _overall(study: Study) -> list[Block]:
    """All runs in a sentence, those of each experiment by themselves."""
    return [_survival(study, name, frame) for name, frame in wholes(study)]


def _survival(study: Study, name: str, frame: pandas.DataFrame) -> Note:
    curve = kaplan_meier(frame, name)
    median = (
        f"median survival {interval(curve.median)} steps (Kaplan–Meier)"
        if math.isfinite(curve.median.value)
        else "their curve stays above one half, so there is no median"
    )
    among = f"{name}: " if study.apart else ""
    return Note(f"{among}{curve.events} of {curve.n} runs had an event ({study.events}); {median}.")


# --------------------------------------------------------------------------------------------- curves


def _curves(study: Study) -> list[Block]:
    figures: dict[tuple[str, str], Figure] = {}
    rows = []
    compared = [(study.apart.label, among, frame) for among, frame in comparable(study)] if study.apart else []
    groups = [(label, among, _by(study, frame, label)) for label, among, frame in compared]
    groups += [(label, among, group) for among, frame in strata(study) for label, group in _groupings(study, frame)]
    for label, among, group in groups:
        if group:
            key = slug(f"survival-{label}-{among}")
            figures[label, among] = _curve_figure(key, label, among, group)
            rows += [[curve.label, label, among, *_curve_row(curve)] for curve in group]
    if not figures:
        raise CannotFit("No run has made a step yet, so there is no survival to show.")
    note = (
        "Kaplan–Meier; bands and median: pointwise 95 % by log-log Greenwood. RMST: restricted mean survival time up "
        "to the common horizon of the curves of one figure, Greenwood's variance. Steps to the first event "
        f"({study.events}); runs without one are censored at their last step."
    )
    columns = (
        "Group",
        "Grouped by",
        "Among",
        "n",
        "Events",
        "Median (95 % CI), steps",
        "RMST (95 % CI), steps",
        "Horizon",
    )
    return [Choice("survival", "Grouped by", "Among", figures), Table("Every curve in numbers", columns, rows, note)]


def strata(study: Study) -> list[tuple[str, pandas.DataFrame]]:
    """All runs, and the runs of each model where there are several; of each experiment by itself."""
    return [*wholes(study), *by_model(study)]


def wholes(study: Study) -> list[tuple[str, pandas.DataFrame]]:
    """The runs of each experiment."""
    frame, apart = study.analysed, study.apart
    if apart is None:
        return [(EVERYTHING, frame)]
    return [(show(level), frame[frame[apart.path] == level]) for level in apart.levels]


def by_model(study: Study) -> list[tuple[str, pandas.DataFrame]]:
    """The runs of each model in each experiment, where there are several models."""
    models = next((factor for factor in study.factors if factor.path == MODEL), None)
    found = [
        (show(level) if study.apart is None else f"{show(level)}, {name}", frame[frame[MODEL] == level])
        for name, frame in wholes(study)
        for level in (models.levels if models else [])
    ]
    return [(name, frame) for name, frame in found if study.apart is None or len(frame)]


def comparable(study: Study) -> list[tuple[str, pandas.DataFrame]]:
    """All runs of all experiments, and those of each model: for nothing but a comparison between experiments."""
    models = next((factor for factor in study.factors if factor.path == MODEL), None)
    frame = study.analysed
    return [(EVERYTHING, frame), *((show(m), frame[frame[MODEL] == m]) for m in (models.levels if models else []))]


def _by(study: Study, frame: pandas.DataFrame, label: str) -> list[Curve]:
    factor = next(factor for factor in study.factors if factor.label == label)
    return curves(frame, factor.path, factor.levels, show)


def _groupings(study: Study, frame: pandas.DataFrame) -> list[tuple[str, list[Curve]]]:
    found = [(factor.label, curves(frame, factor.path, factor.levels, show)) for factor in study.factors]
    found = [(label, group) for label, group in found if len(group) > 1]
    whole = [kaplan_meier(frame, EVERYTHING)] if len(frame) else []
    return [*found, (TOGETHER, whole)]


def _curve_figure(key: str, label: str, among: str, group: Sequence[Curve]) -> Figure:
    series = [
        Series(
            label=f"{curve.label} (n = {curve.n})",
            x=curve.times, y=curve.survival, lower=curve.lower, upper=curve.upper, marks=curve.censored, shape="step",
        )
        for curve in group
    ]  # fmt: skip
    ends = "; ".join(f"{curve.label}: {curve.survival[-1]:.0%} of {curve.n} survive" for curve in group)
    title = f"Survival by {label}" if label != TOGETHER else "Survival"
    return Figure(
        key=key,
        title=title if among == EVERYTHING else f"{title}, {among}",
        x_label="step",
        y_label="share of runs without an event",
        series=series,
        description=f"Kaplan–Meier curves. At the last step, {ends}.",
        ordered=_ordered(group),
        y_range=(0.0, 1.02),
        legend=label if label != TOGETHER else "",
    )


def _ordered(group: Sequence[Curve]) -> bool:
    """More levels than colours can tell apart by name, or numbers: a sequence of colours."""
    return all(curve.label.replace(".", "", 1).isdigit() for curve in group) and len(group) > 1


def _curve_row(curve: Curve) -> list[object]:
    return [curve.n, curve.events, curve.median, curve.rmst, curve.horizon]


# ---------------------------------------------------------------------------------------------- doses


def reference(frame: pandas.DataFrame, factor: Factor, level: object) -> pandas.DataFrame:
    """The runs of a level, and those at dose 0 of no level, which are the reference of all."""
    return frame[(frame[factor.path] == level) | frame[factor.path].isna()]


def _doses(study: Study) -> list[Block]:
    """Restricted mean survival against the dose, a line for each level of each other factor."""
    dose = study.dose
    if dose is None:
        return []
    others = [factor for factor in study.factors if factor not in (dose, study.apart)]
    figures = {}
    if study.apart:
        figures = {
            (study.apart.label, among): _dose_figure(study, dose, study.apart, among, frame)
            for among, frame in comparable(study)
        }
    for among, frame in wholes(study):
        figures |= {(factor.label, among): _dose_figure(study, dose, factor, among, frame) for factor in others}
    if not figures:
        figures = {(TOGETHER, EVERYTHING): _dose_figure(study, dose, None, EVERYTHING, study.analysed)}
    return [Choice("dose", "Dose–response by", "Among", figures)]


def _dose_figure(study: Study, dose: Factor, factor: Factor | None, among: str, frame: pandas.DataFrame) -> Figure:
    levels = factor.levels if factor else [None]
    groups = {level: frame if factor is None else reference(frame, factor, level) for level in levels}
    lines = []
    for level, group in groups.items():
        points = curves(group, dose.path, dose.levels)
        lines.append(
            Series(
                label=show(level) if factor else EVERYTHING,
                x=[float(point.label) for point in points],
                y=[point.rmst.value for point in points],
                lower=[point.rmst.lower for point in points],
                upper=[point.rmst.upper for point in points],
                shape="points+line",
            )
        )
    by = f", by {factor.label}" if factor else ""
    by += f", {among}" if among != EVERYTHING else ""
    return Figure(
        key=slug(f"dose{by}"),
        title=f"Mean survival against {dose.label}{by}",
        x_label=study.dose_label,
        y_label="restricted mean survival, steps",
        series=lines,
        description=f"Restricted mean survival time at each {dose.label} with 95 % intervals.",
        legend=factor.label if factor else "",
    )
