"""Claim 12: adaptive replications err as seldom as a fixed number does, find as much, and cost less."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy

from benchmarks.validity.claim import Claim
from benchmarks.validity.drive import pool
from vendomini.adaptive.sequential import FEWEST, VERDICTS, Decisions, Design, Floats, StageWise
from vendomini.adaptive.simulate import FRAILTY, Phases, Shape, decide_all, expected, make

DESIGN = Design.every(5, 40, 0.05)
MODELS = 3
PHASE_1 = Shape(doses=10, cells=4, at_zero=2, horizon=500)
"""Of each of its three small models: two magnitudes and two prediction modes, and at dose 0 the modes."""
FEWER = 5
"""Other shapes have so many times fewer phases."""
SHAPES: dict[str, tuple[Shape, tuple[float, ...]]] = {
    "phase 1, small models": (PHASE_1, (1, 1.5, 2, 4, 8)),
    "the same, events in 1 of 7 runs at dose 0": (Shape(10, 4, 2, 500, derail=0.15), (1, 4)),
    "one cell a dose, two doses": (Shape(2, 1, 1, 500), (1, 2, 4, 8)),
}
AT_ONCE = 5
"""Phases that one process makes together."""
LEVEL, POWER, SHARE = 0.05, 0.02, {1.0: 0.6, 4.0: 0.45}
"""Allowed: errors of the first kind, power lost, and the share of GPU-hours at a hazard ratio in phase 1."""
EFFECT = 2.0
"""Hazard ratio from which on this much power is kept."""
COVERED = (0.93, 0.97)


@dataclass(frozen=True, slots=True)
class Part:
    """Sums over some phases: of shares of steps and seeds of a pair, and counts of pairs."""

    share: float
    blocks: float
    pairs: int
    found: int
    shorter: int
    to_the_end: int
    at_any_look: int
    fixed: int
    covered: int
    intervals: int


def adaptive(experiments: int) -> Claim:
    """Over five times as many made-up phases of the shape of phase 1, and fewer of others."""
    phases, rows, failures = 5 * experiments, [], []
    for name, (shape, ratios) in SHAPES.items():
        for ratio in ratios:
            number = phases // AT_ONCE if shape == PHASE_1 else math.ceil(phases / AT_ONCE / FEWER)
            parts = list(pool().map(partial(_part, shape, ratio), range(number)))
            whole = Part(*(sum(getattr(part, key) for part in parts) for key in Part.__slots__))
            share, blocks = whole.share / len(parts), whole.blocks / len(parts)
            covered = whole.covered / max(whole.intervals, 1)
            rows.append([
                name, ratio, f"{blocks:.1f}", f"{share:.1%}", f"{whole.shorter / whole.pairs:.1%}",
                f"{whole.fixed / whole.pairs:.1%}",
                f"{whole.found / whole.pairs:.1%}, {_ever(whole):.1%}" if ratio == 1 else "–",
                f"{covered:.1%}",
            ])  # fmt: skip
            failures += [f"{name}, hazard ratio {ratio:g}: {what}" for what in _failures(shape, ratio, share, whole)]
    header = ["phase", "hazard ratio put in", "seeds of a pair, of 40", "GPU-hours, of those with 40 seeds",
              "found to be shorter", "by a t-test on 40 seeds", "found at hazard ratio 1; without futility",
              "covered by the 95 % interval"]  # fmt: skip
    criterion = (
        f"Over {phases:,} phases with 5 to 40 seeds, at most {LEVEL:.0%} of the doses without effect are found to have "
        f"one at any look; in phase 1 as many are found as with 40 seeds, less {100 * POWER:.0f} points at most (from "
        f"hazard ratio {EFFECT:g}), for at most {SHARE[1.0]:.0%} of the GPU-hours at hazard ratio 1 and "
        f"{SHARE[4.0]:.0%} at 4; intervals cover the true difference in {COVERED[0]:.0%} to {COVERED[1]:.0%}."
    )
    return Claim("adaptive", criterion, header, rows, failures)


def _failures(shape: Shape, ratio: float, share: float, whole: Part) -> Iterator[str]:
    """Chance is allowed for: 2.9 standard errors of as many phases, whose pairs share their runs at dose 0."""
    phases = whole.pairs / shape.doses
    chance = 2.9 * math.sqrt(LEVEL * (1 - LEVEL) / phases)
    if ratio == 1 and _ever(whole) > LEVEL + chance * math.sqrt(whole.pairs / whole.to_the_end):
        yield f"{_ever(whole):.1%} are found"
    lost = (whole.fixed - whole.shorter) / whole.pairs
    if shape == PHASE_1 and ratio >= EFFECT and lost > POWER + chance / 2:
        yield f"{lost:.1%} fewer are found"
    if shape == PHASE_1 and share > SHARE.get(ratio, 1.0) + 1 / phases:
        yield f"{share:.1%} of the GPU-hours"
    low, high = (limit + side * chance for limit, side in zip(COVERED, (-1, 1), strict=True))
    if not low <= whole.covered / max(whole.intervals, 1) <= high:
        yield f"covered in {whole.covered / whole.intervals:.1%}"


def _ever(whole: Part) -> float:
    """Share of pairs that are found at any look, if none stops for futility."""
    return whole.at_any_look / whole.to_the_end


def _part(shape: Shape, ratio: float, number: int) -> Part:
    rng = numpy.random.default_rng((17, int(10 * ratio), number))
    made = make(shape, DESIGN.most, ratio, AT_ONCE * MODELS, rng)
    found = decide_all(made, DESIGN)
    pairs = made.differences.reshape(-1, DESIGN.most)
    means = expected(made, found, DESIGN)
    whole = ratio == 1 and number % FEWER == 0
    covered = [_covers(pairs[k], found, k, _truth(shape, ratio)) for k in range(0, len(pairs), shape.doses)]
    return Part(
        share=means.share,
        blocks=means.blocks,
        pairs=len(pairs),
        found=int((found.verdicts <= VERDICTS.index("longer")).sum()),
        shorter=int((found.verdicts == 0).sum()),
        to_the_end=len(pairs) if whole else 0,
        at_any_look=_at_any_look(made) if whole else 0,
        fixed=_fixed(made),
        covered=sum(one is True for one in covered),
        intervals=sum(one is not None for one in covered),
    )


def _at_any_look(made: Phases) -> int:
    verdicts = decide_all(made, replace(DESIGN, futility=False)).verdicts
    return int((verdicts <= VERDICTS.index("longer")).sum())


def _fixed(made: Phases) -> int:
    """Pairs that a t-test over all seeds finds to be shorter."""
    from scipy import stats

    test = stats.ttest_1samp(made.differences.reshape(-1, DESIGN.most), 0, axis=1)
    return int(((test.pvalue < LEVEL) & (test.statistic < 0)).sum())


def _covers(values: Floats, found: Decisions, pair: int, truth: float) -> bool | None:
    """None where there is no interval. As its two ends are made, without looking for them."""
    end = int(found.ends[pair])
    seen = values[: DESIGN.looks[end]]
    if (seen != 0).sum() < FEWEST:
        return None
    order = StageWise(seen, DESIGN, found.bounds[pair], end)
    return order.below(truth) >= LEVEL / 2 and order.above(truth) >= LEVEL / 2


@cache
def _truth(shape: Shape, ratio: float) -> float:
    """Mean difference in steps, by summing survival over steps and over the frailty of seeds."""
    deviates = numpy.linspace(-6, 6, 1201)
    weights = numpy.exp(-(deviates**2) / 2)
    hazards = shape.hazard * numpy.exp(FRAILTY * deviates)
    steps = numpy.arange(shape.horizon)[:, None]
    dosed, zero = (numpy.exp(-factor * hazards * steps).sum(axis=0) for factor in (ratio, 1.0))
    return float(numpy.average(dosed - zero, weights=weights))
