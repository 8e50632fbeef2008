"""``vendomini logs``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def logs(
    name: Annotated[str, typer.Argument(help="A run id, a job as status names it, or a SLURM job id (123_4).")],
    results: Annotated[
        Path | None, typer.Option("--results", "-r", help="Results folder.", show_default="all in results")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the job ends.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=1, help="Only the last lines, this many.")] = None,
) -> None:
    """Print the log of a job, or of the job that has a run.

    Examples:

      vendomini logs Qwen3-32B-p0.3-s0-1f0c2d9e8b7a6543 --follow

      vendomini logs 4711_3 -n 20
    """
    from vendomini.cluster.logs import find_log, follow_log
    from vendomini.cluster.status import tail
    from vendomini.config.experiments import folders_of
    from vendomini.errors import harmless

    folders = folders_of((), results)
    log = find_log(name, folders)
    if lines is not None:
        sys.stdout.write(harmless("\n".join(tail(log, lines)) + "\n"))
        return
    for text in follow_log(log, folders if follow else ()):
        sys.stdout.write(harmless(text))
        sys.stdout.flush()
