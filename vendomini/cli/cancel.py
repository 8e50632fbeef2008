"""``vendomini cancel``."""

from __future__ import annotations

from typing import Annotated

import typer

from vendomini.cli.options import AnyPhases, AsJson, ResultsFolder
from vendomini.errors import counted


def cancel(
    phases: AnyPhases = None,
    results: ResultsFolder = None,
    submission: Annotated[
        str | None, typer.Option("--submission", help="Only this one, as status names it.", show_default="all")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stop the live jobs of phases. Logs stay, and the next submit resumes from them.

    Example:

      vendomini cancel phase1
    """
    from vendomini.cli.output import console, print_json
    from vendomini.cluster.ledger import cancel_all
    from vendomini.config.experiments import folders_of
    from vendomini.errors import UsageError

    if not phases and results is None:
        raise UsageError("say what to cancel: vendomini cancel phase1")
    cancelled = {str(f.root): [t.name for t in cancel_all(f, submission)] for f in folders_of(phases or (), results)}
    if as_json:
        print_json(cancelled)
        return
    for folder, names in cancelled.items():
        console().print(
            f"{folder}: {counted(len(names), 'job')} cancelled" if names else f"{folder}: nothing was live",
            markup=False,
        )
