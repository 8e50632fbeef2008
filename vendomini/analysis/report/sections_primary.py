"""What the report says first: the primary contrast in a sentence, and one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from vendomini.analysis.report.content import (
    Block,
    Facets,
    Figure,
    Note,
    Section,
    Series,
    Table,
    interval,
    p_value,
    slug,
)
from vendomini.analysis.report.sections import EVERYTHING, attempt, by_model, wholes
from vendomini.analysis.report.sections_adaptive import adaptive_blocks
from vendomini.analysis.statistics.cox import step_of
from vendomini.analysis.statistics.estimate import CannotFit, Estimate, Test, holm
from vendomini.analysis.statistics.paired import paired_difference, paired_slope
from vendomini.analysis.statistics.survival import Curve, curves, difference, logrank
from vendomini.analysis.tables.study import Factor, Study, show

if TYPE_CHECKING:
    pass

COLUMNS = ("Contrast", "Among", "n", "Events", "Paired by seed (95 % CI), steps", "p", "p, Holm",
           "p, log-rank within seeds", "Unpaired, last − first level (95 % CI), steps", "p, log-rank",
           "Method")  # fmt: skip
EXPLORATORY = "No contrast was preregistered (analysis.primary in the config), so this one is exploratory."


@dataclass(frozen=True, slots=True)
class Contrast:
    """A question that is answered by one number.

    Attributes:
        factor: what is compared.
        levels: two of its levels; None for the slope over all of a numeric factor.
        within: parameter → value of the runs that it is about.
    """

    factor: Factor
    levels: tuple[object, object] | None
    within: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer paired within seeds, and, for comparison, as if runs were independent: last level less first."""

    contrast: Contrast
    among: str
    paired: Test
    within_seeds: float
    unpaired: Estimate
    logrank: float


def primary_section(study: Study) -> Section:
    contrasts, notes = preregistered(study)
    planned = bool(contrasts)
    blocks: list[Block] = [*adaptive_blocks(study), *(Note(text, warning=True) for text in notes)]
    if not planned:
        contrasts = [Contrast(study.dose, None, {})] if study.dose else []
    contrasts = _of_each_experiment(study, contrasts)
    answers = attempt(partial(_answers, study, contrasts, planned), "Primary contrast")
    sentences = [block for block in answers if isinstance(block, Note)]
    tables = [block for block in answers if not isinstance(block, Note)]
    blocks += [*sentences, *attempt(partial(_figure, study), "Dose–response by model"), *tables]
    return Section("primary", "Primary contrast", blocks)


def preregistered(study: Study) -> tuple[list[Contrast], list[str]]:
    """The contrasts that the plans name, and sentences about those that these runs can't answer."""
    found: list[Contrast] = []
    notes: list[str] = []
    factors = {factor.path: factor for factor in study.factors}
    for plan in study.plans:
        for entry in (plan.get("analysis") or {}).get("primary") or []:
            factor = factors.get(entry["factor"])
            if factor is None:
                notes.append(f"Preregistered, and not in these runs: {entry['factor']} does not vary.")
                continue
            levels = entry.get("compare")
            contrast = Contrast(factor, tuple(levels) if levels else None, entry.get("within") or {})
            if contrast not in found:
                found.append(contrast)
    return found, notes


def _of_each_experiment(study: Study, contrasts: Sequence[Contrast]) -> list[Contrast]:
    """If there are several experiments, each question about each of them; of two, also how much they differ."""
    apart = study.apart
    if apart is None:
        return list(contrasts)
    between = [Contrast(apart, (apart.levels[0], apart.levels[1]), {})] if len(apart.levels) == 2 else []
    return between + [
        replace(contrast, within={**contrast.within, apart.path: level})
        for contrast in contrasts
        for level in apart.levels
    ]


def _answers(study: Study, contrasts: Sequence[Contrast], planned: bool) -> list[Block]:
    if not contrasts:
        raise CannotFit("There is no dose that varies, and no contrast was preregistered.")
    answers: list[Answer] = []
    notes: list[Block] = []
    for contrast in contrasts:
        try:
            answers.append(answer(study, contrast))
        except CannotFit as exc:
            notes.append(Note(f"{contrast.factor.label}: {exc}"))
    if not answers:
        return notes
    adjusted = holm([one.paired.p for one in answers])
    told = [Note(_sentence(one, p, len(answers), planned)) for one, p in zip(answers, adjusted, strict=True)]
    rows = [
        [f"{one.contrast.factor.label}, {one.paired.subject}", one.among, one.paired.n, one.paired.events,
         one.paired.size, one.paired.p, p, one.within_seeds, one.unpaired, one.logrank, one.paired.method]
        for one, p in zip(answers, adjusted, strict=True)
    ]  # fmt: skip
    note = (
        "Runs of one seed meet the same conditions, so they are compared with each other: differences of "
        "restricted mean survival are averaged within a seed, and tested over seeds. The unpaired figures beside them "
        "take runs as independent. The dose is set by the design, the same seeds at every level, so its effect is "
        "causal (intention to treat); whether prediction error carries it is asked further down, and is not set by it."
    )
    title = "Primary contrasts" if planned else "Main contrast (exploratory)"
    return [*told, *([] if planned else [Note(EXPLORATORY)]), *notes, Table(title, COLUMNS, rows, note)]


def answer(study: Study, contrast: Contrast) -> Answer:
    """Raises:
    CannotFit: there are not enough seeds, runs or events.
    """
    factor = contrast.factor
    frame = study.even
    for path, value in contrast.within.items():
        frame = frame[frame[path] == value] if path in frame else frame.iloc[0:0]
    if frame.empty:
        raise CannotFit("No run is among those that the contrast is about.")
    levels = contrast.levels or factor.levels
    if contrast.levels:
        others = [other.path for other in study.factors if other.path != factor.path]
        if factor == study.dose:  # at dose 0 there is one cell for all levels of these
            others = [path for path in others if not study.inert(path)]
        paired = paired_difference(frame, factor.path, levels, others, show)
    else:
        paired = paired_slope(frame, factor.path, factor.levels, step_of(factor.levels))
    plain = logrank(frame, factor.path, levels, show)
    first, *_, last = curves(frame, factor.path, levels, show)
    stratified = logrank(frame, factor.path, levels, show, strata="seed")
    among = ", ".join(f"{path.rsplit('.', 1)[-1]} {show(value)}" for path, value in contrast.within.items())
    return Answer(contrast, among or EVERYTHING, paired, stratified.p, difference(first, last), plain.p)


def _sentence(one: Answer, p: float, family: int, planned: bool) -> str:
    size, test = one.paired.size, one.paired
    direction = "shortens survival" if size.value < 0 else "lengthens survival"
    verdict = direction if p < 0.05 else "shows no effect at the 5 % level"
    corrected = f", Holm over {family}" if family > 1 else ""
    return (
        f"{'Preregistered: ' if planned else ''}{one.contrast.factor.label} ({test.subject}) {verdict}: restricted "
        f"mean survival changes by {interval(size)} steps, p {p_value(p)}{corrected} ({test.method}; {one.among}, "
        f"n = {test.n}, {test.events} events)."
    )


def _figure(study: Study) -> list[Block]:
    """Restricted mean survival against the dose, a panel for each model, on one scale."""
    dose = study.dose
    if dose is None:
        raise CannotFit("There is no dose that varies.")
    panels = by_model(study) or wholes(study)
    points = [(label, curves(frame, dose.path, dose.levels)) for label, frame in panels]
    top = max((curve.horizon for _, group in points for curve in group), default=1.0)
    figures = [_panel(study, label, group, top) for label, group in points if group]
    return [Facets("primary", "Survival against dose, by model", figures)]


def _panel(study: Study, label: str, group: Sequence[Curve], top: float) -> Figure:
    ends = f"{interval(group[0].rmst)} steps at {group[0].label}, {interval(group[-1].rmst)} at {group[-1].label}"
    return Figure(
        key=slug(f"primary-{label}"),
        title=label,
        x_label=study.dose_label,
        y_label="restricted mean survival, steps",
        series=[
            Series(
                label=label, x=[float(point.label) for point in group], y=[point.rmst.value for point in group],
                lower=[point.rmst.lower for point in group], upper=[point.rmst.upper for point in group],
                shape="points+line",
            )
        ],
        description=f"{label}: {ends}; bars: 95 % intervals.",
        y_range=(0.0, top * 1.03),
    )  # fmt: skip
