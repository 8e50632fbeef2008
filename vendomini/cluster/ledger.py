"""Who has which run: the manifests say what was sent off, the queue says which of it is still alive."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vendomini.cluster.slurm import Task, queue
from vendomini.errors import ResultsError
from vendomini.records import Manifest, Results, Shard, write_error


@dataclass(frozen=True, slots=True)
class Job:
    """One array task of a submission: its shard, its place, and its live task if it has one.

    Attributes:
        folder: where its array's scripts and logs are.
    """

    manifest: Manifest
    array: int
    index: int
    folder: Path
    task: Task | None

    @property
    def shard(self) -> Shard:
        return self.manifest.arrays[self.array].shards[self.index]

    @property
    def name(self) -> str:
        """``<submission>/<array>/<index>``."""
        return f"{self.manifest.id}/{self.array}/{self.index}"

    def log(self) -> Path | None:
        """Its log; None while it has not begun."""
        alone = len(self.manifest.arrays[self.array].shards) == 1
        pattern = "*_0_log.out" if alone else f"*_{self.index}_0_log.out"
        return max((log for log in self.folder.glob(pattern) if log.is_file() and not log.is_symlink()), default=None)


def array_folder(results: Results, submission_id: str, array: int) -> Path:
    """Where submitit keeps one array's scripts, tasks and logs."""
    return results.submissions / submission_id / str(array)


def jobs_of(results: Results, manifests: list[Manifest], tasks: list[Task]) -> list[Job]:
    """Every job that was ever sent off, oldest first."""
    live = {(task.job_name, task.index): task for task in tasks}
    return [
        Job(manifest, a, i, array_folder(results, manifest.id, a), live.get((array.job_name, i)))
        for manifest in manifests
        for a, array in enumerate(manifest.arrays)
        for i in range(len(array.shards))
    ]


def live_runs(results: Results) -> dict[str, Task]:
    """Run id → the live task that has it, waiting or running: one ``squeue``, none where nothing was submitted.

    Raises:
        ClusterError: SLURM does not answer.
    """
    manifests = results.manifests()
    tasks = queue(array.job_name for manifest in manifests for array in manifest.arrays)
    jobs = jobs_of(results, manifests, tasks) if tasks else []
    return {run_id: job.task for job in jobs if job.task for run_id in job.shard.run_ids}


def job_ids(folder: Path) -> list[str]:
    """The SLURM ids of an array: submitit names its script by it."""
    return [file.name.removesuffix("_submission.sh") for file in folder.glob("*_submission.sh")]


@contextmanager
def exclusively(results: Results) -> Iterator[None]:
    """Only one ``submit`` at a time looks at what is free and takes it; the others wait here.

    Raises:
        ResultsError: the place is not writable.
    """
    try:
        results.submissions.mkdir(parents=True, exist_ok=True)
        handle = os.open(results.submissions / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        raise write_error(results.submissions, exc) from exc
    with os.fdopen(handle, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as exc:
            raise ResultsError(
                f"can't lock {results.submissions} ({exc.strerror}): choose a folder on a file system with flock"
            ) from exc
        yield
