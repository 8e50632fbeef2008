"""One episode as one file, to send to a colleague."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from vendomini.analysis.report.page import asset, embed, inline_scripts
from vendomini.analysis.traces.episodes import Library
from vendomini.records import write_atomically


def write_static(library: Library, place: int, run_id: str, file: Path) -> Path:
    """Writes the reader with all steps of one run inside. It asks no network for anything.

    Raises:
        ResultsError: there is no such run, or the file can't be written.
    """
    episode = library.episode(place, run_id)
    steps = library.steps(place, run_id, 1, episode["length"])
    scripts, digests = inline_scripts(asset("theme.js"), asset("traces.js"))
    page = Template(asset("static.html")).substitute(
        policy=f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'",
        title=escape(run_id),
        style=asset("base.css") + asset("traces.css"),
        body=reader_markup(),
        data=f'<script type="application/json" id="embedded">{embed({"episode": episode, "steps": steps})}</script>',
        scripts=scripts,
    )
    write_atomically(file, page.encode(errors="replace"))
    return file


def reader_markup() -> str:
    """The reader's own elements, shared with the served page."""
    page = asset("traces.html")
    return page[page.index("<body>") + len("<body>") : page.index("</body>")]
