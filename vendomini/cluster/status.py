"""Where a phase stands. The run files are the truth; the queue says what is live; accounting only why a job ended."""

from __future__ import annotations

import itertools
import platform
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict

from vendomini.cluster.ledger import Job, job_ids, jobs_of, live_tasks
from vendomini.cluster.slurm import End, ended
from vendomini.errors import ClusterError, ConfigError, CorruptRecordError, ResultsError
from vendomini.records import JsonObject, Plan, Results, RunInfo, RunOutcome, RunPaths, last_steps, read_record

FRESH_S = 900.0
"""A log that no submission knows of and that was written to within this time belongs to a run in progress."""

NEWEST = 20
"""Replies of a run in progress that are counted."""

TAIL = 3
"""Lines of a log that are shown with a failure."""

HERE = ""
"""Stands for a job's model where runs have no job."""


class LiveJob(TypedDict):
    """A job in the queue, and how many runs it was given."""

    job: str
    slurm_job: str
    state: str
    reason: str
    model: str
    runs: int


class LostJob(TypedDict):
    """A job that ended and left runs unfinished: how it ended, where its log is, and the last lines of that."""

    job: str
    unfinished: int
    ended: str
    log: str
    last_lines: list[str]


@dataclass(slots=True)
class Status:
    """One results folder.

    Attributes:
        endings: ending → ended runs, by name.
        replies: ``ok``, ``repaired``, ``unparsable``, ``cut_off`` → replies of ended runs.
        newest_replies: the same of the newest ``NEWEST`` of each run in progress.
        failed: run id → why; the next submit tries them again.
        damaged: run id → what is wrong with its files.
        running, waiting: unfinished runs of live jobs, and runs in progress here.
        interrupted: begun, unfinished, and not in any live job or process.
        open: asked for, never begun, and not in any live job.
        unknown: unfinished, and sent to a queue that could not be asked.
        tokens_s: completion tokens per second, of the runs now in progress; None while a model of theirs has none done.
        eta_s: seconds until the live runs have ended, and those that a process here goes on to; None while a model has
            none running.
        jobs: live jobs.
        halts: why runs were stopped that submit does not send again by itself, while some are left.
        adaptive: where a phase with adaptive replications stands, in lines for people.
        looks: the same, pair by pair.
        lost: jobs that ended and left runs unfinished, with the reason where accounting tells.
        again: the command that does what is missing.
        queue_problem: why the queue could not be asked.
        plan_problems: plans that can't be read, whose open runs are not counted.
    """

    name: str
    results: str
    endings: dict[str, int] = field(default_factory=dict)
    replies: dict[str, int] = field(default_factory=dict)
    newest_replies: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    running: int = 0
    waiting: int = 0
    interrupted: int = 0
    open: int = 0
    unknown: int = 0
    tokens_s: float | None = None
    eta_s: float | None = None
    jobs: list[LiveJob] = field(default_factory=list)
    halts: list[dict[str, str]] = field(default_factory=list)
    adaptive: list[str] = field(default_factory=list)
    looks: list[JsonObject] = field(default_factory=list)
    lost: list[LostJob] = field(default_factory=list)
    again: str = ""
    queue_problem: str = ""
    plan_problems: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        return sum(self.endings.values())

    @property
    def runs(self) -> int:
        begun = len(self.failed) + len(self.damaged) + self.running + self.interrupted
        return self.done + begun + self.waiting + self.open + self.unknown

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "done": self.done, "runs": self.runs}


def status(results: Results) -> Status:
    """Reads every summary, asks the queue once, and accounting at most once.

    Raises:
        ResultsError: there is nothing here.
    """
    if not results.root.is_dir():
        raise ResultsError(f"there are no results in {results.root}: nothing was run or submitted there")
    manifests = results.manifests()
    found = Status(name=manifests[-1].name if manifests else results.root.name, results=str(results.root))
    found.again = f"vendomini {'submit' if manifests else 'run'} {shlex.quote(found.results)}"
    try:
        tasks = live_tasks(results, manifests)
    except ClusterError as exc:
        tasks, found.queue_problem = [], str(exc)
    jobs = jobs_of(results, manifests, tasks)
    owner = {run_id: job for job in jobs for run_id in job.shard.run_ids}  # the newest submission wins
    owner |= {run_id: job for job in jobs if job.task for run_id in job.shard.run_ids}
    begun = set(results.run_ids())
    unfinished, pace = _count(found, results, owner, begun)
    found.open += _not_begun(found, results, begun.union(owner))
    if pace[HERE].running:  # by a process that goes on to them
        pace[HERE].live += found.open
    _foresee(found, [model for model in pace.values() if model.live])
    if found.done < found.runs:
        found.halts = [
            {"model": halt.model, "cause": halt.cause, "reason": halt.reason, "halted_at": halt.halted_at}
            for halt in results.halts().values()
        ]
    _list_jobs(found, jobs, [owner[run_id] for run_id in unfinished if run_id in owner])
    return found


def _count(
    found: Status, results: Results, owner: dict[str, Job], begun: set[str]
) -> tuple[list[str], defaultdict[str, _Pace]]:
    """Sorts every known run into one of the states.

    Returns:
        The runs that are not done; and the pace of each model of a job, and of all runs without one.
    """
    pace: defaultdict[str, _Pace] = defaultdict(_Pace)
    endings: Counter[str] = Counter()
    unfinished = []
    known, never = sorted(begun), [run_id for run_id in owner if run_id not in begun]
    outcomes = itertools.chain(results.outcomes(known), itertools.repeat(None, len(never)))
    for run_id, outcome in zip([*known, *never], outcomes, strict=True):
        if isinstance(outcome, ResultsError):
            found.damaged[run_id] = str(outcome)
            continue
        job = owner.get(run_id)
        model = pace[job.shard.model if job else HERE]
        if outcome is not None and outcome.finished:
            endings[outcome.ending] += 1
            _add(found.replies, outcome.parse)
            model.add(outcome)
            continue
        unfinished.append(run_id)
        state = _state(results.run(run_id) if run_id in begun else None, job)
        if job is not None and found.queue_problem and outcome is None:
            state = "unknown"
        if outcome is not None and state == "interrupted":
            found.failed[run_id] = outcome.reason or "unknown"
        else:
            setattr(found, state, getattr(found, state) + 1)
            model.live += state in {"running", "waiting"}
        if state == "running":
            model.running += 1
            _add(found.newest_replies, _newest_replies(results.run(run_id)))
    found.endings = dict(sorted(endings.items()))
    return unfinished, pace


def _foresee(found: Status, models: list[_Pace]) -> None:
    """Only from runs of the same model: another's may take a hundredth of the time."""
    running = [model for model in models if model.running]
    if running and all(model.seconds > 0 for model in running):
        found.tokens_s = sum(model.running * model.tokens / model.seconds for model in running)
        if len(running) == len(models):
            found.eta_s = max(model.live * model.seconds / model.runs / model.running for model in running)


def _newest_replies(run: RunPaths) -> Counter[str]:
    try:
        return Counter(step.parse for step in last_steps(run.steps, NEWEST))
    except (OSError, ResultsError):  # not there yet, or being written
        return Counter()


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for key, number in more.items():
        counts[key] = counts.get(key, 0) + number


def _not_begun(found: Status, results: Results, known: set[str]) -> int:
    """How many runs of the plans are not among the known ones."""
    plans = []
    for path in sorted(results.plans.glob("*.json")):
        try:
            plans.append(read_record(path, Plan))
        except CorruptRecordError as exc:
            found.plan_problems.append(str(exc))
    adaptive = any(isinstance(plan.config.get("experiment", {}).get("replications"), dict) for plan in plans)
    if len(plans) == 1 and not adaptive:  # as a rule: no grid is expanded, and the config's machinery stays unloaded
        return max(plans[0].runs - len(known), 0)
    asked: set[str] = set()
    for plan in plans:  # they may share runs
        try:
            asked.update(_asked(found, results, plan))
        except ConfigError as exc:
            found.plan_problems.append(f"the plan of {plan.name} can't be expanded: {exc}")
    return len(asked - known)


def _asked(found: Status, results: Results, plan: Plan) -> Iterator[str]:
    """The runs of a plan; of an adaptive one, those that it needs until the next look.

    Raises:
        ConfigError: it can't be expanded here.
    """
    from vendomini.adaptive.looks import look
    from vendomini.config import build_phase, expand

    phase = build_phase(plan.config, trusted=False)
    state = look(phase, results)
    if state is not None:
        found.adaptive += [state.sentence, *state.lines()]
        found.looks += [path.as_json() for path in state.paths]
    return (spec.run_id for spec in (expand(phase) if state is None else state.asked))


@dataclass(slots=True)
class _Pace:
    """The pace of one model's runs: sums over those that ended in one go, since a phase may have a million.

    Attributes:
        live: running, or about to be.
    """

    runs: int = 0
    seconds: float = 0.0
    tokens: int = 0
    live: int = 0
    running: int = 0

    def add(self, outcome: RunOutcome) -> None:
        if outcome.attempt == 1:
            self.runs += 1
            self.seconds += outcome.seconds
            self.tokens += outcome.completion_tokens


def _state(run: RunPaths | None, job: Job | None) -> str:
    """The state of a run that is not done.

    Args:
        run: None if it was never begun.
    """
    if job is not None and job.task is not None:
        return "running" if job.task.state == "RUNNING" and run is not None else "waiting"
    if run is None:
        return "open"
    return "running" if job is None and _is_live(run) else "interrupted"


def _list_jobs(found: Status, jobs: list[Job], owners: list[Job]) -> None:
    """The live jobs, and those that are over and left runs.

    Args:
        owners: for every unfinished run, its job.
    """
    left = Counter(job.name for job in owners if job.task is None and not found.queue_problem)
    found.jobs = [
        {
            "job": job.name,
            "slurm_job": job.task.name,
            "state": job.task.state,
            "reason": job.task.reason if job.task.reason != "None" else "",
            "model": job.shard.model,
            "runs": len(job.shard.run_ids),
        }
        for job in jobs
        if job.task
    ]
    lost = [job for job in jobs if job.name in left]
    reasons = ended(
        {i for folder in {job.folder for job in lost} for i in job_ids(folder)},
        {job.manifest.arrays[job.array].job_name for job in lost},
        {cluster for job in lost for cluster in job.clusters},
    )
    found.lost = [
        {
            "job": job.name,
            "unfinished": left[job.name],
            "ended": _why(job, reasons),
            "log": str(job.log() or ""),
            "last_lines": tail(job.log(), TAIL),
        }
        for job in lost
    ]


def _why(job: Job, reasons: Mapping[str, list[End]]) -> str:
    if not job.was_sent:
        return "never sent"
    ends = ends_of(job, reasons)
    return str(ends[-1]) if ends else "not in SLURM's accounting"


def ends_of(job: Job, reasons: Mapping[str, list[End]]) -> list[End]:
    """How each start of a job ended, under whichever name accounting has for it."""
    ids = job_ids(job.folder)
    return next((reasons[name] for name in [*(f"{i}_{job.index}" for i in ids), *ids] if name in reasons), [])


def _is_live(run: RunPaths) -> bool:
    """Whether it was written to recently, and its process is on another machine or still there."""
    try:
        if time.time() - run.steps.stat().st_mtime > FRESH_S:
            return False
        owner = read_record(run.info, RunInfo).owner
    except (OSError, ResultsError):
        return False
    return owner.get("host") != platform.node() or Path(f"/proc/{owner.get('pid')}").exists()


def tail(log: Path | None, lines: int) -> list[str]:
    """The last lines of a file; reads its end only."""
    if log is None:
        return []
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 400 * lines))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
