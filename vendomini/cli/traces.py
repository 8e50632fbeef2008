"""``vendomini traces``."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import ToRead

if TYPE_CHECKING:
    from vendomini.analysis.traces.episodes import Library


class Export(StrEnum):
    inspect = "inspect"
    jsonl = "jsonl"


def traces(
    names: ToRead,
    run: Annotated[list[str] | None, typer.Option(help="Only this run; repeatable.")] = None,
    ending: Annotated[str | None, typer.Option(help="Only runs that ended so: survived, crashed, bankrupt, …")] = None,
    model: Annotated[str | None, typer.Option(help="Only runs of this model.")] = None,
    port: Annotated[
        int, typer.Option(help="Port of the page on this machine; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    static: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one run as one HTML file instead.")] = None,
    export: Annotated[
        Export | None, typer.Option(help="Write Inspect AI's .eval logs, or JSON lines, instead.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where --export writes: a folder for inspect, a file for jsonl.")
    ] = None,
) -> None:
    """Read episodes step by step in a browser, or export them.

    The page is for this machine only (127.0.0.1), at an address that contains a secret. --run, --ending and --model
    choose what --static and --export write; the page has filters of its own.

    Examples:

      vendomini traces results/phase1_large_models

      vendomini traces results/phase1_large_models --run RUN --static episode.html

      vendomini traces results/phase1_large_models --ending crashed --export inspect --out logs
    """
    from vendomini.analysis.traces.episodes import Library
    from vendomini.config.experiments import folders_to_read

    library = Library(folders_to_read(names))
    if static is not None:
        _write_static(library, run, ending, model, static)
    elif export is not None:
        _write_export(library, run, ending, model, export, out)
    else:
        serve(library, port, "Traces")


def _write_static(library: Library, run: list[str] | None, ending: str | None, model: str | None, file: Path) -> None:
    from vendomini.analysis.traces.static import write_static
    from vendomini.cli.output import console
    from vendomini.errors import UsageError

    chosen = library.select(run, ending, model)
    if len(chosen) != 1:
        raise UsageError(f"--static writes one run, and {len(chosen)} match: name one with --run")
    console().print(f"Wrote {write_static(library, *chosen[0], file)}", markup=False)


def _write_export(
    library: Library, run: list[str] | None, ending: str | None, model: str | None, kind: Export, out: Path | None
) -> None:
    from vendomini.analysis.traces.export import export_inspect, export_jsonl
    from vendomini.cli.output import console

    chosen = [(library.results[place], run_id) for place, run_id in library.select(run, ending, model)]
    if kind is Export.jsonl:
        written = [export_jsonl(chosen, out or Path("steps.jsonl"))]
    else:
        written = export_inspect(chosen, out or Path("logs"))
    for path in written:
        console().print(f"Wrote {path}", markup=False)


def serve(
    library: Library, port: int, title: str, page: str = "", status: Callable[[], list[dict[str, object]]] = list
) -> None:
    """Serves both pages until Ctrl-C, and prints the address of one."""
    from vendomini.analysis.traces.server import TraceServer
    from vendomini.cli.output import console

    with TraceServer(library, port, status) as server:
        number = server.server_address[1]
        out = console()
        out.print(f"{title}: {server.url}{page}", markup=False)
        out.print(f"From another machine: ssh -L {number}:127.0.0.1:{number} HOST, then the same address. Ctrl-C ends.")
        server.serve_forever()
