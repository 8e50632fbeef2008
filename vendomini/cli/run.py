"""``vendomini run``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import AsJson, Limit, Only, Override, RestartChanged, ResultsFolder, complete
from vendomini.errors import counted

if TYPE_CHECKING:
    from rich.console import Console

    from vendomini.config import Phase, RunSpec
    from vendomini.records import Results
    from vendomini.runner import Tally

WHAT = "A phase (phase1_large), a YAML file, or a results folder (its own config again)."

SHOWN = 20
"""Runs listed by --dry-run, and cells by the table at the end."""


def run(
    name: Annotated[str | None, typer.Argument(help=WHAT, autocompletion=complete, show_default=False)] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="The same, as an option.", autocompletion=complete)
    ] = None,
    override: Override = None,
    only: Only = None,
    limit: Limit = None,
    results: ResultsFolder = None,
    restart_changed: RestartChanged = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and stop.")] = False,
    as_json: AsJson = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Inside a SLURM job: run this array task's share of the runs.")
    ] = False,
) -> None:
    """Run the episodes of a config here, many at once, and resume interrupted ones.

    Finished runs are left alone; an interrupted run resumes where its step log ends. Ctrl-C stops after
    the steps in flight.

    Examples:

      vendomini run demo

      vendomini run --config configs/phases/phase1_small_models.yaml --only p_shock=0.2 --limit 3 --dry-run

      vendomini run -c configs/demo.yaml -o simulation.max_steps=50 -o agent.model.name=scripted/oracle
    """
    from vendomini.api import choose, execute, load
    from vendomini.cli.output import console, print_json
    from vendomini.cluster.job import share_of_this_job, work
    from vendomini.config.experiments import refuse_mixing, results_of
    from vendomini.errors import UsageError
    from vendomini.runner import progress_on

    if (name is None) == (config is None):
        raise UsageError("name one config: vendomini run demo, or vendomini run --config configs/demo.yaml")
    phase = load(name or config or "", override or ())
    folder = results_of(phase, results)
    refuse_mixing(phase, folder)
    specs = choose(phase, only or (), limit, folder)
    if cluster:
        specs = share_of_this_job(specs, name or config or "")
    if dry_run:
        _show_plan(phase, specs, folder, as_json)
        return
    out = console(stderr=as_json)
    if cluster:
        tally = work(phase, specs, folder, out, restart_changed=restart_changed)
    else:
        more = None if limit else only or ()
        tally = execute(phase, specs, folder, progress_on(out), restart_changed=restart_changed, more=more)
        specs = choose(phase, only or (), limit, folder)
    if as_json:
        print_json(_tally_json(tally, folder))
    else:
        _print_cells(phase, specs, folder, out)
    _conclude(tally, folder, out)


def _conclude(tally: Tally, results: Results, out: Console) -> None:
    """The closing lines, and the exit code: 0 all done, 1 something is missing, 130 stopped."""
    for line in _missing(tally):
        out.print(line, markup=False)
    if tally.unfinished and tally.stopped and not tally.halted:
        raise typer.Exit(130)
    if not tally.complete:
        raise typer.Exit(1)
    out.print(f"Results are in {results.root}.", markup=False)


def _missing(tally: Tally) -> Iterator[str]:
    """What is not done, and what to do about it."""
    from vendomini.cli.output import this_command

    if number := len(tally.locked):
        yield f"{counted(number, 'run is', 'runs are')} left to another process, which is writing."
    if number := len(tally.refused):
        yield f"{counted(number, 'run was', 'runs were')} left alone, see the warnings above."
    if number := len(tally.failed):
        yield f"{counted(number, 'run')} failed; the same command tries again: {this_command()}"
    number = len(tally.unfinished)
    if tally.halted:
        yield f"{counted(number, 'run is', 'runs are')} left, for the reason above; {_remedy(tally)}."
    elif number:
        yield f"Stopped with {counted(number, 'run')} to go; the same command goes on from there: {this_command()}"


def _remedy(tally: Tally) -> str:
    from vendomini.cli.output import this_command

    if "replies" in tally.halted.values():
        return "change a setting, or try all the same with -o breaker=off"
    return f"the same command tries them again: {this_command()}"


def _show_plan(phase: Phase, specs: list[RunSpec], results: Results, as_json: bool) -> None:
    from vendomini.cli.output import console, print_json
    from vendomini.runner import pending

    todo, tally = pending(specs, results)
    steps = sum(spec.horizon for spec in todo)
    models = sorted({spec.model for spec in specs})
    if as_json:
        print_json(
            {
                "runs": len(specs),
                "ended": tally.already,
                "to_do": len(todo),
                "max_steps": steps,
                "models": models,
                "results": str(results.root),
                "run_ids": [spec.run_id for spec in specs],
            }
        )
        return
    out = console()
    out.print(
        f"{counted(len(specs), 'run')}, {tally.already:,} ended, {len(todo):,} to do; at most {counted(steps, 'step')}",
        markup=False,
    )
    out.print(f"models: {', '.join(models)}", markup=False)
    out.print(f"results: {results.root}", markup=False)
    for spec in specs[:SHOWN]:
        out.print(f"  {spec.run_id}  {_apart(phase, spec)}".rstrip(), markup=False)
    if len(specs) > SHOWN:
        out.print(f"  … and {len(specs) - SHOWN:,} more (--json lists all)", markup=False)


def _apart(phase: Phase, spec: RunSpec) -> str:
    """What of the grid a run's id does not say in words."""
    from vendomini.config.models import NAME
    from vendomini.config.paths import as_text, lookup, short

    paths = [path for path in phase.axes if path not in {NAME, phase.world.dose}]
    return ", ".join(f"{short(path)} {as_text(lookup(spec.parameters, path))}" for path in paths)


def _tally_json(tally: Tally, results: Results) -> dict[str, object]:
    import dataclasses

    return {"results": str(results.root), **dataclasses.asdict(tally), "complete": tally.complete}


def _print_cells(phase: Phase, specs: list[RunSpec], results: Results, out: Console) -> None:
    """What came out, a line for each cell of the grid."""
    from vendomini.analysis.tables.summary import summarise_cells
    from vendomini.cli.output import Rows
    from vendomini.config.paths import as_text, short

    cells = summarise_cells(specs, list(phase.axes), results)
    if not cells:
        return
    shown = Rows(
        [*map(short, phase.axes), "runs", "events", "mean survival", "mean PE", "endings"],
        words=len(phase.axes),
        title="Survival by cell (mean survival in steps, the horizon included)",
    )
    for cell in cells[:SHOWN]:
        endings = ", ".join(f"{name} {number}" for name, number in sorted(cell.endings.items()))
        mean_pe = "–" if cell.mean_pe is None else f"{cell.mean_pe:.3f}"
        survival = f"{cell.mean_survival:.0f}"
        shown.add(*map(as_text, cell.values), str(cell.runs), str(cell.events), survival, mean_pe, endings)
    out.print(shown)
    if len(cells) > SHOWN:
        out.print(f"… and {len(cells) - SHOWN:,} more cells: vendomini report {results.root}", markup=False)
