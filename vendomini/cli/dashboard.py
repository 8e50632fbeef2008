"""``vendomini dashboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vendomini.cli.options import AnyPhases


def dashboard(
    names: AnyPhases = None,
    port: Annotated[
        int, typer.Option(help="Port of the page on this machine; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    static: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the page as it is now as one HTML file instead.")
    ] = None,
) -> None:
    """Watch experiments in a browser: progress by cell, survival as it grows, failures, and each cell's episodes.

    The page is for this machine only (127.0.0.1), at an address with a secret in it, and refreshes every ten seconds.

    Examples:

      vendomini dashboard

      vendomini dashboard phase1

      vendomini dashboard phase1 --static phase1.html
    """
    from vendomini.analysis.traces.episodes import Library
    from vendomini.cli.output import console
    from vendomini.cli.traces import serve
    from vendomini.cluster.status import status
    from vendomini.config.experiments import folders_of

    folders = folders_of(names or (), None)
    library = Library([folder.root for folder in folders])

    def look() -> list[dict[str, object]]:
        return [status(folder).as_json() for folder in folders]

    if static is None:
        serve(library, port, "Dashboard", "dashboard", look)
    else:
        from vendomini.analysis.traces.static import write_dashboard

        console().print(f"Wrote {write_dashboard(library, look(), static)}", markup=False)
