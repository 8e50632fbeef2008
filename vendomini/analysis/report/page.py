"""The report's content as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

from vendomini.analysis.report.content import (
    Block,
    Choice,
    Facets,
    Figure,
    Heatmap,
    Listing,
    Note,
    Section,
    Table,
    interval,
    number,
    p_value,
)
from vendomini.analysis.report.interactive import plotly_figure
from vendomini.analysis.statistics.estimate import Estimate


def asset(name: str) -> str:
    """A file of the package's assets, as text."""
    return (resources.files("vendomini.analysis") / "assets" / name).read_text(encoding="utf-8")


def embed(value: object) -> str:
    """JSON that is safe inside a script element: nothing in it can end the element or begin a comment."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def inline_scripts(*sources: str) -> tuple[str, str]:
    """Script elements, and the Content-Security-Policy sources that allow exactly them."""
    elements = "\n".join(f"<script>{source}</script>" for source in sources)
    digests = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources]
    return elements, " ".join(f"'sha256-{digest}'" for digest in digests)


def render(
    title: str, subtitle: str, notes: Sequence[Block], tiles: Sequence[tuple[str, str]], sections: Sequence[Section],
    footer: str, version: str,
) -> str:  # fmt: skip
    """The page. It needs no network, and its content policy forbids access to one."""
    from plotly.offline import get_plotlyjs

    page = _Page()
    body = "\n".join(page.section(section) for section in sections)
    scripts, digests = inline_scripts(asset("theme.js"), _closed(get_plotlyjs()), asset("report.js"))
    return Template(asset("report.html")).substitute(
        policy=f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'",
        title=escape(title),
        subtitle=escape(subtitle),
        version=escape(version),
        style=asset("base.css") + asset("report.css"),
        notes="\n".join(page.block(note) for note in notes),
        tiles="".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles),
        contents="".join(f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in sections),
        sections=body,
        footer=escape(footer),
        data="\n".join(page.data),
        scripts=scripts,
    )


def _closed(script: str) -> str:
    """A script without an end tag inside it."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


class _Page:
    """Renders blocks, and collects the figures' data along the way."""

    def __init__(self) -> None:
        self.data: list[str] = []

    def section(self, section: Section) -> str:
        blocks = "\n".join(self.block(block) for block in section.blocks)
        heading = f'<h2 id="{section.key}">{escape(section.title)}</h2>'
        return f'<section aria-labelledby="{section.key}">{heading}\n{blocks}</section>'

    def block(self, block: Block) -> str:
        match block:
            case Note(text, warning):
                return f'<p class="note{" warning" if warning else ""}">{escape(text)}</p>'
            case Table():
                return _table(block)
            case Listing(title, text):
                return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
            case Choice():
                return self._choice(block)
            case Facets(key, title, figures):
                panels = "\n".join(self._figure(figure.key, {(): figure}, "", level=4) for figure in figures)
                return f'<h3>{escape(title)}</h3><div class="facets" id="facets-{key}">{panels}</div>'
            case Figure() | Heatmap():
                return self._figure(block.key, {(): block}, _bands_box(block))

    def _choice(self, choice: Choice) -> str:
        firsts = list(dict.fromkeys(first for first, _ in choice.figures))
        options = "".join(f"<option>{escape(first)}</option>" for first in firsts)
        lists = (
            f'<label>{escape(choice.first)}<select data-choice="first">{options}</select></label>'
            f'<label>{escape(choice.second)}<select data-choice="second"></select></label>'
        )
        bands = "".join({_bands_box(figure) for figure in choice.figures.values()})
        return self._figure(choice.key, dict(choice.figures), lists + bands)

    def _figure(self, key: str, figures: dict[Any, Figure | Heatmap], controls: str, level: int = 3) -> str:
        content = {
            json.dumps(list(entry), ensure_ascii=False, separators=(",", ":")): {
                "title": figure.title,
                "description": figure.description,
                "figure": plotly_figure(figure),
            }
            for entry, figure in figures.items()
        }
        self.data.append(f'<script type="application/json" id="data-{key}">{embed(content)}</script>')
        bar = f'<div class="choices">{controls}</div>' if controls else ""
        return (
            f'<figure id="figure-{key}" data-figures="data-{key}">{bar}<h{level} class="title"></h{level}>'
            '<div class="plot" role="img"></div><figcaption></figcaption></figure>'
        )


def _bands_box(figure: Figure | Heatmap) -> str:
    banded = isinstance(figure, Figure) and any(s.lower and not s.shape.startswith("points") for s in figure.series)
    return '<label class="check"><input type="checkbox" data-choice="bands">Bands</label>' if banded else ""


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in table.columns)
    body = "\n".join(
        "<tr>" + "".join(_cell(value, name) for value, name in zip(row, table.columns, strict=True)) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note soft">{escape(table.note)}</p>' if table.note else ""
    title = escape(table.title)
    return (
        f'<h3>{title}</h3><div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f'<table class="sortable"><caption class="hidden">{title}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def _cell(value: object, column: str) -> str:
    if isinstance(value, Estimate):
        return _number_cell(value.value, interval(value))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<td class="number" data-sort="nan">–</td>'
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number_cell(float(value), p_value(value) if column in {"p", "p, Holm"} else _plain(value))
    return f"<td>{escape(str(value))}</td>"


def _number_cell(value: float, text: str) -> str:
    key = repr(value) if math.isfinite(value) else ("1e999" if value > 0 else "-1e999")
    return f'<td class="number" data-sort="{key}">{escape(text)}</td>'


def _plain(value: float) -> str:
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else number(value)
