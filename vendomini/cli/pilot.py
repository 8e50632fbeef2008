"""``vendomini pilot``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import AsJson, Override, ResultsFolder, complete
from vendomini.errors import counted

if TYPE_CHECKING:
    from rich.console import Console

    from vendomini.config import Phase
    from vendomini.pilot import Verdict
    from vendomini.pilot.figures import Figures
    from vendomini.records import Results

WHAT = "A phase (phase1), a YAML file or a results folder."
WIDTH = 78


def pilot(
    name: Annotated[str | None, typer.Argument(help=WHAT, autocompletion=complete, show_default=False)] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="The same, as an option.", autocompletion=complete)
    ] = None,
    override: Override = None,
    results: ResultsFolder = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of an episode.")] = 30,
    episodes: Annotated[
        int, typer.Option("--episodes", min=1, help="Of a model without shocks, and as many with the most.")
    ] = 8,
    here: Annotated[bool, typer.Option("--here", help="Run here, even where there is SLURM.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try a few short episodes of each model, and say whether to go on: ok, look (at a setting) or no.

    Where there is SLURM, the episodes are sent to it, as by vendomini submit --pilot, which takes the options of a job;
    elsewhere they run here. Repeating the command shows the verdict; the exit code is 1 if it is no.

    Examples:

      vendomini pilot phase1

      vendomini pilot --config configs/demo_model.yaml --steps 10
    """
    from vendomini.cli.output import console, print_json
    from vendomini.config.experiments import load_phases, results_of
    from vendomini.errors import UsageError
    from vendomini.pilot import judge

    if (name is None) == (config is None):
        raise UsageError("name one config: vendomini pilot phase1, or vendomini pilot --config configs/demo.yaml")
    out, found = console(stderr=as_json), []
    for phase in load_phases([name or config or ""], override or (), results):
        folder = results_of(phase, results)
        verdicts = judge(phase, folder, _do(phase, folder, steps, episodes, here, out))
        found += [{"phase": phase.name, **verdict.as_json()} for verdict in verdicts]
        if not as_json:
            _print(phase, folder, verdicts, out)
    if as_json:
        print_json(found)
    if any(verdict["grade"] == "no" for verdict in found):
        raise typer.Exit(1)


def _do(phase: Phase, results: Results, steps: int, episodes: int, here: bool, out: Console) -> dict[str, str]:
    """Runs what the pilot lacks, or sends it; the control that models are compared with always runs here.

    Returns:
        Model → why it could not be loaded.
    """
    import os

    from vendomini.api import execute
    from vendomini.config import expand
    from vendomini.pilot import own_models, pilot_of
    from vendomini.probe.slurm import find_slurm
    from vendomini.runner import Progress, Tally, pending, progress_on

    small, own = pilot_of(phase, steps, episodes), own_models(phase)
    todo, _ = pending(expand(small), results.pilot)
    others = [spec for spec in todo if spec.model not in own]
    mine = [spec for spec in todo if spec.model in own]
    if mine and not here and "SLURM_JOB_ID" not in os.environ and find_slurm(os.environ).available:
        _submit(small, results.pilot, own, out)
        mine = []
    if others:
        execute(small, others, results.pilot, Progress())
    tally = execute(small, mine, results.pilot, progress_on(out)) if mine else Tally()
    return {
        spec.model: tally.failed[spec.run_id]
        for spec in mine
        if spec.run_id in tally.failed and not results.pilot.run(spec.run_id).info.exists()
    }


def _submit(small: Phase, pilot: Results, models: list[str], out: Console) -> None:
    from vendomini.cluster.launch import launch, offers_of
    from vendomini.cluster.submit import Request

    offers = offers_of(None, None, None, {})
    outcome = launch(small, pilot, offers, Request(), [f"model={model}" for model in models])
    if outcome.job_ids:
        out.print(f"Submitted as job {', '.join(outcome.job_ids)}; the same command shows the verdict.", markup=False)
    elif outcome.submission.live:
        out.print(f"{counted(outcome.submission.live, 'run is', 'runs are')} in the queue still.", markup=False)


def _print(phase: Phase, results: Results, verdicts: list[Verdict], out: Console) -> None:
    out.print(f"{phase.name}: pilot in {results.pilot.root}", markup=False, style="bold")
    for verdict in verdicts:
        out.print(f"{verdict.grade:8}{verdict.model}", markup=False)
        for line in _figures(verdict.figures):
            out.print(textwrap.fill(line, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 10), markup=False)
        for reason in verdict.reasons:
            out.print(textwrap.fill(reason, WIDTH, initial_indent="      - ", subsequent_indent=" " * 8), markup=False)


def _figures(figures: Figures) -> list[str]:
    """What was measured, in lines."""
    if not figures.replies:
        return []
    engine, share = figures.engine, figures.share
    ran = " ".join(str(engine[key]) for key in ("backend", "attention") if engine.get(key))
    counts = {"repaired": figures.repaired, **figures.unusable}
    usable = figures.replies - figures.unusable.total()
    fine = f"{share(usable - figures.repaired):.0%} ok"
    parts = [fine, *(f"{share(number):.0%} {name}" for name, number in counts.items() if number)]
    costs = [f"{share(figures.tokens):,.0f} tokens a reply"]
    if figures.thought:
        costs.append(f"{share(figures.thought):,.0f} of them thought")
    if figures.seconds:
        costs.append(f"{share(figures.seconds):.2f} s")
    if figures.cached is not None:
        costs.append(f"{figures.cached / max(figures.prompt, 1):.0%} of the prompts from the cache")
    if figures.conversations is not None:
        costs.append(f"memory for {figures.conversations:.0f} full conversations")
    lines = [
        f"{figures.ended} of {figures.runs} episodes ended{f' on {ran}' if ran else ''}",
        f"{figures.replies:,} replies: {', '.join(parts)}; {share(figures.at_limit):.0%} at their limit",
        ", ".join(costs),
    ]
    if figures.claims:
        error = figures.error / figures.claims
        lines.append(f"prediction error without shocks {error:.3f}, over {figures.claims:,} predictions")
    if figures.errors:
        lines.append("failed calls: " + ", ".join(f"{code} {n}" for code, n in figures.errors.most_common(4)))
    rejected = engine.get("rejected")
    if isinstance(rejected, dict) and rejected:
        lines.append("passed over: " + "; ".join(f"{name} ({why})" for name, why in rejected.items()))
    return lines
