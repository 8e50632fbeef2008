"""What the statistics share: an estimate with its interval, corrections, and the way to say why there is no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


class CannotFit(Exception):
    """A statistic does not exist for these data; its text is the sentence that stands in its place."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval: ``inf`` where it lies beyond what was observed, NaN where there is none."""

    value: float
    lower: float
    upper: float

    def __sub__(self, other: Estimate) -> Estimate:
        """The difference of two independent estimates with symmetric normal intervals."""
        half = math.hypot(self.upper - self.value, other.upper - other.value)
        value = self.value - other.value
        return Estimate(value, value - half, value + half)


@dataclass(frozen=True, slots=True)
class Test:
    """A hypothesis test, never without the size of the effect.

    Attributes:
        subject: what is compared.
        method: which test, and which correction.
        statistic, df, p: as the test gives them.
        p_adjusted: after Holm's correction over the family of tests shown together.
        effect: name of the effect's measure, with its unit.
        size: the effect, with its interval where it has one.
        n, events: runs and observed events.
    """

    subject: str
    method: str
    n: int
    events: int
    statistic: float
    df: float
    p: float
    p_adjusted: float
    effect: str
    size: Estimate


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order (Scandinavian Journal of Statistics 6, 1979)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
