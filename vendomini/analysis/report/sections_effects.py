"""What the report says about effects: hazards, tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from vendomini.analysis.report.content import Block, Figure, Note, Section, Series, Table, interval, number, p_value
from vendomini.analysis.report.sections import attempt, by_model, wholes
from vendomini.analysis.statistics.cox import Covariate, CoxModel, cox, proportionality
from vendomini.analysis.statistics.estimate import CannotFit, Test, holm
from vendomini.analysis.statistics.survival import correct, logrank, pairwise_logrank
from vendomini.analysis.tables.study import Factor, Study, show

PAIRS = 6
"""Factors with more levels than this are not compared pair by pair."""

TEST_COLUMNS = ("Comparison", "n", "Events", "χ²", "df", "p", "p, Holm", "Effect", "Size (95 % CI)", "Method")


def effects_section(study: Study) -> Section:
    blocks = attempt(partial(_cox_blocks, study), "Hazard ratios")
    blocks += attempt(partial(_proportionality, study), "Proportional hazards")
    blocks += attempt(
        partial(_dose_hazards, study), f"Effect of {study.dose.label if study.dose else 'the dose'} within each model"
    )
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
    return blocks


def _proportionality(study: Study) -> list[Block]:
    check = proportionality(study.analysed, covariates(study.factors))
    broken = [test.subject for test in check if test.p_adjusted < 0.05]
    blocks: list[Block] = [evidence("Are the hazard ratios the same at all times?", check)]
    if broken:
        names = "; ".join(broken)
        told = (
            f"Hazards are not proportional for {names}: read the ratio as an average over time, and look at the curves."
        )
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
    told = "; ".join(f"{hazard.name}: {interval(hazard.ratio)}" for hazard in model.hazards)
    return Figure(
        key="hazard-ratios",
        title="Hazard ratios (Cox)",
        x_label="hazard ratio (95 % CI)",
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
        description=f"Right of 1, events come earlier. {told}.",
        forest=True,
    )


def _dose_hazards(study: Study) -> list[Block]:
    """The effect of the dose within each model: who derails with prediction errors, and who does not."""
    dose = study.dose
    groups = by_model(study) or (wholes(study) if study.apart else [])
    if dose is None or not groups:
        return []
    blocks: list[Block] = []
    found: list[tuple[str, CoxModel]] = []
    for label, frame in groups:
        try:
            found.append((label, cox(frame, covariates([dose]))))
        except CannotFit as exc:
            blocks.append(Note(f"{label}: {exc}"))
    adjusted = holm([model.hazards[0].p for _, model in found])
    rows = [
        [
            label,
            model.hazards[0].name,
            model.hazards[0].ratio,
            model.hazards[0].p,
            p,
            model.n,
            model.events,
            model.method,
        ]
        for (label, model), p in zip(found, adjusted, strict=True)
    ]
    columns = ("Model", "Covariate", "Hazard ratio (95 % CI)", "p", "p, Holm", "n", "Events", "Method")
    return [Table(f"Effect of {dose.label} within each model", columns, rows), *blocks] if rows else blocks


def _logrank_blocks(study: Study) -> list[Block]:
    """One test a factor, corrected over factors; then pairs of levels, corrected within the factor."""
    blocks: list[Block] = []
    overall: list[Test] = []
    for factor in study.factors:
        try:
            within = study.apart.path if study.apart and factor != study.apart else None
            test = logrank(study.analysed, factor.path, factor.levels, show, strata=within)
            overall.append(replace(test, subject=factor.label))
        except CannotFit as exc:
            blocks.append(Note(str(exc)))
    if overall:
        blocks.append(evidence("Do curves differ at all?", correct(overall)))
    for factor in study.factors:
        if 2 < len(factor.levels) <= PAIRS and study.apart in (None, factor):
            blocks += attempt(partial(_pairs, study, factor), f"Pairs of {factor.label}")
    return blocks


def _pairs(study: Study, factor: Factor) -> list[Block]:
    tests = pairwise_logrank(study.analysed, factor.path, factor.levels, show)
    return [evidence(f"Pairs of {factor.label}", tests)]


def evidence(title: str, tests: Sequence[Test]) -> Table:
    """Tests, each with its effect size."""
    rows = [[t.subject, t.n, t.events, t.statistic, t.df, t.p, t.p_adjusted, t.effect, t.size, t.method] for t in tests]
    return Table(title, TEST_COLUMNS, rows)
