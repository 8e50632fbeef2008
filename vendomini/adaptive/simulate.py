"""What adaptive replications would save: whole phases, made up for an assumed effect."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy

from vendomini.adaptive.sequential import Decisions, Design, Floats, decide
from vendomini.config import Phase, expand
from vendomini.config.models import NAME

DERAIL = 0.5
"""What is assumed where nothing is known."""
FRAILTY = 0.3
"""Standard deviation of the logarithm of a seed's hazard: some seeds are harder than others, for all cells alike."""
RATIOS = (1.0, 2.0, 3.0, 4.0, 8.0)
"""Hazard ratios that are assumed in turn."""
LOOKS = 3200
"""Looks at pairs, over which each of these is foreseen: a second's work."""
AT_ONCE = 100
"""Pairs that are decided together, for want of memory for more."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One model's share of a phase.

    Attributes:
        doses: above 0.
        cells, at_zero: of each dose and of dose 0.
        horizon: steps.
        derail: share of the runs without any dose that an event ends.
    """

    doses: int
    cells: int
    at_zero: int
    horizon: int
    derail: float = DERAIL

    @property
    def hazard(self) -> float:
        """A step's, without any dose, of a seed of median frailty."""
        return -math.log(1 - self.derail) / self.horizon

    @classmethod
    def of(cls, phase: Phase) -> Shape:
        """The shape that each of a phase's models has."""
        world, axes = phase.world, phase.axes
        inert = math.prod(len(axes[path]) for path in world.inert_without_dose if path in axes)
        apart = {NAME, world.dose, *world.inert_without_dose}
        others = math.prod(len(values) for path, values in axes.items() if path not in apart)
        doses = sum(1 for dose in axes[world.dose] if dose != 0)
        return cls(doses, others * inert, others, next(expand(phase)).horizon)


@dataclass(frozen=True, slots=True)
class Phases:
    """Made-up phases of one model, every dose with the same effect.

    Attributes:
        differences: (phases, doses, seeds) in steps.
        steps, steps_at_zero: (phases, doses, seeds) and (phases, seeds), over the cells.
    """

    differences: Floats
    steps: Floats
    steps_at_zero: Floats


@dataclass(frozen=True, slots=True)
class Expected:
    """Means over made-up phases.

    Attributes:
        blocks: seeds of a pair.
        share: of the steps that all cells would take with all seeds.
        shorter: share of the pairs that are found to be shorter.
        found: share that is found to be shorter or longer.
    """

    blocks: float
    share: float
    shorter: float
    found: float


def simulate(shape: Shape, design: Design) -> dict[float, Expected]:
    """Hazard ratio of every dose → what it would cost, and how much would be found; always the same."""
    phases = max(LOOKS // len(design.looks) // shape.doses, 4)
    found = {}
    for ratio in RATIOS:
        made = make(shape, design.most, ratio, phases, numpy.random.default_rng(0))
        found[ratio] = expected(made, decide_all(made, design), design)
    return found


def make(shape: Shape, seeds: int, ratio: float, phases: int, rng: numpy.random.Generator) -> Phases:
    """Phases in which a dose multiplies a constant hazard by ``ratio``."""
    hazard = shape.hazard * numpy.exp(rng.normal(0, FRAILTY, (phases, 1, seeds, 1)))

    def times(doses: int, cells: int, factor: float) -> Floats:
        drawn = rng.exponential(1.0, (phases, doses, seeds, cells)) / (hazard * factor)
        lasted: Floats = numpy.minimum(numpy.ceil(drawn), shape.horizon)
        return lasted

    dosed, zero = times(shape.doses, shape.cells, ratio), times(1, shape.at_zero, 1.0)
    return Phases(dosed.mean(axis=3) - zero.mean(axis=3), dosed.sum(axis=3), zero.sum(axis=3)[:, 0])


def decide_all(phases: Phases, design: Design) -> Decisions:
    """Decide all pairs, phase by phase."""
    pairs = phases.differences.reshape(-1, phases.differences.shape[2])
    parts = [decide(pairs[start : start + AT_ONCE], design) for start in range(0, len(pairs), AT_ONCE)]
    return Decisions(*(numpy.concatenate([getattr(p, name) for p in parts]) for name in ("verdicts", "ends", "bounds")))


def expected(phases: Phases, decisions: Decisions, design: Design) -> Expected:
    """What it cost, and what was found. Dose 0 goes on as long as any pair needs it."""
    blocks = numpy.array(design.looks)[decisions.ends].reshape(phases.differences.shape[:2])
    seed = numpy.arange(design.most)
    taken = (phases.steps * (seed < blocks[:, :, None])).sum()
    taken += (phases.steps_at_zero * (seed < blocks.max(axis=1)[:, None])).sum()
    return Expected(
        blocks=float(blocks.mean()),
        share=float(taken / (phases.steps.sum() + phases.steps_at_zero.sum())),
        shorter=float((decisions.verdicts == 0).mean()),
        found=float((decisions.verdicts <= 1).mean()),
    )
