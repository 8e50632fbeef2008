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

LONG = 24
"""Characters of a cell that are too many to be repeated in every row."""


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
    title: str, subtitle: str, lead: Section, tiles: Sequence[tuple[str, str]], sections: Sequence[Section],
    footer: str, version: str,
) -> str:  # fmt: skip
    """The page: ``lead``, what it rests on, contents, and the other sections.

    It needs no network, and its content policy forbids access to one.
    """
    from plotly.offline import get_plotlyjs

    page = _Page()
    first = page.section(lead)
    shown, absent = _split(sections)
    body = "\n".join([*map(page.section, shown), *([_absent(absent)] if absent else [])])
    scripts, digests = inline_scripts(asset("theme.js"), _closed(get_plotlyjs()), asset("report.js"))
    return Template(asset("report.html")).substitute(
        policy=f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'",
        title=escape(title),
        subtitle=escape(subtitle),
        version=escape(version),
        style=asset("base.css") + asset("report.css"),
        lead=first,
        tiles="".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles),
        contents="".join(f'<li><a href="#{s.key}">{escape(s.title)}</a></li>' for s in [lead, *shown]),
        sections=body,
        footer=escape(footer),
        data="\n".join(page.data),
        scripts=scripts,
    )


def _split(sections: Sequence[Section]) -> tuple[list[Section], list[Section]]:
    """Sections that show something, and those that only say why they don't."""
    absent = [one for one in sections if all(isinstance(block, Note) and not block.warning for block in one.blocks)]
    return [one for one in sections if one not in absent], absent


def _absent(sections: Sequence[Section]) -> str:
    """Why each of them is not there."""
    reasons = {one.title: " ".join(block.text for block in one.blocks if isinstance(block, Note)) for one in sections}
    told = "".join(f"<li>{escape(title)}: {escape(reason)}</li>" for title, reason in reasons.items())
    heading = '<h2 id="absent">Not in this report</h2>'
    return f'<section aria-labelledby="absent">{heading}<ul class="absent">{told}</ul></section>'


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
            '<div class="plot" role="group"></div><figcaption></figcaption></figure>'
        )


def _bands_box(figure: Figure | Heatmap) -> str:
    banded = isinstance(figure, Figure) and any(s.lower and not s.shape.startswith("points") for s in figure.series)
    return '<label class="check"><input type="checkbox" data-choice="bands">Bands</label>' if banded else ""


def _table(table: Table) -> str:
    common = _common(table)
    kept = [place for place in range(len(table.columns)) if place not in common]
    head = "".join(_heading(table, place) for place in kept)
    body = "\n".join(
        "<tr>" + "".join(_cell(row[place], table.columns[place]) for place in kept) + "</tr>" for row in table.rows
    )
    notes = [*([table.note] if table.note else []), *(f"{table.columns[k]}: {text}." for k, text in common.items())]
    note = f'<p class="note soft">{escape(" ".join(notes))}</p>' if notes else ""
    title = escape(table.title)
    return (
        f'<h3>{title}</h3><div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f'<table class="sortable"><caption class="hidden">{title}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def _common(table: Table) -> dict[int, str]:
    """Columns of long text that is the same in every row: said once, below the table."""
    columns = {place: {row[place] for row in table.rows} for place in range(1, len(table.columns)) if table.rows}
    texts = {place: cells.pop() for place, cells in columns.items() if len(cells) == 1}
    return {place: text for place, text in texts.items() if isinstance(text, str) and len(text) >= LONG}


def _heading(table: Table, place: int) -> str:
    numeric = any(isinstance(row[place], Estimate | int | float) for row in table.rows)
    kind = ' class="number"' if numeric else ""
    return f'<th scope="col"{kind}><button type="button">{escape(table.columns[place])}</button></th>'


def _cell(value: object, column: str) -> str:
    if isinstance(value, Estimate):
        return _number_cell(value.value, interval(value))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<td class="number" data-sort="nan">–</td>'
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_p = column == "p" or column.startswith("p, ")
        return _number_cell(float(value), p_value(value).replace(" ", "\u00a0") if is_p else _plain(value))
    return f"<td>{escape(str(value))}</td>"


def _number_cell(value: float, text: str) -> str:
    key = repr(value) if math.isfinite(value) else ("1e999" if value > 0 else "-1e999")
    return f'<td class="number" data-sort="{key}">{escape(text)}</td>'


def _plain(value: float) -> str:
    """Thousands apart where there are tens of them."""
    whole = isinstance(value, int) or 10_000 <= abs(value) < math.inf
    return f"{round(value):,}".replace(",", "\u202f") if whole else number(value)
