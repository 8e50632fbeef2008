"""Adaptive replications: what each look found, what was decided, and what that saved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from vendomini.adaptive.looks import PairPath, State
from vendomini.analysis.report.content import Block, Facets, Figure, Note, Series, Table, slug
from vendomini.analysis.statistics.estimate import Estimate
from vendomini.analysis.tables.study import Study, show

DECISIONS = {
    "shorter": "shortens survival",
    "longer": "lengthens survival",
    "futile": "stopped for futility: hardly to be found with all seeds",
    "not shown": "not found with all seeds",
    None: "open",
}


def adaptive_blocks(study: Study) -> list[Block]:
    """The looks that were taken; nothing if the number of replications was fixed."""
    return [block for state in study.looks for block in _blocks(state)]


def _blocks(state: State) -> Iterable[Block]:
    first, level = state.design.looks[0], f"{1 - state.design.alpha:.0%}".replace("%", " %")
    saved = 1 - len(state.asked) / state.most
    yield Note(
        f"Replications of {state.name} are adaptive: {state.sentence}, {saved:.0%} fewer. How many seeds a cell has "
        f"depends on what was found, so contrasts over several doses use its first {first} seeds only, which all cells "
        "have; figures and tests further down use all runs, and are exploratory."
    )
    columns = ("Model", state.dose, "Decision", "Seeds", "Looks", f"Difference to {state.dose} 0 ({level} CI), steps",
               "Bound at the last look, ± steps")  # fmt: skip
    note = (
        "Mean survival at the dose less that without any, seed by seed. The test compares it with random signs of the "
        f"seeds' differences, at {state.design.alpha:g} over all looks together (Lan and DeMets, like O'Brien and "
        "Fleming). Values and intervals are right after stopping: the value is median-unbiased, and outcomes are "
        "ordered by when they stopped. There is none where too few seeds differ."
    )
    yield Table("Adaptive replications", columns, [_row(path) for path in state.paths], note)
    models = dict.fromkeys(path.pair.model for path in state.paths)
    yield Facets("adaptive", "Looks at each dose", [_figure(state, model) for model in models])


def _row(path: PairPath) -> list[object]:
    effect = Estimate(*path.effect) if path.verdict else Estimate(math.nan, math.nan, math.nan)
    bound = path.bounds[-1] if path.bounds and math.isfinite(path.bounds[-1]) else math.nan
    return [show(path.pair.model), path.pair.dose, DECISIONS[path.verdict], path.blocks, len(path.means), effect, bound]


def _figure(state: State, model: str) -> Figure:
    """Each dose's path in units of the root of its sum of squares, in which bounds are much alike."""
    paths = [path for path in state.paths if path.pair.model == model]
    lines = [
        Series(
            label=f"{state.dose} {path.pair.dose:g}",
            x=list(state.design.looks[: len(path.means)]),
            y=_standardised(path, path.means),
            shape="points+line",
        )
        for path in paths
    ]
    told = "; ".join(f"{path.pair.dose:g} {DECISIONS[path.verdict]} ({path.blocks} seeds)" for path in paths)
    return Figure(
        key=slug(f"adaptive-{model}"),
        title=show(model),
        x_label="seeds",
        y_label="standardised difference",
        series=[_bounds(state, paths), *lines],
        description=f"{show(model)}, {state.dose}: {told}. Outside the bounds (mean over doses) a dose is decided.",
    )


def _standardised(path: PairPath, values: Sequence[float]) -> list[float]:
    """A mean difference, or a bound of it, at each look."""
    sizes = [math.sqrt(float((path.differences[:seeds] ** 2).sum())) for seeds in path.design.looks]
    looks = zip(values, path.design.looks, sizes, strict=False)
    return [value * seeds / size if size else 0.0 for value, seeds, size in looks]


def _bounds(state: State, paths: Sequence[PairPath]) -> Series:
    """Upper bounds from left to right, then lower ones back, at the looks that could decide."""
    at: dict[int, list[float]] = {}
    for path in paths:
        for seeds, bound in zip(state.design.looks, _standardised(path, path.bounds), strict=False):
            if bound and math.isfinite(bound):
                at.setdefault(seeds, []).append(bound)
    points = [(seeds, sum(bounds) / len(bounds)) for seeds, bounds in sorted(at.items())]
    edge = points + [(seeds, -bound) for seeds, bound in reversed(points)]
    return Series("bounds", [seeds for seeds, _ in edge], [bound for _, bound in edge])
