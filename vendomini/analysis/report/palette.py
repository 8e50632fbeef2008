"""Colours that colour-blind readers can tell apart, on light and on dark; lines differ by their dashes too."""

from __future__ import annotations

CATEGORICAL = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff9a4d"),
    ("#007a5a", "#2fc79a"),
    ("#a4478a", "#e59ac9"),
    ("#8a6d00", "#f0d43c"),
    ("#3f3f46", "#d4d4d8"),
)
"""(on light, on dark), after Okabe and Ito, darkened or lightened to at least 3:1 against the page."""

_SEQUENCE_LIGHT = ("#fca636", "#e16462", "#b12a90", "#6a00a8", "#0d0887")
_SEQUENCE_DARK = ("#7b5cf0", "#c04fc0", "#f0709a", "#fca66a", "#f7ec5a")
"""Even steps in lightness (after Matplotlib's plasma), so that the order shows without hue."""

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def colours(count: int, *, ordered: bool) -> list[tuple[str, str]]:
    """(on light, on dark) for each of ``count`` series."""
    if not ordered:
        return [CATEGORICAL[index % len(CATEGORICAL)] for index in range(count)]
    places = [index / max(count - 1, 1) for index in range(count)]
    return [(_at(_SEQUENCE_LIGHT, place), _at(_SEQUENCE_DARK, place)) for place in places]


def dash(index: int, *, ordered: bool) -> str:
    return "solid" if ordered else DASHES[index % len(DASHES)]


def _at(stops: tuple[str, ...], place: float) -> str:
    position = place * (len(stops) - 1)
    index = min(int(position), len(stops) - 2)
    share = position - index
    start, end = (_channels(stops[index + step]) for step in (0, 1))
    mixed = [round(a + (b - a) * share) for a, b in zip(start, end, strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _channels(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
