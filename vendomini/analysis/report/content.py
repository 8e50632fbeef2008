"""The content of a report, independent of its appearance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vendomini.analysis.statistics.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a figure.

    Attributes:
        label: in the legend.
        x, y: points.
        lower, upper: interval of y (of x in a forest) at each point; empty for none.
        marks: x of the ticks on a step line (censored runs).
        shape: ``step`` (post), ``line``, ``points``, ``points+line`` or ``stack`` (areas on top of each other).
    """

    label: str
    x: Sequence[Any]
    y: Sequence[Any]
    lower: Sequence[float] = ()
    upper: Sequence[float] = ()
    marks: Sequence[float] = ()
    shape: Literal["step", "line", "points", "points+line", "stack"] = "line"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure on one pair of axes.

    Attributes:
        key: file name and id; letters, digits and hyphens.
        title, x_label, y_label: with units.
        series: drawn in order.
        description: what it shows, in a sentence, for those who can't see it.
        ordered: the series are levels of a quantity and get a sequence of colours.
        forest: points with horizontal intervals around 1, on a logarithmic axis.
        x_log, y_log: logarithmic axes.
        y_range: fixed, where it should be.
        legend: what the series are levels of.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    description: str
    ordered: bool = False
    forest: bool = False
    x_log: bool = False
    y_log: bool = False
    y_range: tuple[float, float] | None = None
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A table of numbers as colours around zero, each cell with its text."""

    key: str
    title: str
    x_label: str
    y_label: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]]
    description: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Figures of which one is shown at a time, chosen by two lists.

    Attributes:
        key: id.
        first, second: names of the lists.
        figures: (entry of the first list, entry of the second) → figure.
    """

    key: str
    first: str
    second: str
    figures: dict[tuple[str, str], Figure]


@dataclass(frozen=True, slots=True)
class Facets:
    """Figures side by side on one scale: the same quantity for each of several groups.

    Attributes:
        key: id.
        title: of all of them.
    """

    key: str
    title: str
    figures: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that sorts by any column; cells are text, numbers or estimates."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence. A warning stands out."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Text in a fixed pitch, folded away."""

    title: str
    text: str


Block = Note | Table | Figure | Heatmap | Choice | Facets | Listing


@dataclass(frozen=True, slots=True)
class Section:
    key: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def figures_of(sections: Sequence[Section]) -> list[Figure | Heatmap]:
    """Every figure of a report, in order."""
    found: list[Figure | Heatmap] = []
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block, Choice):
            found += block.figures.values()
        elif isinstance(block, Facets):
            found += block.figures
        elif isinstance(block, Figure | Heatmap):
            found.append(block)
    return found


def log_ticks(values: Sequence[float]) -> list[float]:
    """Ticks of a logarithmic axis over some values: 1, 2, 5 times powers of ten, finer where these are too few."""
    finite = [value for value in values if math.isfinite(value) and value > 0]
    low, high = min(finite, default=1.0), max(finite, default=1.0)
    steps = (1, 2, 5) if high / low > 8 else (1, 1.5, 2, 3, 4, 5, 7) if high / low > 2.5 else (1, *_FINE)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step * 10**power:.3g}") for power in powers for step in steps]
    return [tick for tick in ticks if low / 1.2 <= tick <= high * 1.2]


_FINE = (1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)


def number(value: float, digits: int = 3) -> str:
    """Rounded to ``digits`` significant digits; whole numbers stay whole."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "not reached" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):d}".replace("-", "−")
    text = f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
    return text.replace("-", "−")


def interval(estimate: Estimate, digits: int = 3) -> str:
    """``2.1 (1.7 to 2.6)``; a value without an interval says so."""
    unbounded = math.isinf(estimate.lower) and math.isfinite(estimate.value)
    if math.isnan(estimate.lower) or math.isnan(estimate.upper) or unbounded:
        return f"{number(estimate.value, digits)} (no interval)"
    if math.isinf(estimate.value) and estimate.value == estimate.lower == estimate.upper:
        return number(estimate.value)
    low, high = (number(bound, digits) for bound in (estimate.lower, estimate.upper))
    return f"{number(estimate.value, digits)} ({low} to {high})"


def p_value(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def slug(text: str) -> str:
    """The text as part of a file name or an id."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower())
    return "-".join(part for part in plain.split("-") if part) or "x"
