"""``vendomini forget``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import Only, ResultsFolder, complete

if TYPE_CHECKING:
    from vendomini.records import Results


def forget(
    name: Annotated[
        str | None,
        typer.Argument(help="A results folder, a phase or a YAML file.", autocompletion=complete, show_default=False),
    ] = None,
    results: ResultsFolder = None,
    plan: Annotated[
        str | None,
        typer.Option("--plan", help="Only this plan, by the beginning of its hash, and its own runs."),
    ] = None,
    run: Annotated[list[str] | None, typer.Option("--run", help="Only this run; repeatable.")] = None,
    only: Only = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete an experiment, one of its plans, or some of its runs, after listing them and asking.

    Deleted runs whose plan is kept are done again by the next run or submit. Runs that a process is writing, or that a
    live job has, are never deleted.

    Examples:

      vendomini forget demo@max_steps=50

      vendomini forget phase1_large --only model=Qwen/Qwen3-32B --yes
    """
    from vendomini.cli.output import console
    from vendomini.cluster.forget import choose, delete
    from vendomini.config.experiments import folders_of
    from vendomini.errors import UsageError

    if (name is None) == (results is None):
        raise UsageError("name one experiment: vendomini forget demo, or vendomini forget --results FOLDER")
    if sum(map(bool, (plan, run, only))) > 1:
        raise UsageError("--plan, --run and --only each say what to forget: give one of them")
    (folder,) = _one(folders_of([name] if name else (), results), name)
    chosen = choose(folder, plan, run or (), only or ())
    out = console()
    out.print(f"{folder.root}: {chosen.sentence}", markup=False)
    if not yes and not typer.confirm("Delete them for good?"):
        raise typer.Exit(1)
    delete(folder, chosen)
    out.print("Forgotten.")


def _one(folders: list[Results], name: str | None) -> list[Results]:
    from vendomini.errors import UsageError

    if len(folders) > 1:
        raise UsageError(f"{name} stands for {' and '.join(str(folder.root) for folder in folders)}: name one of them")
    return folders
