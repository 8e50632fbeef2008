"""A page as one file, to send to a colleague: one episode, or the dashboard as it is now."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from string import Template

from vendomini.analysis.report.page import asset, embed, inline_scripts
from vendomini.analysis.traces.episodes import Json, Library
from vendomini.analysis.traces.overview import overview
from vendomini.records import write_atomically


def write_static(library: Library, place: int, run_id: str, file: Path) -> Path:
    """Writes the reader with all steps of one run inside. It needs no network.

    Raises:
        ResultsError: there is no such run, or the file can't be written.
    """
    episode = library.episode(place, run_id)
    steps = library.steps(place, run_id, 1, episode["length"])
    return _write("traces", run_id, {"episode": episode, "steps": steps}, file)


def write_dashboard(library: Library, status: list[Json], file: Path) -> Path:
    """Writes the dashboard with what it shows now. It needs no network.

    Raises:
        ResultsError: the file can't be written.
    """
    return _write("dashboard", "VendoMini dashboard", overview(library) | {"status": status}, file)


def _write(name: str, title: str, data: Json, file: Path) -> Path:
    scripts, digests = inline_scripts(asset("theme.js"), asset(f"{name}.js"))
    page = Template(asset("static.html")).substitute(
        policy=f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'",
        title=escape(title),
        style=asset("base.css") + asset(f"{name}.css"),
        body=_markup(f"{name}.html"),
        data=f'<script type="application/json" id="embedded">{embed(data)}</script>',
        scripts=scripts,
    )
    write_atomically(file, page.encode(errors="replace"))
    return file


def _markup(name: str) -> str:
    """The page's own elements, without the links that lead to other pages of the server."""
    page = asset(name)
    body = page[page.index("<body>") + len("<body>") : page.index("</body>")]
    return re.sub(r'<a class="served"[^>]*>[^<]*</a>', "", body)
