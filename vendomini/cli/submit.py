"""``vendomini submit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import AsJson, Only, Override, Partition, Phases, ResultsFolder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vendomini.cluster.launch import Outcome
    from vendomini.cluster.submit import Submission
    from vendomini.records import Shard


def submit(
    phases: Phases,
    override: Override = None,
    only: Only = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many runs of each phase.")] = None,
    results: ResultsFolder = None,
    partition: Partition = None,
    account: Annotated[
        str | None, typer.Option("--account", "-A", help="Who pays.", show_default="the template's")
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", "-t", help="Time limit of a job, as sbatch reads it: 12:00:00.")
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option("--templates", help="Folder of sbatch templates.", show_default="slurm, then the shipped"),
    ] = None,
    runs_per_job: Annotated[int | None, typer.Option("--runs-per-job", min=1, show_default="by time limit")] = None,
    max_jobs: Annotated[int | None, typer.Option("--max-jobs", min=1, help="At most so many jobs for a phase.")] = None,
    throttle: Annotated[int | None, typer.Option("--throttle", min=1, help="Tasks of an array at once.")] = None,
    retries: Annotated[int, typer.Option("--retries", min=0, help="How often a job tries a failed run again.")] = 1,
    after: Annotated[list[str] | None, typer.Option("--after", help="Begin when this phase's jobs have ended.")] = None,
    describe: Annotated[
        Path | None, typer.Option("--describe", help="With --dry-run: plan for a cluster that doctor --json described.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the jobs and their scripts; send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send phases to the cluster: few long jobs, each with one model; what has ended or is live is left alone.

    The same command again sends what is missing then, and nothing else.

    Examples:

      vendomini submit phase1 --dry-run

      vendomini submit phase1_large --partition gpu --time 12:00:00

      vendomini submit phase2 --after phase1
    """
    from vendomini.cli.output import console, print_json
    from vendomini.cluster.launch import jobs_to_wait_for, launch, options
    from vendomini.cluster.submit import Request
    from vendomini.config.experiments import load_phases, results_of
    from vendomini.errors import UsageError

    if describe and not dry_run:
        raise UsageError("--describe is for --dry-run: jobs can only be sent where SLURM is")
    loaded = load_phases(phases, override or (), results)
    site, minutes, sbatch_options = options(account, partition, time, describe)
    waiting = jobs_to_wait_for(after or ())
    request = Request(templates, sbatch_options, minutes, runs_per_job, max_jobs, throttle, retries, waiting)
    out = console(stderr=as_json)
    outcomes = []
    for phase in loaded:
        outcome = launch(phase, results_of(phase, results), site, request, only or (), limit, dry_run)
        outcomes.append(outcome)
        _print(outcome, out, dry_run)
    if as_json:
        print_json([outcome.as_json() for outcome in outcomes])
    if any(outcome.problems for outcome in outcomes):
        raise typer.Exit(1)


def _print(outcome: Outcome, out: Console, dry_run: bool) -> None:
    """What was sent, or would be."""
    submission = outcome.submission
    left = {"ended": submission.finished, "live in the queue": submission.live, "damaged": len(submission.refused)}
    aside = "".join(f", {number:,} {word}" for word, number in left.items() if number)
    out.print(f"{submission.manifest.name}: {submission.runs:,} runs to do{aside}", markup=False)
    for problem in submission.refused.values():
        out.print(f"[WARNING] {problem}", markup=False)
    if not submission.jobs:
        out.print("Nothing to submit.", markup=False)
        return
    out.print(_table(submission))
    hours = f", about {outcome.gpu_hours:,.1f} GPU-hours" if outcome.gpu_hours else ""
    out.print(f"{submission.jobs:,} {'job' if submission.jobs == 1 else 'jobs'}{hours}", markup=False)
    if dry_run:
        _print_scripts(outcome, out)
    else:
        ids = ", ".join(outcome.job_ids)
        out.print(f"Submitted as job {ids}; see vendomini status {submission.manifest.name}", markup=False)


def _print_scripts(outcome: Outcome, out: Console) -> None:
    from vendomini.cluster.submit import scripts

    arrays = outcome.submission.manifest.arrays
    paths = ", ".join(str(template.path) for template in outcome.submission.templates.values())
    out.print(f"from {paths}", markup=False)
    for array, script in zip(arrays, scripts(outcome.submission), strict=True):
        out.print(f"\n──── script of {array.job_name} ────\n{script}", markup=False)
    for problem in outcome.problems:
        out.print(f"[WARNING] {problem}", markup=False)
    out.print("Nothing was sent: this is a dry run.", markup=False)


def _table(submission: Submission) -> Table:
    """A line for each model and GPU count."""
    from vendomini.cli.output import table

    shown = table("model", "GPUs", "jobs", "runs", "time each")
    groups: dict[tuple[str, int], list[Shard]] = {}
    for array in submission.manifest.arrays:
        for shard in array.shards:
            groups.setdefault((shard.model, array.gpus), []).append(shard)
    for (model, gpus), shards in groups.items():
        runs, minutes = sum(len(shard.run_ids) for shard in shards), max(shard.seconds for shard in shards) / 60
        each = f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min"
        shown.add_row(model, str(gpus), f"{len(shards):,}", f"{runs:,}", each)
    return shown
