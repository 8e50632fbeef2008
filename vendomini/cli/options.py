"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def complete(incomplete: str) -> list[str]:
    """Experiments whose name begins this way: phases, shipped configs and results folders."""
    from vendomini.config.experiments import complete

    return complete(incomplete)


NAMES = "Phases (phase1, phase1_large), YAML files or results folders."

Phases = Annotated[list[str], typer.Argument(help=NAMES, autocompletion=complete)]
AnyPhases = Annotated[list[str] | None, typer.Argument(help=NAMES, autocompletion=complete, show_default="all")]
ToRead = Annotated[
    list[str],
    typer.Argument(
        help="Results folders, folders of results folders, phases or YAML files.",
        metavar="NAME...",
        autocompletion=complete,
    ),
]
Override = Annotated[
    list[str] | None, typer.Option("-o", "--override", help="key=value: overrides the config; repeatable.")
]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="key=value: only matching runs; the same key twice means either.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many runs of each phase.")]
RestartChanged = Annotated[
    bool, typer.Option("--restart-changed", help="Restart runs that began under another prompt or version.")
]
ResultsFolder = Annotated[
    Path | None, typer.Option("--results", "-r", help="Results folder.", show_default="results/<experiment.name>")
]
Partition = Annotated[
    str | None, typer.Option("--partition", "-p", show_default="the template's, then the cluster's own")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
