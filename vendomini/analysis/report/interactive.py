"""Figures for plotly.js: plain JSON; the page's script gives them their colours, light or dark."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from vendomini.analysis.report.content import Figure, Heatmap, Series, log_ticks
from vendomini.analysis.report.palette import colours, dash

Json = dict[str, Any]

BANDS_SHOWN = 4
"""If there are more lines than this, their bands are hidden at first."""


def plotly_figure(figure: Figure | Heatmap) -> Json:
    """``{data, layout}`` for ``Plotly.newPlot``; ``meta.light`` and ``meta.dark`` of a trace are its colours."""
    if isinstance(figure, Heatmap):
        return _heatmap(figure)
    shades = colours(len(figure.series), ordered=figure.ordered)
    data: list[Json] = []
    for index, (series, shade) in enumerate(zip(figure.series, shades, strict=True)):
        meta = {"light": shade[0], "dark": shade[1]}
        data += _band(series, meta, index, shown=len(figure.series) <= BANDS_SHOWN)
        data.append(_trace(series, meta, index, figure))
        data += _marks(series, meta, index)
    return {"data": data, "layout": _layout(figure)}


def _trace(series: Series, meta: Json, index: int, figure: Figure) -> Json:
    points = series.shape.startswith("points")
    trace: Json = {
        "type": "scatter",
        "mode": {"points": "markers", "points+line": "lines+markers"}.get(series.shape, "lines"),
        "name": _text(series.label),
        "legendgroup": str(index),
        "x": _rounded(series.x),
        "y": _rounded(series.y),
        "meta": {**meta, "role": "area" if series.shape == "stack" else "line"},
        "line": {
            "width": 2,
            "dash": dash(index, ordered=figure.ordered),
            "shape": "hv" if _stepped(series) else "linear",
        },
    }
    if series.shape == "stack":
        trace |= {"stackgroup": "all", "line": {"width": 1, "shape": "hv"}}
    if points:
        trace["marker"] = {"size": 9, "symbol": index % 8}
        trace |= _bars(series, "x" if figure.forest else "y")
    return trace


def _bars(series: Series, axis: str) -> Json:
    if not series.lower:
        return {}
    centre = series.x if axis == "x" else series.y
    plus = [u - c if math.isfinite(u) else None for u, c in zip(series.upper, centre, strict=True)]
    minus = [c - low if math.isfinite(low) else None for low, c in zip(series.lower, centre, strict=True)]
    return {f"error_{axis}": {"type": "data", "symmetric": False, "array": plus, "arrayminus": minus, "thickness": 1.5}}


def _band(series: Series, meta: Json, index: int, *, shown: bool) -> list[Json]:
    """A closed outline: along the upper bound, and back along the lower one."""
    if not series.lower or series.shape.startswith("points"):
        return []
    x, upper, lower = _outline(series)
    return [{
        "type": "scatter", "mode": "lines", "x": _rounded(x + x[::-1]), "y": _rounded(upper + lower[::-1]),
        "fill": "toself", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": str(index),
        "meta": {**meta, "role": "band"}, "visible": shown,
    }]  # fmt: skip


def _outline(series: Series) -> tuple[list[float], list[float], list[float]]:
    """Points of the bounds; for a step line, with its corners. The band ends where a bound is unknown."""
    kept = [
        (x, low, high)
        for x, low, high in zip(series.x, series.lower, series.upper, strict=True)
        if math.isfinite(low) and math.isfinite(high)
    ]
    if not _stepped(series):
        return [p[0] for p in kept], [p[2] for p in kept], [p[1] for p in kept]
    corners = []
    for before, after in itertools.pairwise(kept):
        corners += [before, (after[0], before[1], before[2])]
    corners += kept[-1:]
    return [p[0] for p in corners], [p[2] for p in corners], [p[1] for p in corners]


def _marks(series: Series, meta: Json, index: int) -> list[Json]:
    """Ticks where runs were censored, one for each distinct time."""
    if not series.marks:
        return []
    times = sorted(set(series.marks))
    heights = [height_at(series, time) for time in times]
    name = f"{_text(series.label)}, censored"
    return [{
        "type": "scatter", "mode": "markers", "x": _rounded(times), "y": _rounded(heights),
        "marker": {"symbol": "line-ns-open", "size": 9}, "name": name, "showlegend": False,
        "legendgroup": str(index), "meta": {**meta, "role": "marks"},
    }]  # fmt: skip


def height_at(series: Series, time: float) -> float:
    """The value of a step line at a time."""
    heights = [y for x, y in zip(series.x, series.y, strict=True) if x <= time]
    return float(heights[-1]) if heights else 1.0


def legend_needed(figure: Figure) -> bool:
    """A single line is named by the title, a single area is not."""
    return len(figure.series) > 1 or any(series.shape == "stack" for series in figure.series)


def extent(figure: Figure, axis: str) -> list[float]:
    """Every number that an axis has to show, bounds of intervals included."""
    bounded = "x" if figure.forest else "y"
    names = [axis, "lower", "upper"] if axis == bounded else [axis]
    return [float(value) for series in figure.series for name in names for value in getattr(series, name)]


def _stepped(series: Series) -> bool:
    return series.shape in {"step", "stack"}


def _layout(figure: Figure) -> Json:
    x: Json = {"title": {"text": _text(figure.x_label)}, "type": "-"}
    x |= _logarithmic(extent(figure, "x")) if figure.x_log or figure.forest else {}
    y: Json = {"title": {"text": _text(figure.y_label)}, "type": "-", "automargin": True}
    y |= _logarithmic(extent(figure, "y")) if figure.y_log else {}
    if figure.y_range:
        y["range"] = list(figure.y_range)
    layout: Json = {"xaxis": x, "yaxis": y, "height": 420, "showlegend": legend_needed(figure)}
    if figure.legend:
        layout["legend"] = {"title": {"text": _text(figure.legend)}}
    if figure.forest:
        layout["height"] = 140 + 34 * max(len(series.x) for series in figure.series)
        layout["shapes"] = [
            {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot"}}
        ]
    return layout


def _logarithmic(values: Sequence[float]) -> Json:
    ticks = log_ticks([float(value) for value in values])
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _heatmap(figure: Heatmap) -> Json:
    reach = max((abs(value) for row in figure.values for value in row), default=1.0) or 1.0
    columns, rows = ([_text(name) for name in names] for names in (figure.columns, figure.rows))
    trace = {
        "type": "heatmap", "x": columns, "y": rows, "z": [list(row) for row in figure.values],
        "text": [list(row) for row in figure.texts], "texttemplate": "%{text}", "zmin": -reach, "zmax": reach,
        "colorbar": {"title": {"text": "residual"}}, "meta": {"role": "heat"},
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": figure.x_label}, "type": "category"}, "height": 160 + 44 * len(figure.rows),
        "yaxis": {"title": {"text": figure.y_label}, "type": "category", "automargin": True},
    }  # fmt: skip
    return {"data": [trace], "layout": layout}


def _text(value: object) -> str:
    """Plotly reads some tags in its labels; what comes from data is plain text. A comparison takes two lines."""
    return escape(str(value), quote=False).replace(" vs ", "<br>vs ")


def _rounded(values: Sequence[object]) -> list[object]:
    """Values rounded to five digits, more than a screen shows; those that are not finite become gaps."""
    return [_rounded_number(value) if isinstance(value, int | float) else _text(value) for value in values]


def _rounded_number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
