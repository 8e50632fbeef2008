"""Figures for papers: PNG, SVG and PDF, by Matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vendomini.analysis.report.content import Figure, Heatmap, Series, log_ticks
from vendomini.analysis.report.interactive import BANDS_SHOWN, extent, height_at, legend_needed
from vendomini.analysis.report.palette import colours
from vendomini.records import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

FORMATS = ("png", "svg", "pdf")

Style = str | tuple[int, tuple[int, ...]]
"""A dash pattern of Matplotlib."""

_STYLES: tuple[Style, ...] = ("-", "--", ":", "-.", (0, (8, 3)), (0, (8, 3, 2, 3)))
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


def draw(figure: Figure | Heatmap, folder: Path) -> list[Path]:
    """Writes ``<key>.png``, ``.svg`` and ``.pdf``; text stays text in the SVG, and fonts are embedded in the PDF."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    rows = len(figure.rows) if isinstance(figure, Heatmap) else _rows(figure)
    with matplotlib.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": figure.key}):
        canvas = Canvas(figsize=(7.2, rows or 4.5), layout="constrained")
        FigureCanvasAgg(canvas)
        axes: Axes = canvas.add_subplot()
        _heatmap(axes, figure) if isinstance(figure, Heatmap) else _lines(axes, figure)
        axes.set(title=figure.title, xlabel=figure.x_label, ylabel=figure.y_label)
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")  # computed once, for all formats
        paths = [folder / f"{figure.key}.{suffix}" for suffix in FORMATS]
        for path in paths:
            with replacing(path) as file:
                canvas.savefig(file, format=path.suffix[1:], dpi=200, metadata=_undated(path.suffix))
    return paths


def _undated(suffix: str) -> dict[str, None]:
    """Metadata without a date, so that the same data give the same bytes."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})


def _rows(figure: Figure) -> float:
    return 1.2 + 0.4 * max(len(series.x) for series in figure.series) if figure.forest else 0.0


def _lines(axes: Axes, figure: Figure) -> None:
    shades = [light for light, _ in colours(len(figure.series), ordered=figure.ordered)]
    if figure.series and figure.series[0].shape == "stack":
        _stack(axes, figure.series, shades)
    else:
        for index, series in enumerate(figure.series):
            style = "-" if figure.ordered else _STYLES[index % len(_STYLES)]
            _one(axes, series, figure, shades[index], style, _MARKERS[index % len(_MARKERS)])
    if figure.forest:
        axes.axvline(1, color="0.6", linestyle=":", zorder=0)
    if figure.x_log or figure.forest:
        _logarithmic(axes.set_xscale, axes.xaxis, extent(figure, "x"))
    if figure.y_log:
        _logarithmic(axes.set_yscale, axes.yaxis, extent(figure, "y"))
    if figure.y_range:
        axes.set_ylim(*figure.y_range)
    if legend_needed(figure):
        axes.legend(frameon=False, fontsize="small", title=figure.legend or None, title_fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _logarithmic(set_scale: Callable[[str], None], axis: Axis, values: Sequence[float]) -> None:
    """Make an axis logarithmic, with ticks in plain numbers."""
    from matplotlib.ticker import NullLocator

    ticks = log_ticks(values)
    set_scale("log")
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def _one(axes: Axes, series: Series, figure: Figure, shade: str, style: Style, marker: str) -> None:
    if series.shape.startswith("points"):
        bars = _bars(series, series.x if figure.forest else series.y) or None
        across, along = (bars, None) if figure.forest else (None, bars)
        line = style if series.shape == "points+line" else "none"
        rows = [str(label).replace(" vs ", "\nvs ") for label in series.y] if figure.forest else series.y
        axes.errorbar(
            series.x,
            rows,
            xerr=across,
            yerr=along,
            fmt=marker,
            linestyle=line,
            color=shade,
            capsize=3,
            label=series.label,
        )
        return
    where = "steps-post" if series.shape == "step" else "default"
    axes.plot(series.x, series.y, color=shade, linestyle=style, drawstyle=where, label=series.label)
    if series.lower and len(figure.series) <= BANDS_SHOWN:
        step: Literal["post"] | None = "post" if series.shape == "step" else None
        axes.fill_between(series.x, series.lower, series.upper, step=step, color=shade, alpha=0.18, linewidth=0)
    times = sorted(set(series.marks))
    axes.plot(times, [height_at(series, time) for time in times], "|", color=shade, markersize=6)


def _bars(series: Series, centre: Sequence[float]) -> list[list[float]]:
    """Lengths below and above; nothing where a bound is unknown."""
    if not series.lower:
        return []
    pairs = [list(zip(centre, bounds, strict=True)) for bounds in (series.lower, series.upper)]
    return [[abs(bound - value) if math.isfinite(bound) else 0.0 for value, bound in pair] for pair in pairs]


def _stack(axes: Axes, series: Sequence[Series], shades: Sequence[str]) -> None:
    below = [0.0] * len(series[0].x)
    for one, shade in zip(series, shades, strict=True):
        above = [low + height for low, height in zip(below, one.y, strict=True)]
        axes.fill_between(one.x, below, above, step="post", color=shade, alpha=0.75, linewidth=0.5, label=one.label)
        below = above


def _heatmap(axes: Axes, figure: Heatmap) -> None:
    reach = max((abs(value) for row in figure.values for value in row), default=1.0) or 1.0
    axes.imshow(figure.values, cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
    axes.set_xticks(range(len(figure.columns)), figure.columns)
    axes.set_yticks(range(len(figure.rows)), figure.rows)
    for row, texts in enumerate(figure.texts):
        for column, text in enumerate(texts):
            dark = abs(figure.values[row][column]) > 0.6 * reach
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
