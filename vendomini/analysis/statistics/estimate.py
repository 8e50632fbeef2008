"""What the statistics share: an estimate with its interval, corrections, and the exception that says why there is no
model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


class CannotFit(Exception):
    """A statistic does not exist for these data; its text is the sentence shown in its place."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval: ``inf`` where it lies beyond what was observed, NaN where there is none."""

    value: float
    lower: float
    upper: float


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
    """Holm's step-down adjusted p-values (Scandinavian Journal of Statistics 6, 1979), in the given order.

    A p-value that is NaN stays so, and is no member of the family.
    """
    adjusted = [math.nan] * len(p_values)
    known = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    highest = 0.0
    for rank, index in enumerate(sorted(known, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
