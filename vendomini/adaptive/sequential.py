"""A paired test that may be looked at while seeds come in, and an interval that is right after it has stopped.

Each seed gives one difference in survival, at a dose less without one. If the dose does nothing, a difference and its
negative are equally likely, so the test needs no normal distribution: what was seen is compared with the same numbers
under random signs (Dwass, Annals of Mathematical Statistics 28, 1957), along the whole path of looks. At each look the
boundary lets as many of the flipped paths cross as the spending function allows by then (Lan & DeMets, Biometrika 70,
1983; the one that resembles O'Brien and Fleming's). What could not be spent on few seeds is spent later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Literal

import numpy
from numpy.typing import NDArray

Verdict = Literal["shorter", "longer", "futile", "not shown"]
"""The dose shortens survival, lengthens it, would hardly be seen to shorten it with all seeds, or was not by then."""
VERDICTS: tuple[Verdict, ...] = ("shorter", "longer", "futile", "not shown")
OPEN = -1

FLIPS = 8192
"""Paths, the observed one included."""
FEWEST = 6
"""Seeds that differ at all, of which the smallest p-value is below 0.05: with fewer there is no interval."""
DRIFT = 3.2415
"""Mean of the test statistic over all seeds, at the effect that a fixed design at 5 % finds nine times in ten."""
REACH = 0.35
"""Chance of still finding that effect, below which a pair stops for futility."""
LONGER = 2.0
"""Student's t beyond which the dose may well lengthen survival: then going on is not futile."""
GRAIN = 2.0**-20
"""Differences are multiples of this many steps: then sums are exact, and the same on every machine."""

_normal = NormalDist()
Floats = NDArray[numpy.float64]


@dataclass(frozen=True, slots=True)
class Design:
    """When looks are taken, and what they decide.

    Attributes:
        looks: numbers of seeds, the last the most that there may be.
        alpha: two-sided level, over all looks.
        futility: a pair may stop for futility; the level holds without this, too.
    """

    looks: tuple[int, ...]
    alpha: float
    futility: bool = True

    @classmethod
    def every(cls, least: int, most: int, alpha: float) -> Design:
        """A look after each ``least`` seeds, and at ``most``."""
        return cls((*range(least, most, least), most), alpha)

    @property
    def most(self) -> int:
        return self.looks[-1]


@dataclass(frozen=True, slots=True)
class Decisions:
    """What was decided about several pairs.

    Attributes:
        verdicts: (pairs,) index into ``VERDICTS``, or ``OPEN``.
        ends: (pairs,) index of the look that decided, or of the last one taken (−1: none).
        bounds: (pairs, looks) a sum of the differences beyond it, on either side, decides, in steps; infinite where
            none could, and after the decision.
    """

    verdicts: NDArray[numpy.int64]
    ends: NDArray[numpy.int64]
    bounds: Floats


def spent(share: float, alpha: float) -> float:
    """How much of the two-sided level may be spent by the time that this share of the seeds is in."""
    return 4 * (1 - _normal.cdf(_normal.inv_cdf(1 - alpha / 4) / math.sqrt(share)))


def futile_below(share: float, alpha: float) -> float:
    """The statistic below which all seeds would hardly find even the effect of ``DRIFT``: conditional power (Lan, Simon
    & Halperin, Sequential Analysis 1, 1982)."""
    left = 1 - share
    needed = _normal.inv_cdf(1 - alpha / 2)
    return (needed - DRIFT * left + _normal.inv_cdf(REACH) * math.sqrt(left)) / math.sqrt(share)


def decide(differences: Floats, design: Design) -> Decisions:
    """Looks at pairs whose first so many seeds are in.

    Args:
        differences: (pairs, seeds) in steps, negative where the dose shortens survival.
    """
    values = exact(differences)
    pairs, seeds = values.shape
    found = Decisions(numpy.full(pairs, OPEN), numpy.full(pairs, -1), numpy.full((pairs, len(design.looks)), math.inf))
    flips = _flips(design.most)
    rows, sums, inside, before = numpy.arange(pairs), numpy.zeros((pairs, FLIPS)), numpy.ones((pairs, FLIPS), bool), 0
    for look, blocks in enumerate(design.looks):
        if blocks > seeds or not len(rows):
            break
        sums += values[rows, before:blocks] @ flips[before:blocks]
        sizes = numpy.where(inside, abs(sums), -1.0)
        allowed = math.floor(FLIPS * spent(blocks / design.most, design.alpha) + 1e-9)
        bounds = _bounds(sizes, allowed - (~inside).sum(axis=1))
        crossed = sizes > bounds[:, None]
        found.ends[rows], found.bounds[rows, look] = look, bounds
        found.verdicts[rows] = _verdicts(crossed[:, 0], sums[:, 0], values[rows, :blocks], design)
        open_ = found.verdicts[rows] == OPEN
        rows, sums, inside, before = rows[open_], sums[open_], (inside & ~crossed)[open_], blocks
    return found


def _bounds(sizes: Floats, allowed: NDArray[numpy.int64]) -> Floats:
    """(pairs,) the lowest bound that at most so many of the sizes, (pairs, flips), exceed; infinite where none does."""
    most = int(allowed.max())
    if not most:
        return numpy.full(len(sizes), math.inf)
    top = -numpy.sort(numpy.partition(-sizes, most, axis=1)[:, : most + 1], axis=1)
    bounds = numpy.take_along_axis(top, allowed[:, None], axis=1)[:, 0]
    return numpy.where(top[:, 0] > bounds, bounds, math.inf)


def _verdicts(crossed: NDArray[numpy.bool_], sums: Floats, values: Floats, design: Design) -> NDArray[numpy.int64]:
    """The verdicts on pairs that were open, from the sums of these seeds' values."""
    blocks = values.shape[1]
    share = blocks / design.most
    verdicts = numpy.full(len(sums), VERDICTS.index("not shown") if share == 1 else OPEN)
    if share < 1 and design.futility:
        known = ((values != 0).sum(axis=1) >= FEWEST) | (share > 0.5)
        verdicts[known & _futile(sums, (values**2).sum(axis=1), blocks, design)] = VERDICTS.index("futile")
    verdicts[crossed] = numpy.where(sums[crossed] < 0, VERDICTS.index("shorter"), VERDICTS.index("longer"))
    return verdicts


def _futile(sums: Floats, squares: Floats, blocks: int, design: Design) -> NDArray[numpy.bool_]:
    """Whether going on is, by Student's t of the differences: 0 where nothing differs."""
    variance = numpy.maximum(squares - sums**2 / blocks, 0.0) / (blocks - 1)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        statistic = numpy.where(sums == 0, 0.0, sums / numpy.sqrt(blocks * variance))
    futile: NDArray[numpy.bool_] = (-statistic < futile_below(blocks / design.most, design.alpha)) & (
        statistic < LONGER
    )
    return futile


def interval(differences: Floats, design: Design, bounds: Floats, end: int) -> tuple[float, float, float]:
    """Median-unbiased estimate of the mean difference, and its interval, whose level is 1 − alpha (limits last).

    Paths that stopped earlier count as more extreme than those that stopped later (stage-wise ordering, Tsiatis, Rosner
    & Mehta, Biometrics 40, 1984). A limit is the shift under which what was seen is just too extreme, under random
    signs of the shifted differences. NaN where too few seeds differ.

    Args:
        differences: (seeds,) up to the look that decided.
        bounds: (looks,) as :func:`decide` gave them.
        end: index of that look.
    """
    values = exact(differences)
    if (values != 0).sum() < FEWEST or numpy.ptp(values) == 0:
        return math.nan, math.nan, math.nan
    order = StageWise(values, design, bounds, end)
    reach = 4 * (float(numpy.ptp(values)) + 1)
    middle = float(values.mean())
    half = design.alpha / 2
    low = _root(lambda shift: order.above(shift) - half, middle - reach, middle)
    high = _root(lambda shift: half - order.below(shift), middle, middle + reach)
    value = _root(lambda shift: order.above(shift) - order.below(shift), low, high)
    return value, low, high


class StageWise:
    """How extreme what was seen is, if the true mean difference is a given shift."""

    def __init__(self, values: Floats, design: Design, bounds: Floats, end: int) -> None:
        self._design, self._values, self._end = design, values, end
        flips, looks = _flips(design.most), design.looks[: end + 1]
        self._sums = [values[:blocks] @ flips[:blocks] for blocks in looks]
        self._signs = [flips[:blocks].sum(axis=0) for blocks in looks]
        sizes = [math.sqrt(float((values[:blocks] ** 2).sum())) or 1.0 for blocks in looks]
        self._bounds = [bound / size for bound, size in zip(bounds, sizes, strict=False)]

    def below(self, shift: float) -> float:
        """Chance of what was seen or of what speaks more for a shorter survival."""
        low, _, here = self._paths(shift)
        return float((low | (here <= self._values.sum() + GRAIN)).mean())

    def above(self, shift: float) -> float:
        """Chance of what was seen or of what speaks more for a longer survival."""
        _, high, here = self._paths(shift)
        return float((high | (here >= self._values.sum() - GRAIN)).mean())

    def _paths(self, shift: float) -> tuple[NDArray[numpy.bool_], NDArray[numpy.bool_], Floats]:
        """(flips,) which stopped earlier, low and high; and the sums of the others, NaN for those that stopped."""
        low, high = numpy.zeros(FLIPS, bool), numpy.zeros(FLIPS, bool)
        for look, blocks in enumerate(self._design.looks[: self._end + 1]):
            residual = self._sums[look] - shift * self._signs[look]
            sums = blocks * shift + residual
            if look == self._end:
                return low, high, numpy.where(low | high, math.nan, sums)
            own = float(((self._values[:blocks] - shift) ** 2).sum())
            squares = numpy.maximum(blocks * shift**2 + 2 * shift * residual + own, GRAIN)
            sizes = sums / numpy.sqrt(squares)
            open_ = ~(low | high)
            low |= open_ & (sizes < -self._bounds[look])
            futile = self._design.futility & _futile(sums, squares, blocks, self._design)
            high |= open_ & ~low & ((sizes > self._bounds[look]) | futile)
        raise AssertionError("there is a last look")


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find by bisection where an increasing function becomes positive."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return (low + high) / 2


def exact(differences: Floats) -> Floats:
    """Rounded to ``GRAIN``."""
    return numpy.round(numpy.asarray(differences, float) / GRAIN) * GRAIN


@cache
def _flips(seeds: int) -> Floats:
    """(seeds, flips) of +1 and −1; the first path is the one observed. A seed's signs are always the same: those of a
    bit generator, whose stream no version of numpy may change."""
    words = [numpy.random.PCG64(seed).random_raw(FLIPS // 64) for seed in range(seeds)]
    signs = numpy.unpackbits(numpy.array(words, "<u8").view(numpy.uint8), axis=1).astype(float) * 2 - 1
    signs[:, 0] = 1.0
    return signs
