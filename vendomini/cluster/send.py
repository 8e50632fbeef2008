"""Hands scripts over to SLURM, each exactly once, even if the answer gets lost on the way."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vendomini.cluster.slurm import LIMIT, PATIENCE_S, queue, steering_variables
from vendomini.cluster.submit import Submission
from vendomini.cluster.tasks import write_tasks
from vendomini.errors import ClusterError, ResultsError
from vendomini.probe.commands import every_line
from vendomini.probe.slurm import PASSING
from vendomini.records import write_record


class SubmitLimitError(ClusterError):
    """The queue takes no more jobs from this user now.

    Attributes:
        sent: ids of the arrays of the same submission that it did take.
    """

    sent: Sequence[str] = ()


def send(submission: Submission, scripts: Sequence[str]) -> list[str]:
    """Writes the tasks' files and the manifest, then hands over array by array.

    Returns:
        The SLURM job ids.

    Raises:
        SubmitLimitError: no more jobs are allowed now.
        ClusterError: sbatch refuses. In both cases arrays that were sent before stay in the queue, which the message
            says and the next submit knows; where certainly none was, nothing is left behind.
        ResultsError: the place is not writable.
    """
    folder = submission.manifest_file.parent
    folder.mkdir(parents=True)
    try:
        write_tasks(submission.results, submission.manifest)
        write_record(submission.manifest_file, submission.manifest)
    except ResultsError:
        shutil.rmtree(folder)
        raise
    sent: list[str] = []
    for k, script in enumerate(scripts):
        try:
            sent.append(_send(submission, k, script))
        except ClusterError as exc:
            if not sent and not PASSING.search(str(exc)):
                shutil.rmtree(folder)
            refusal = type(exc)(_refusal(submission, sent, str(exc)))
            if isinstance(refusal, SubmitLimitError):
                refusal.sent = sent
            raise refusal from exc
    return sent


def _refusal(submission: Submission, sent: list[str], why: str) -> str:
    total, hint = len(submission.manifest.arrays), ""
    if PASSING.search(why):
        hint = " What it took all the same, the next command finds in the queue."
    if LIMIT.search(why):
        hint = " Fewer, longer jobs may fit: --max-jobs; or send the rest when these have ended (vendomini keep does)."
    if not sent:
        return f"nothing was submitted, sbatch refuses: {why}.{hint}"
    return (
        f"array {len(sent) + 1} of {total} was refused: {why}. What was sent before is in the queue (job "
        f"{', '.join(sent)}); the same `vendomini submit` later sends what is missing.{hint}"
    )


def _send(submission: Submission, k: int, script: str) -> str:
    """One array; where sbatch does not say whether the job was taken, the queue does: its name is unique."""
    array = submission.manifest.arrays[k]
    end, pause = time.monotonic() + PATIENCE_S, 1.0
    while True:
        try:
            return sbatch(submission.folder(k), script)
        except ClusterError as exc:
            if not PASSING.search(str(exc)) or isinstance(exc, SubmitLimitError):
                raise
            if taken := queue([array.job_name], array.clusters.split(",")):
                return taken[0].job_id
            if time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        pause *= 2


def sbatch(folder: Path, script: str) -> str:
    """Send a script through submitit, which calls sbatch and files the script under the job's id.

    Raises:
        SubmitLimitError: no more jobs are allowed now.
        ClusterError: sbatch refuses otherwise.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        return str(_executor()(folder, script)._submit_command("").job_id)
    except (FailedJobError, FailedSubmissionError, RuntimeError) as exc:
        reason = every_line(str(exc)) or type(exc).__name__
        raise (SubmitLimitError if LIMIT.search(reason) else ClusterError)(reason) from exc


def job_id(output: str) -> str:
    """The id in what ``sbatch --parsable`` prints, ``123`` or ``123;cluster``, among whatever a wrapper prints.

    Raises:
        ClusterError: there is none.
    """
    found = re.findall(r"^(\d+)(?:;\S*)?$", output, re.MULTILINE)
    if not found:
        raise ClusterError(f"sbatch named no job: {every_line(output) or 'it said nothing'}")
    return str(found[-1])


def _executor() -> Any:
    """submitit's, with our script, our options of sbatch, and none of the variables that would overrule them.

    These four methods are submitit's hooks for other schedulers; ``tests/cluster/test_submitit.py`` fails, and says so,
    when they change.
    """
    import submitit

    class Executor(submitit.SlurmExecutor):  # type: ignore[misc]
        def __init__(self, folder: Path, script: str) -> None:
            super().__init__(folder)
            self._script = script

        def _make_submission_file_text(self, *_: str) -> str:
            return self._script

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            unset = [word for name in steering_variables(os.environ) for word in ("-u", name)]
            return ["env", *unset, "sbatch", "--parsable", str(submission_file_path)]

        @staticmethod
        def _get_job_id_from_submission_command(string: bytes | str) -> str:
            return job_id(string if isinstance(string, str) else string.decode(errors="replace"))

    return Executor
