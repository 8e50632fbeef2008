"""Inside a job: which runs are this task's, and doing them until they are done or time is up.

Truth is in the run files, so a job needs to remember nothing: whenever it starts, for the first time or again, it does
what is not done yet. When SLURM warns of the time limit it stops after the steps in flight and puts itself back into
the queue. Nothing heavy is imported before the warning is heeded.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vendomini.errors import ClusterError, UsageError, VendoMiniError
from vendomini.records import Manifest, Results, decode_record

if TYPE_CHECKING:
    from rich.console import Console

    from vendomini.config import Phase, RunSpec
    from vendomini.runner import Tally


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
    """Where this process stands in its job; None outside of one."""
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
        UsageError: this is no SLURM job.
    """
    here = place(os.environ)
    if here is None:
        raise UsageError(
            "--cluster is for use inside a SLURM job, which takes its share of the runs. To send the runs to the "
            f"cluster: vendomini submit {config}"
        )
    return list(specs[here.index :: here.count])


def run_shard(manifest_file: str, digest: str, array: str) -> None:
    """What a job begins with: the shard that stands in the manifest under this array task.

    Args:
        digest: SHA-256 of the manifest. SLURM has kept it since the job was sent, so that whoever else can write to the
            results folder can't choose what this user's job runs.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until work() listens; a job so near its limit is not requeued
    from rich.console import Console

    out = Console(width=200, soft_wrap=True, highlight=False)
    try:
        tally = _run_shard(Path(manifest_file), digest, int(array), out)
    except VendoMiniError as exc:
        out.print(f"error: {exc}", markup=False)
        sys.exit(exc.exit_code)
    sys.exit(0 if tally.complete else 1)


def _run_shard(manifest_file: Path, digest: str, array: int, out: Console) -> Tally:
    from vendomini.config import build_phase, expand

    here = place(os.environ)
    manifest = _read_manifest(manifest_file, digest)
    ids = manifest.arrays[array].shards[here.index if here else 0].run_ids
    phase = build_phase(manifest.config)
    wanted = set(ids)
    specs = {spec.run_id: spec for spec in expand(phase) if spec.run_id in wanted}
    if len(specs) < len(ids):
        raise ClusterError(
            f"{len(ids) - len(specs)} runs of {manifest_file} do not exist in this version of VendoMini: submit again"
        )
    results = Results(manifest_file.parents[2])
    return work(phase, [specs[run_id] for run_id in ids], results, out, manifest.retries)


def _read_manifest(file: Path, digest: str) -> Manifest:
    try:
        data = file.read_bytes()
    except OSError as exc:
        raise ClusterError(f"can't read {file} ({exc.strerror}): submit again") from exc
    if hashlib.sha256(data).hexdigest() != digest:
        raise ClusterError(f"{file} is not what was submitted, and nothing of it is run: submit again")
    return decode_record(file, data, Manifest)


def work(phase: Phase, specs: Sequence[RunSpec], results: Results, out: Console, retries: int = 0) -> Tally:
    """Does these runs; back into the queue, and out, if SLURM says that time is up.

    Args:
        out: the job's log.
        retries: how often a run that fails is tried again.

    Raises:
        EngineUnavailable: no engine can run the model here.
        ResultsError: results can't be written.
    """
    from vendomini.runner import pending, run_pending

    todo, tally = pending(specs, results)
    _say(out, f"{phase.name}: {len(specs):,} runs in this job, {tally.already:,} ended before, {len(todo):,} to do")
    for problem in tally.refused.values():
        _say(out, f"[WARNING] {problem}")
    again = 0
    while todo:
        counters = run_pending(phase, todo, tally, results, out)
        if tally.stopped == "SIGUSR2" and tally.unfinished:
            _requeue(counters.steps, len(tally.unfinished), out)
        again += 1
        if tally.stopped or not tally.failed or again > retries:
            break
        _say(out, f"[*] {len(tally.failed)} runs failed: trying them again ({again} of {retries})")
        todo = [spec for spec in todo if spec.run_id in tally.failed]
        tally.failed.clear()
    _say(out, _last_words(tally))
    return tally


def _requeue(steps: int, unfinished: int, out: Console) -> None:
    """Back into the queue, and out; but not for ever if no step gets done."""
    from vendomini.cluster.slurm import requeue

    here = place(os.environ)
    if here is None:
        return
    if not steps:
        _say(out, "[WARNING] time is up before one step was done: not requeued; ask for more time with --time")
        return
    try:
        requeue(here.name)
    except ClusterError as exc:
        _say(out, f"[WARNING] can't requeue ({exc}): {unfinished} runs are left to the next `vendomini submit`")
        return
    _say(out, f"[*] time is up: back into the queue with {unfinished} runs to go")
    sys.exit(0)


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
    out.print(line, markup=False)


if __name__ == "__main__":
    run_shard(*sys.argv[1:])
