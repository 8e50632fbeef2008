"""Inside a job: finds this task's runs and does them until they are done or time is up.

The run files are the only state, so a job has none of its own: whenever it starts, for the first time or again, it does
what is not done yet. When SLURM warns of the time limit it stops after the steps in flight and requeues itself. Nothing
heavy is imported before the signal handlers are in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vendomini.cluster.replicas import Replicas, as_a_child, gpus_of_this_process
from vendomini.cluster.tasks import read_task, task_file, task_of
from vendomini.errors import ClusterError, UsageError, VendoMiniError, counted, harden_streams
from vendomini.records import ArrayTask, Manifest, Results, decode_record

if TYPE_CHECKING:
    from rich.console import Console

    from vendomini.config import Phase, RunSpec
    from vendomini.runner import Tally


REQUEUE_PATIENCE_S = 900.0
"""How long to retry a controller that does not answer: there is nothing better to do until the job's time is up."""

LEAST_WAIT_S = 60.0
WAIT_S = 5.0
"""After SIGTERM: the least time to wait (SLURM kills a cancelled job sooner), and the pause between checks of whether
it still will."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which task of which job this process is.

    Attributes:
        name: as scontrol wants it, ``123_4`` or ``123``.
        index: from 0.
        count: tasks in all; 1 without an array.
    """

    name: str
    index: int
    count: int


def place(environ: Mapping[str, str]) -> Place | None:
    """This process's place in its job; None outside a job."""
    job = environ.get("SLURM_JOB_ID")
    if not job:
        return None
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if not array or not task:
        return Place(job, 0, 1)
    first, step = int(environ.get("SLURM_ARRAY_TASK_MIN", "0")), int(environ.get("SLURM_ARRAY_TASK_STEP", "1"))
    return Place(f"{array}_{task}", (int(task) - first) // step, int(environ["SLURM_ARRAY_TASK_COUNT"]))


def share_of_this_job(specs: Sequence[RunSpec], config: Path | str) -> list[RunSpec]:
    """The runs that this array task of a job started by hand is to do: all of them where there is no array.

    Args:
        config: as the user named it, for the message.

    Raises:
        UsageError: this is not a SLURM job.
    """
    here = place(os.environ)
    if here is None:
        raise UsageError(
            "--cluster is for use inside a SLURM job, which takes its share of the runs. To send the runs to the "
            f"cluster: vendomini submit {config}"
        )
    return list(specs[here.index :: here.count])


def run_shard(submission: str, digest: str, array: str, replica: str | None = None) -> None:
    """Entry point of a job: runs the shard of this array task.

    Args:
        submission: its folder; jobs of older submissions name the manifest in it.
        digest: of the array's tasks, or of the manifest. SLURM has kept it since the job was submitted, so that others
            with write access to the results folder can't choose what this user's job runs.
        replica: which of the job's engines this process is, where several share it.
    """
    from rich.console import Console

    harden_streams()
    out = Console(width=200, soft_wrap=True, highlight=False)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until work() listens; a job so near its limit is not requeued
    signal.signal(signal.SIGTERM, lambda *_: _wait_to_be_killed(out))
    try:
        tally = _run_shard(Path(submission), digest, int(array), None if replica is None else int(replica), out)
    except VendoMiniError as exc:
        out.print(f"error: {exc}", markup=False)
        sys.exit(exc.exit_code)
    sys.exit(0 if tally.complete or "replies" in tally.halted.values() else 1)  # no fault of the job or its node


def _run_shard(submission: Path, digest: str, array: int, replica: int | None, out: Console) -> Tally:
    here = place(os.environ)
    results, job = _assigned(submission, digest, array, here.index if here else 0)
    phase, specs = _runs(job)
    how = job.retries, job.restart_changed, job.anyway
    if replica is not None:
        as_a_child()
        _say(out, f"engine {replica + 1} of {job.replicas}, on GPUs {gpus_of_this_process(os.environ)}")
        return work(phase, specs[replica :: job.replicas], results, out, *how)
    if job.replicas > 1:
        arguments = [str(submission), digest, str(array)]
        return _share_among(job, arguments, specs, results, out)
    with _on_all_nodes(job, phase, specs, out):
        return work(phase, specs, results, out, *how)


@contextmanager
def _on_all_nodes(job: ArrayTask, phase: Phase, specs: Sequence[RunSpec], out: Console) -> Iterator[None]:
    """Yields in the job's first process; those on other nodes exit in here."""
    if job.nodes == 1:
        yield
        return
    from vendomini.cluster.nodes import following, leading, node_group

    group = node_group(os.environ, job.nodes)
    if group.rank:
        for number in (signal.SIGTERM, signal.SIGUSR2):  # the first process handles them for all
            signal.signal(number, signal.SIG_IGN)
        _say(out, f"node {group.rank + 1} of {group.nodes} follows {group.address}:{group.port}")
        model = specs[0].config().agent.model
        sys.exit(following(group, model, phase.engines.get(model.name, phase.config.engine)))
    os.environ.update(group.environ())
    with leading(group):
        yield


def _assigned(submission: Path, digest: str, array: int, index: int) -> tuple[Results, ArrayTask]:
    """The results folder, and what this task of the array is to do there."""
    if submission.suffix == ".json":
        return Results(submission.parents[2]), task_of(_read_manifest(submission, digest), array, index)
    results = Results(submission.parents[1])
    return results, read_task(task_file(results, submission.name, array, index), index, digest)


def _runs(job: ArrayTask) -> tuple[Phase, list[RunSpec]]:
    """Made from their numbers; where these lead elsewhere, looked for in the whole grid."""
    from vendomini.config import build_phase, expand, numbered

    phase, ids = build_phase(job.config), job.shard.run_ids
    specs = {spec.run_id: spec for spec in numbered(phase, job.shard.numbers)}
    if not specs.keys() >= set(ids):
        wanted = set(ids)
        specs = {spec.run_id: spec for spec in expand(phase) if spec.run_id in wanted}
    if missing := set(ids) - specs.keys():
        raise ClusterError(
            f"{counted(len(missing), 'run')} of submission {job.id} can't be made in this version of VendoMini: "
            "submit again"
        )
    return phase, [specs[run_id] for run_id in ids]


def _share_among(
    job: ArrayTask, arguments: Sequence[str], specs: Sequence[RunSpec], results: Results, out: Console
) -> Tally:
    """Deals the runs among the engines of this job; only this process requeues the job."""
    from vendomini.runner import pending

    def written() -> int:
        logs = (results.run(spec.run_id).steps for spec in specs)
        return sum(log.stat().st_size for log in logs if log.exists())

    _say(out, f"{job.replicas} engines share this job")
    before, engines = written(), Replicas()
    engines.run(arguments, job.replicas, job.gpus)
    todo, tally = pending(specs, results)
    tally.unfinished = [spec.run_id for spec in todo]
    tally.stopped = engines.stopped
    _obey_signal(tally, written() - before, out)
    _say(out, _last_words(tally))
    return tally


def _read_manifest(file: Path, digest: str) -> Manifest:
    try:
        data = file.read_bytes()
    except OSError as exc:
        raise ClusterError(f"can't read {file} ({exc.strerror}): submit again") from exc
    if hashlib.sha256(data).hexdigest() != digest:
        raise ClusterError(f"{file} is not what was submitted, and nothing of it is run: submit again")
    return decode_record(file, data, Manifest)


def work(
    phase: Phase,
    specs: Sequence[RunSpec],
    results: Results,
    out: Console,
    retries: int = 0,
    restart_changed: bool = False,
    anyway: bool = False,
) -> Tally:
    """Does these runs; requeues the job and exits if SLURM says that time is up.

    Args:
        out: the job's log.
        retries: how often a run that fails is tried again.
        restart_changed, anyway: as for :class:`vendomini.runner.Runner`.

    Raises:
        EngineUnavailable: no engine can run the model here.
        ResultsError: results can't be written.
    """
    from vendomini.runner import Runner, progress_on, save_plan

    runner = Runner(
        results,
        phase.config.engine,
        progress_on(out),
        engines=phase.engines,
        on_begin=partial(save_plan, phase, results),
        restart_changed=restart_changed,
        limits=phase.config.breaker,
        anyway=anyway,
    )
    todo, tally = runner.pending(specs), runner.tally
    _say(
        out,
        f"{phase.name}: {counted(len(specs), 'run')} in this job, {tally.already:,} ended before, {len(todo):,} to do",
    )
    for problem in tally.refused.values():
        _say(out, f"[WARNING] {problem}")
    again = 0
    while todo:
        before = runner.counters.steps
        runner.run(todo)
        _obey_signal(tally, runner.counters.steps - before, out)
        again += 1
        if tally.stopped or not tally.failed or again > retries:
            break
        _say(out, f"[*] {counted(len(tally.failed), 'run')} failed: trying again ({again} of {retries})")
        todo = [spec for spec in todo if spec.run_id in tally.failed]
        tally.failed.clear()
    _say(out, _last_words(tally))
    return tally


def _obey_signal(tally: Tally, steps: int, out: Console) -> None:
    """Acts on SLURM's signal: time is up, or the job is about to be killed.

    Args:
        steps: done since the job began, or bytes of them.
    """
    if tally.stopped == "SIGUSR2" and tally.unfinished:
        _requeue(steps, len(tally.unfinished), out)
    if tally.stopped == "SIGTERM" and tally.unfinished:
        _wait_to_be_killed(out)


def _requeue(steps: int, unfinished: int, out: Console) -> None:
    """Requeues the job and exits, unless it has not done a single step: then it would never end."""
    from vendomini.cluster.slurm import requeue

    here = place(os.environ)
    if here is None:
        return
    if not steps:
        _say(out, "[WARNING] time is up before one step was done: not requeued; ask for more time with --time")
        return
    try:
        requeue(here.name, REQUEUE_PATIENCE_S)
    except ClusterError as exc:
        _say(
            out,
            f"[WARNING] can't requeue ({exc}): {counted(unfinished, 'run is', 'runs are')} left to the next "
            "`vendomini submit`",
        )
        return
    _say(out, f"[*] time is up: back into the queue with {counted(unfinished, 'run')} to go")
    sys.exit(0)


def _wait_to_be_killed(out: Console) -> None:
    """A preempted job that exits by itself counts as failed; one that is killed is started again. Requeueing it from
    here would also revive a job that its user has cancelled."""
    from vendomini.cluster.slurm import is_ending

    here = place(os.environ)
    if here is None:
        return
    _say(out, "[*] told to stop: every step is saved; waiting for SLURM to end this job")
    began = time.monotonic()
    while time.monotonic() - began < LEAST_WAIT_S or is_ending(os.environ["SLURM_JOB_ID"]) is not False:
        time.sleep(WAIT_S)
    _say(out, "[WARNING] SLURM lets this job go on: the signal was not SLURM's")


def _last_words(tally: Tally) -> str:
    words = {
        "ended": tally.finished,
        "failed": len(tally.failed),
        "left to another process": len(tally.locked),
        "damaged": len(tally.refused),
        "unfinished": len(tally.unfinished),
    }
    return ", ".join(f"{number:,} {word}" for word, number in words.items() if number or word == "ended")


def _say(out: Console, line: str) -> None:
    """Writes to the job's log; if that fails (a full disk), the work goes on."""
    with contextlib.suppress(OSError):
        out.print(line, markup=False)


if __name__ == "__main__":
    run_shard(*sys.argv[1:])
