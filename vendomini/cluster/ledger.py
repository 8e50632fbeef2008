"""Which job has which run: the manifests say what was submitted, the queue says which of it is still live."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vendomini.cluster.slurm import Task, cancel, hides_others_jobs, queue
from vendomini.errors import ResultsError
from vendomini.records import Manifest, Results, Shard, write_error

CANCELLED = "cancelled"
"""A file beside the manifest of a submission that was cancelled by name: accounting may be off, or late."""


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
    def clusters(self) -> list[str]:
        return self.manifest.arrays[self.array].clusters.split(",")

    @property
    def name(self) -> str:
        """``<submission>/<array>/<index>``."""
        return f"{self.manifest.id}/{self.array}/{self.index}"

    @property
    def was_sent(self) -> bool:
        """Whether sbatch took it; an array that was refused is in the manifest only."""
        return self.task is not None or self.log() is not None or bool(job_ids(self.folder))

    def log(self) -> Path | None:
        """Its log; None until it has begun."""
        alone = len(self.manifest.arrays[self.array].shards) == 1
        pattern = "*_0_log.out" if alone else f"*_{self.index}_0_log.out"
        return max((log for log in self.folder.glob(pattern) if log.is_file() and not log.is_symlink()), default=None)


def array_folder(results: Results, submission_id: str, array: int) -> Path:
    """The folder with one array's script and logs."""
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


def live_tasks(results: Results, manifests: list[Manifest]) -> list[Task]:
    """The tasks of these submissions in the queue, on whichever cluster; and, where a cluster shows users their own
    jobs only, every job of other users, since it may be live.

    Raises:
        ClusterError: SLURM does not answer.
    """
    names: dict[str, list[str]] = {}
    for manifest in manifests:
        for array in manifest.arrays:
            for cluster in array.clusters.split(","):
                names.setdefault(cluster, []).append(array.job_name)
    tasks = [task for cluster, some in names.items() for task in queue(some, [cluster])]
    return tasks + list(_hidden(results, manifests, {(task.job_name, task.index) for task in tasks}))


def _hidden(results: Results, manifests: list[Manifest], seen: set[tuple[str, int]]) -> Iterator[Task]:
    hides = cache(hides_others_jobs)
    for manifest in manifests:
        owner = (results.submissions / manifest.id / "manifest.json").stat().st_uid
        if os.geteuid() in (0, owner):  # root sees all
            continue
        for a, array in enumerate(manifest.arrays):
            ids = job_ids(array_folder(results, manifest.id, a))
            if ids and hides(array.clusters):
                places = [(array.job_name, i) for i in range(len(array.shards))]
                yield from (
                    Task.of_another_user(name, ids[-1], i, owner) for name, i in places if (name, i) not in seen
                )


def live_runs(results: Results) -> dict[str, Task]:
    """Run id → the live task that has it, waiting or running: one ``squeue``, none where nothing was submitted.

    Raises:
        ClusterError: SLURM does not answer.
    """
    manifests = results.manifests()
    tasks = live_tasks(results, manifests)
    jobs = jobs_of(results, manifests, tasks) if tasks else []
    return {run_id: job.task for job in jobs if job.task for run_id in job.shard.run_ids}


def cancel_all(results: Results, submission: str | None = None) -> list[Task]:
    """Cancels every live job of a results folder and the one that keeps it, or the jobs of one submission. Runs keep
    their logs.

    Returns:
        The tasks that were live.

    Raises:
        ClusterError: SLURM is not here or refuses.
    """
    manifests = [manifest for manifest in results.manifests() if submission in (None, manifest.id)]
    tasks = [task for task in live_tasks(results, manifests) if not task.hidden]
    if submission is None and manifests:
        cancel(live_keepers(results))
    cancel(tasks)
    names = {task.job_name for task in tasks}
    for manifest in manifests:
        if any(array.job_name in names for array in manifest.arrays):
            (results.submissions / manifest.id / CANCELLED).touch()
    return tasks


def keeper_name(results: Results) -> str:
    """Name of the job that keeps a results folder; always the same for one folder."""
    digest = hashlib.sha256(str(results.root.absolute()).encode()).hexdigest()[:12]
    return f"vendomini-keeper.{digest}"


def live_keepers(results: Results) -> list[Task]:
    """Raises:
    ClusterError: SLURM does not answer.
    """
    return queue([keeper_name(results)])


def job_ids(folder: Path) -> list[str]:
    """The SLURM ids of an array: its script is named by it."""
    return sorted(file.name.removesuffix("_submission.sh") for file in folder.glob("*_submission.sh"))


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
