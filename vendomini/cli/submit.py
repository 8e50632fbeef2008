"""``vendomini submit``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vendomini.cli.options import AsJson, Limit, Only, Override, Partition, Phases, RestartChanged, ResultsFolder
from vendomini.errors import counted

if TYPE_CHECKING:
    from rich.console import Console

    from vendomini.cli.output import Rows
    from vendomini.cluster.launch import Outcome
    from vendomini.cluster.offers import Offers
    from vendomini.cluster.submit import Request, Submission
    from vendomini.config import Phase
    from vendomini.records import Results, Shard

TEMPLATES = "the template's"
ONE_ROUND = "one round"  # the context's object, for vendomini keep

Account = Annotated[str | None, typer.Option("--account", "-A", help="Account to charge.", show_default=TEMPLATES)]
Time = Annotated[str | None, typer.Option("--time", "-t", help="Time limit of a job, as sbatch reads it: 12:00:00.")]
QOS = Annotated[str | None, typer.Option("--qos", "-q", help="Quality of service.", show_default=TEMPLATES)]
Constraint = Annotated[
    str | None, typer.Option("--constraint", "-C", help="Only nodes with these features.", show_default=TEMPLATES)
]
Reservation = Annotated[str | None, typer.Option("--reservation", show_default=TEMPLATES)]
NodeList = Annotated[str | None, typer.Option("--nodelist", "-w", help="Only these nodes.")]
Exclude = Annotated[str | None, typer.Option("--exclude", "-x", help="Not these nodes.")]
WholeNodes = Annotated[bool, typer.Option("--whole-nodes", help="Jobs get whole nodes, and small models share one.")]
Templates = Annotated[
    Path | None, typer.Option("--templates", help="Folder of sbatch templates.", show_default="slurm, then the shipped")
]
RunsPerJob = Annotated[int | None, typer.Option("--runs-per-job", min=1, show_default="by time limit")]
MaxJobs = Annotated[int | None, typer.Option("--max-jobs", min=1, help="At most this many jobs per phase.")]
GPUHours = Annotated[
    float | None, typer.Option("--gpu-hours", min=0, help="Plan only what fits into this many, whole seeds first.")
]
Throttle = Annotated[int | None, typer.Option("--throttle", min=1, help="Array tasks that may run at once.")]
Retries = Annotated[int, typer.Option("--retries", min=0, help="How many times a job retries a failed run.")]
After = Annotated[list[str] | None, typer.Option("--after", help="Start when this phase's jobs have ended.")]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Also the runs of others' jobs that this cluster hides from you.")
]
Anyway = Annotated[bool, typer.Option("--anyway", help="Also the runs that the breaker has stopped.")]
Pilot = Annotated[bool, typer.Option("--pilot", help="A few short episodes of each model first: see vendomini pilot.")]
RequirePilot = Annotated[bool, typer.Option("--require-pilot", help="Send nothing without a passing pilot.")]
Keep = Annotated[
    bool, typer.Option("--keep", help="Also send a small job that submits what is left, until all is done.")
]
Describe = Annotated[
    Path | None, typer.Option("--describe", help="With --dry-run: plan for a cluster that doctor --json described.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the jobs and their scripts; send nothing.")]


def submit(
    context: typer.Context,
    phases: Phases,
    override: Override = None,
    only: Only = None,
    limit: Limit = None,
    results: ResultsFolder = None,
    partition: Partition = None,
    account: Account = None,
    time: Time = None,
    qos: QOS = None,
    constraint: Constraint = None,
    reservation: Reservation = None,
    nodelist: NodeList = None,
    exclude: Exclude = None,
    whole_nodes: WholeNodes = False,
    templates: Templates = None,
    runs_per_job: RunsPerJob = None,
    max_jobs: MaxJobs = None,
    gpu_hours: GPUHours = None,
    throttle: Throttle = None,
    retries: Retries = 1,
    after: After = None,
    take_over: TakeOver = False,
    restart_changed: RestartChanged = False,
    anyway: Anyway = False,
    pilot: Pilot = False,
    require_pilot: RequirePilot = False,
    keep: Keep = False,
    describe: Describe = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send phases to the cluster as a few long jobs, each with one model; repeated, it sends only what is missing.

    Examples:

      vendomini submit phase1 --dry-run

      vendomini submit phase1_large --partition gpu --time 12:00:00

      vendomini submit phase2 --after phase1
    """
    from vendomini.cluster.launch import jobs_to_wait_for, offers_of
    from vendomini.cluster.submit import Request

    one_round = context.obj == ONE_ROUND
    _check(describe is not None, dry_run, gpu_hours is not None, keep or one_round)
    asked = {"partition": partition, "account": account, "qos": qos, "constraint": constraint}
    asked |= {"reservation": reservation, "nodelist": nodelist, "exclude": exclude}
    offers, again = offers_of(templates, describe, time, asked), _words(phases, override, results)
    request = Request(
        *(runs_per_job, max_jobs, throttle, retries, jobs_to_wait_for(after or ()), take_over, whole_nodes),
        *(restart_changed, anyway, gpu_hours, require_pilot),
        pilot_command="" if pilot or one_round else shlex.join(["vendomini", "submit", *again, "--pilot"]),
    )
    folders, chosen = _folders(phases, override, results, only, pilot)
    if one_round:
        return _keep(folders, offers, request, chosen, limit, as_json)
    _send(folders, offers, request, chosen, limit, _options_given(context) if keep else None, dry_run, as_json)
    if pilot and not (dry_run or as_json):
        typer.echo(f"The verdict: {shlex.join(['vendomini', 'pilot', *again])}")


def _check(describe: bool, dry_run: bool, gpu_hours: bool, rounds: bool) -> None:
    """Refuses options that don't go together."""
    from vendomini.errors import UsageError

    if describe and not dry_run:
        raise UsageError("--describe is for --dry-run: jobs can only be sent where SLURM is")
    if gpu_hours and rounds:
        raise UsageError("--gpu-hours is for one submission: with --keep, every round would plan as much again")


def _words(phases: list[str], override: list[str] | None, results: Path | None) -> list[str]:
    """What names these phases on a command line."""
    overrides = [word for one in override or () for word in ("-o", one)]
    return [*phases, *overrides, *(["-r", str(results)] if results else [])]


def _folders(
    phases: list[str], override: list[str] | None, results: Path | None, only: list[str] | None, pilot: bool
) -> tuple[list[tuple[Phase, Results]], list[str]]:
    """The phases or their pilots, each with its folder; and what was chosen of them: of a pilot, where nothing was, the
    models that are the phases' own."""
    from vendomini.config.experiments import load_phases, results_of
    from vendomini.pilot import own_models, pilot_of

    folders = [(phase, results_of(phase, results)) for phase in load_phases(phases, override or (), results)]
    if not pilot:
        return folders, only or []
    own = [f"model={name}" for phase, _ in folders for name in own_models(phase)]
    return [(pilot_of(phase), results.pilot) for phase, results in folders], only or own


def _send(
    folders: list[tuple[Phase, Results]],
    offers: Offers,
    request: Request,
    only: Sequence[str],
    limit: int | None,
    keeper: list[str] | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Launches each phase and prints what was sent.

    Args:
        keeper: options of a keeper to send along with each phase.
    """
    from vendomini.cli.output import console, print_json
    from vendomini.cluster.launch import launch

    out, outcomes = console(stderr=as_json), []
    for phase, folder in folders:
        with nullcontext() if keeper is None or dry_run else _kept(phase, folder, offers, keeper, out):
            outcome = launch(phase, folder, offers, request, only, limit, dry_run)
            outcomes.append(outcome)
            _print(outcome, out, dry_run)
            for doubt in outcome.doubts:
                out.print(f"[WARNING] {doubt}", markup=False)
            if outcome.doubts:
                out.print(f"Pilot it: {request.pilot_command}", markup=False)
    if as_json:
        print_json([outcome.as_json() for outcome in outcomes])
    if any(outcome.problems for outcome in outcomes):
        raise typer.Exit(1)


def _keep(
    folders: list[tuple[Phase, Results]],
    offers: Offers,
    request: Request,
    only: Sequence[str],
    limit: int | None,
    as_json: bool,
) -> None:
    """A round of ``vendomini keep``."""
    from vendomini.cli.output import console
    from vendomini.cluster.keep import keep_round, requeue_this_keeper

    out = console(stderr=as_json)
    rounds = [keep_round(phase, results, offers, request, only, limit) for phase, results in folders]
    for one in rounds:
        out.print(one.sentence, markup=False)
    if any(one.goes_on for one in rounds):
        requeue_this_keeper()
    elif any(one.stuck for one in rounds):
        raise typer.Exit(1)


@contextmanager
def _kept(phase: Phase, results: Results, offers: Offers, options: Sequence[str], out: Console) -> Iterator[None]:
    """Sends a keeper for this phase; then it is no error if SLURM has no room for all of its jobs now.

    The keeper is sent first, while there is room. If the phase can't be sent at all, it could not send it either, and
    is cancelled.
    """
    from vendomini.cluster.keep import send_keeper
    from vendomini.cluster.ledger import live_keepers
    from vendomini.cluster.send import SubmitLimitError
    from vendomini.cluster.slurm import cancel
    from vendomini.errors import VendoMiniError

    job = send_keeper(results, offers, [str(phase.home or phase.path), *options])
    out.print(f"Keeper: job {job}" if job else "Keeper: one is live already", markup=False)
    try:
        yield
    except SubmitLimitError as exc:
        out.print(f"[WARNING] {exc} With --keep, what is left is sent later.", markup=False)
    except VendoMiniError:
        if job:
            cancel(live_keepers(results))
        raise


def _options_given(context: typer.Context) -> list[str]:
    """This command line's options, for the keeper's command line."""
    words: list[str] = []
    for option in context.command.params:
        name, value = str(option.name), context.params.get(str(option.name))
        if option.param_type_name != "option" or name in {"keep", "as_json"} or not value:
            continue
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            values = value if isinstance(value, list | tuple) else [value]
            words += [option.opts[0]] if value is True else [w for v in values for w in (option.opts[0], str(v))]
    return words


def _print(outcome: Outcome, out: Console, dry_run: bool) -> None:
    """What was sent, or would be."""
    from vendomini.records import PILOT

    submission = outcome.submission
    left = {
        "ended": submission.finished,
        "live in the queue": submission.live,
        "in jobs of others, which this cluster hides (--take-over sends them all the same)": submission.hidden,
        "damaged": len(submission.refused),
        "stopped": submission.halted[0],
    }
    aside = "".join(f", {number:,} {word}" for word, number in left.items() if number)
    out.print(f"{submission.manifest.name}: {counted(submission.runs, 'run')} to do{aside}", markup=False)
    if outcome.looks:
        out.print(f"{outcome.looks}.", markup=False)
    for problem in submission.refused.values():
        out.print(f"[WARNING] {problem}", markup=False)
    for halt in submission.halted[1]:
        out.print(f"[WARNING] {halt.model} is stopped: {halt.reason}", markup=False)
    if submission.halted[0]:
        out.print("Change a setting, or send its runs all the same with --anyway.", markup=False)
    if not submission.jobs:
        out.print("Nothing to submit.", markup=False)
        return
    out.print(_table(submission))
    hours = f", about {outcome.gpu_hours:,.1f} GPU-hours" if outcome.gpu_hours else ""
    out.print(f"{counted(submission.jobs, 'job')}{hours}", markup=False)
    if submission.missing:
        out.print(f"Within --gpu-hours {submission.request.gpu_hours:g}, {submission.missing}.", markup=False)
    if dry_run:
        _print_scripts(outcome, out)
    else:
        ids = ", ".join(outcome.job_ids)
        root = submission.results.root
        name = root if root.name == PILOT else submission.manifest.name
        out.print(f"Submitted as job {ids}; see vendomini status {name}", markup=False)


def _print_scripts(outcome: Outcome, out: Console) -> None:
    arrays = outcome.submission.manifest.arrays
    paths = ", ".join(str(template.path) for template in outcome.submission.templates.values())
    out.print(f"from {paths}", markup=False)
    for array, script in zip(arrays, outcome.scripts, strict=True):
        out.print(f"\n──── script of {array.job_name} ────\n{script}", markup=False)
    for problem in outcome.problems:
        out.print(f"[WARNING] {problem}", markup=False)
    out.print("Nothing was sent: this is a dry run.", markup=False)


def _table(submission: Submission) -> Rows:
    """A line for each model and shape of job."""
    from vendomini.cli.output import Rows

    shown = Rows(["model", "GPUs", "jobs", "runs", "time each"])
    groups: dict[tuple[str, str], list[Shard]] = {}
    for array in submission.manifest.arrays:
        gpus = f"{array.gpus}" + f" x {array.nodes} nodes" * (array.nodes > 1)
        gpus += f", {array.replicas} engines" * (array.replicas > 1)
        for shard in array.shards:
            groups.setdefault((shard.model, gpus), []).append(shard)
    for (model, gpus), shards in groups.items():
        runs, minutes = sum(len(shard.run_ids) for shard in shards), max(shard.seconds for shard in shards) / 60
        each = f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min"
        shown.add(model, gpus, f"{len(shards):,}", f"{runs:,}", each)
    return shown
