"""SLURM's commands: who is in the queue, stop a job, put it back. One call each, and every failure is a sentence."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vendomini.errors import ClusterError
from vendomini.probe.commands import ask


@dataclass(frozen=True, slots=True)
class Task:
    """One live job, or one live task of an array.

    Attributes:
        job_id: of the array; with ``index``, ``123_4`` names the task.
        index: array index; 0 where the job is no array.
        state: ``PENDING``, ``RUNNING``, …
        reason: why it is pending.
    """

    job_name: str
    job_id: str
    index: int
    array: bool
    state: str
    reason: str

    @property
    def name(self) -> str:
        """As scancel and scontrol want it."""
        return f"{self.job_id}_{self.index}" if self.array else self.job_id


def queue(job_names: Iterable[str]) -> list[Task]:
    """The live tasks of these jobs: one ``squeue``, none if there are no names.

    Raises:
        ClusterError: SLURM is not here or does not answer.
    """
    names = sorted(set(job_names))
    if not names:
        return []
    text = _call("squeue", "-r", "-h", "-o", "%F|%K|%T|%r|%j", f"--name={','.join(names)}")
    tasks = []
    for line in text.splitlines():
        job_id, index, state, reason, name = line.strip().split("|", 4)
        if state != "COMPLETING":  # it will do no more work
            array = index.isdigit()
            tasks.append(Task(name, job_id, int(index) if array else 0, array, state, reason))
    return tasks


def ended(job_ids: Iterable[str]) -> dict[str, str]:
    """Task or job id → how it ended, such as ``FAILED (exit code 9)``: one ``sacct``, which may be switched off.

    Returns:
        Nothing where there is no accounting.
    """
    ids = ",".join(sorted(set(job_ids)))
    if not ids:
        return {}
    text, _ = ask(["sacct", "-n", "-P", "-X", "-D", "-j", ids, "-o", "JobID,State,ExitCode"], os.environ, timeout=30)
    states = {}
    for line in (text or "").splitlines():
        name, state, code = line.split("|")
        if not state.startswith(("PENDING", "RUNNING", "REQUEUED")):
            states[name] = state if code == "0:0" else f"{state} (exit code {_code(code)})"
    return states


def cancel(tasks: Sequence[Task]) -> None:
    """Raises:
    ClusterError: scancel refuses.
    """
    whole = {task.job_id for task in tasks}
    if whole:
        _call("scancel", *sorted(whole))


def requeue(name: str) -> None:
    """Puts a running job back into the queue; it keeps its id, array index and logs.

    Raises:
        ClusterError: the site does not allow it.
    """
    _call("scontrol", "requeue", name)


def user() -> str:
    return getpass.getuser()


def minutes(text: str) -> int | None:
    """SLURM's time, such as ``1-12:00:00``, ``90`` or ``00:30:00``, in whole minutes, seconds rounded up.

    Returns:
        None for ``infinite``, ``UNLIMITED`` and what is no time.
    """
    match = re.fullmatch(r"(?:([0-9]{1,9})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?", text.strip())
    if match is None:
        return None
    days, *rest = (int(part) if part else None for part in match.groups())
    first, second, third = rest
    if days is not None:
        seconds = days * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    elif third is not None:
        seconds = (first or 0) * 3600 + (second or 0) * 60 + third
    else:
        seconds = (first or 0) * 60 + (second or 0)
    return -(-seconds // 60)


def _code(exit_code: str) -> str:
    status, _, signum = exit_code.partition(":")
    return status if signum in {"", "0"} else f"{status}, signal {signum}"


def _call(*command: str) -> str:
    text, reason = ask(command, os.environ, timeout=60)
    if text is None:
        hint = ": this is no SLURM login node" if "not installed" in reason else ""
        raise ClusterError(f"{reason}{hint}")
    return text
