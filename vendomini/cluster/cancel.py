"""Stops what was submitted. Runs keep their logs: the next ``submit`` goes on from there."""

from __future__ import annotations

from vendomini.cluster.slurm import Task, cancel, queue
from vendomini.records import Results


def cancel_all(results: Results, submission: str | None = None) -> list[Task]:
    """Cancels every live job of a results folder, or of one submission.

    Returns:
        The tasks that were live.

    Raises:
        ClusterError: SLURM is not here or refuses.
    """
    manifests = [manifest for manifest in results.manifests() if submission in (None, manifest.id)]
    tasks = queue(array.job_name for manifest in manifests for array in manifest.arrays)
    cancel(tasks)
    return tasks
