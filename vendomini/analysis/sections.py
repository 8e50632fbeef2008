"""What the report says about survival: curves, doses, tests, hazards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from vendomini.analysis.content import Block, Choice, Figure, Note, Section, Series, Table, interval, number, p_value, slug
from vendomini.analysis.cox import Covariate, CoxModel, cox, proportionality
from vendomini.analysis.fit import CannotFit, Test
from vendomini.analysis.study import MODEL, Factor, Study, show
from vendomini.analysis.survival import Curve, correct, curves, kaplan_meier, logrank, pairwise_logrank

if TYPE_CHECKING:
    import pandas

DOSE = "pe_induction.p_shock"
EVERYTHING = "all runs"
TOGETHER = "all together"
PAIRS = 6
"""Factors of more levels are not compared pair by pair."""

TEST_COLUMNS = ("Comparison", "n", "Events", "χ²", "df", "p", "p, Holm", "Effect", "Size (95 % CI)", "Method")


def attempt(build: Callable[[], list[Block]]) -> list[Block]:
    """The blocks, or the sentence that says why there are none."""
    try:
        return build()
    except CannotFit as exc:
        return [Note(str(exc))]


def survival_section(study: Study) -> Section:
    blocks: list[Block] = []
    blocks += attempt(partial(_curves, study))
    blocks += attempt(partial(_doses, study))
    return Section("survival", "Survival", blocks)


# --------------------------------------------------------------------------------------------- curves


def _curves(study: Study) -> list[Block]:
    figures: dict[tuple[str, str], Figure] = {}
    rows = []
    for among, frame in strata(study):
        for label, group in _groupings(study, frame):
            if not group:
                continue
            key = slug(f"survival-{label}-{among}")
            figures[label, among] = _curve_figure(key, label, among, group)
            rows += [[curve.label, label, among, *_curve_row(curve)] for curve in group]
    if not figures:
        raise CannotFit("No run has made a step yet, so there is no survival to show.")
    note = (
        "Kaplan–Meier; bands and median: pointwise 95 % by log-log Greenwood. RMST: restricted mean survival time up "
        "to the common horizon of the curves of one figure, Greenwood's variance. Steps to the first crash, "
        "bankruptcy or loss of the last customer; runs without such an event are censored at their last step."
    )
    columns = ("Group", "Grouped by", "Among", "n", "Events", "Median (95 % CI), steps", "RMST (95 % CI), steps", "Horizon")
    return [Choice("survival", "Grouped by", "Among", figures), Table("Every curve in numbers", columns, rows, note)]


def strata(study: Study) -> list[tuple[str, pandas.DataFrame]]:
    """All runs, and the runs of each model where there are several."""
    frame = study.analysed
    found = [(EVERYTHING, frame)]
    models = next((factor for factor in study.factors if factor.path == MODEL), None)
    if models:
        found += [(show(level), frame[frame[MODEL] == level]) for level in models.levels]
    return found


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
    )


def _ordered(group: Sequence[Curve]) -> bool:
    """More levels than colours can tell apart by name, or numbers: a sequence of colours."""
    return all(curve.label.replace(".", "", 1).isdigit() for curve in group) and len(group) > 1


def _curve_row(curve: Curve) -> list[object]:
    return [curve.n, curve.events, curve.median, curve.rmst, curve.horizon]


# ---------------------------------------------------------------------------------------------- doses


def _doses(study: Study) -> list[Block]:
    """Restricted mean survival against p_shock, a line for each level of each other factor."""
    dose = next((factor for factor in study.factors if factor.path == DOSE), None)
    if dose is None:
        return []
    others = [factor for factor in study.factors if factor.path != DOSE]
    figures = {(factor.label, EVERYTHING): _dose_figure(study.analysed, dose, factor) for factor in others}
    if not figures:
        figures = {(TOGETHER, EVERYTHING): _dose_figure(study.analysed, dose, None)}
    return [Choice("dose", "Dose–response by", "Among", figures)]


def _dose_figure(frame: pandas.DataFrame, dose: Factor, factor: Factor | None) -> Figure:
    levels = factor.levels if factor else [None]
    groups = {level: frame if factor is None else frame[frame[factor.path] == level] for level in levels}
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
    return Figure(
        key=slug(f"dose{by}"),
        title=f"Mean survival against p_shock{by}",
        x_label="p_shock (probability of a shock at each step)",
        y_label="restricted mean survival, steps",
        series=lines,
        description="Restricted mean survival time at each p_shock with 95 % intervals.",
    )


# ---------------------------------------------------------------------------------------------- tests


def effects_section(study: Study) -> Section:
    blocks: list[Block] = []
    blocks += attempt(partial(_cox_blocks, study))
    blocks += attempt(partial(_dose_hazards, study))
    blocks += _logrank_blocks(study)
    return Section("effects", "What makes a difference", blocks)


def covariates(factors: Sequence[Factor]) -> list[Covariate]:
    return [Covariate(factor.path, factor.label, factor.levels, factor.numeric, show) for factor in factors]


def _cox_blocks(study: Study) -> list[Block]:
    model = cox(study.analysed, covariates(study.factors))
    blocks: list[Block] = [finding(model), *(Note(note) for note in model.notes), _forest(model)]
    rows = [[h.name, h.ratio, h.p, h.p_adjusted, model.n, model.events] for h in model.hazards]
    note = f"{model.method}; main effects of all factors at once. Concordance {number(model.concordance)}."
    columns = ("Covariate", "Hazard ratio (95 % CI)", "p", "p, Holm", "n", "Events")
    blocks.append(Table("Hazard ratios", columns, rows, note))
    check = proportionality(study.analysed, covariates(study.factors))
    broken = [test.subject for test in check if test.p_adjusted < 0.05]
    blocks.append(tests_table("Are the hazard ratios the same at all times?", check))
    if broken:
        told = f"Hazards are not proportional for {'; '.join(broken)}: read the ratio as an average over time, and the curves."
        blocks.append(Note(told, warning=True))
    return blocks


def finding(model: CoxModel) -> Note:
    """The main effects in a sentence, or that there are none."""
    found = [hazard for hazard in model.hazards if hazard.p_adjusted < 0.05]
    basis = f"({model.method}; n = {model.n}, {model.events} events, Holm over {len(model.hazards)})"
    if not found:
        return Note(f"No factor shows an effect on the hazard of an event at the 5 % level {basis}.")
    told = "; ".join(f"{hazard.name}: × {interval(hazard.ratio)}, p {p_value(hazard.p_adjusted)}" for hazard in found)
    return Note(f"The hazard of an event changes with {told} {basis}.")


def _forest(model: CoxModel) -> Figure:
    hazards = list(reversed(model.hazards))
    return Figure(
        key="hazard-ratios",
        title="Hazard ratios (Cox)",
        x_label="hazard ratio, with 95 % interval; right of 1: earlier events",
        y_label="",
        series=[
            Series(
                label="hazard ratio",
                x=[hazard.ratio.value for hazard in hazards],
                y=[hazard.name for hazard in hazards],
                lower=[hazard.ratio.lower for hazard in hazards],
                upper=[hazard.ratio.upper for hazard in hazards],
                shape="points",
            )
        ],
        description="; ".join(f"{hazard.name}: {interval(hazard.ratio)}" for hazard in model.hazards) + ".",
        forest=True,
    )


def _dose_hazards(study: Study) -> list[Block]:
    """The effect of p_shock within each model: who derails with prediction errors, and who does not."""
    dose = [factor for factor in study.factors if factor.path == DOSE]
    groups = strata(study)[1:]
    if not dose or not groups:
        return []
    blocks: list[Block] = []
    rows = []
    for label, frame in groups:
        try:
            model = cox(frame, covariates(dose))
        except CannotFit as exc:
            blocks.append(Note(f"{label}: {exc}"))
            continue
        hazard = model.hazards[0]
        rows.append([label, hazard.name, hazard.ratio, hazard.p, model.n, model.events, model.method])
    columns = ("Model", "Covariate", "Hazard ratio (95 % CI)", "p", "n", "Events", "Method")
    return [Table("Effect of p_shock within each model", columns, rows), *blocks] if rows else blocks


def _logrank_blocks(study: Study) -> list[Block]:
    """One test a factor, corrected over factors; then pairs of levels, corrected within the factor."""
    blocks: list[Block] = []
    overall: list[Test] = []
    for factor in study.factors:
        try:
            overall.append(logrank(study.analysed, factor.path, factor.levels, show))
        except CannotFit as exc:
            blocks.append(Note(str(exc)))
    named = {factor.path: factor.label for factor in study.factors}
    if overall:
        blocks.append(tests_table("Do curves differ at all?", correct(overall), named))
    for factor in study.factors:
        if 2 < len(factor.levels) <= PAIRS:
            pairs = partial(pairwise_logrank, study.analysed, factor.path, factor.levels, show)
            blocks += attempt(lambda pairs=pairs, factor=factor: [tests_table(f"Pairs of {factor.label}", pairs())])
    return blocks


def tests_table(title: str, tests: Sequence[Test], named: dict[str, str] | None = None) -> Table:
    """Tests, each with its effect size."""
    rows = [
        [(named or {}).get(t.subject, t.subject), t.n, t.events, t.statistic, t.df, t.p, t.p_adjusted, t.effect, t.size, t.method]
        for t in tests
    ]  # fmt: skip
    return Table(title, TEST_COLUMNS, rows)
