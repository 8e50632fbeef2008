"""``vendomini keep``."""

from __future__ import annotations

import typer

app = typer.Typer(add_completion=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def keep(ctx: typer.Context) -> None:
    """Submit whatever is left of phases: one round, for cron, with the options of vendomini submit.

    Sends what jobs left that were preempted, lost their node or were not allowed into the queue; leaves out nodes that
    failed twice; does nothing while jobs are live. Ends with 0 when all is done or a later round may go on, and with 1
    when jobs were cancelled or two submissions in a row got nothing done. `vendomini submit --keep` does the same from
    a small job.

    Examples:

      vendomini keep phase1 --partition gpu

      */15 * * * * cd ~/vendomini && .venv/bin/vendomini keep phase1
    """
    from vendomini.cli import load_command
    from vendomini.cli.submit import ONE_ROUND

    code = load_command("submit").main(ctx.args, "vendomini keep", standalone_mode=False, obj=ONE_ROUND)
    raise typer.Exit(code or 0)
