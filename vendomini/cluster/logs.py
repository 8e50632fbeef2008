"""Finds a job's log by any name that the user may have for it, and follows it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vendomini.cluster.ledger import Job, job_ids, jobs_of, live_tasks
from vendomini.errors import UsageError
from vendomini.records import Results

POLL_S = 0.5
QUEUE_S = 15.0
"""Seconds between checks of the file, and of the queue."""


def find_log(name: str, folders: Iterable[Results]) -> Path:
    """The log of a run (by its id), of a job (``<submission>/<array>/<index>``), or of a SLURM job (``123_4``).

    Raises:
        UsageError: nothing here has that name, or its job has not begun.
    """
    jobs = [job for results in folders for job in jobs_of(results, results.manifests(), [])]
    matching = [job for job in jobs if _is(job, name)]
    if not matching:
        raise UsageError(
            f"no run, job or SLURM job {name!r} was submitted from here: vendomini status names them "
            "(runs of `vendomini run` print to their own terminal)"
        )
    logs = [log for log in (job.log() for job in matching) if log is not None]
    if not logs:
        raise UsageError(f"the job of {name} has not begun: it has no log yet")
    return logs[-1]


def follow_log(log: Path, folders: Sequence[Results]) -> Iterator[str]:
    """What is in the log; then what is added to it, while a job of these folders is live.

    Args:
        folders: empty to stop at the end of the file.
    """
    with log.open(encoding="utf-8", errors="replace") as file:
        asked, live = 0.0, bool(folders)
        while True:
            text = file.read()
            if text:
                yield text
            elif not live:
                return
            else:
                time.sleep(POLL_S)
                if time.monotonic() - asked > QUEUE_S:
                    asked, live = time.monotonic(), _writes(log, folders)


def _writes(log: Path, folders: Sequence[Results]) -> bool:
    """Whether a live job has this log."""
    for results in folders:
        manifests = results.manifests()
        tasks = live_tasks(results, manifests)
        if any(job.task and job.log() == log for job in jobs_of(results, manifests, tasks)):
            return True
    return False


def _is(job: Job, name: str) -> bool:
    if name in (job.name, job.manifest.id) or name in job.shard.run_ids:
        return True
    base, _, index = name.partition("_")
    return base in job_ids(job.folder) and index in ("", str(job.index))
