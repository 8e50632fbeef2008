"""SLURM's commands: what is in the queue, how jobs ended, stop a job, put it back.

Every call runs without the variables that would override our options, waits out transient errors, reads only the rows
it asked for, and turns any other failure into one sentence with SLURM's own reason.
"""

from __future__ import annotations

import pwd
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vendomini.errors import ClusterError
from vendomini.probe.slurm import PASSING, TIMEOUT_S, ask_slurm, environment

PATIENCE_S = 30.0
"""How long a user waits for a transient error to pass; a job that has to requeue itself waits longer."""

CHUNK = 50_000
"""Characters of one argument: the kernel takes 128 KiB."""

LIMIT = re.compile(r"MaxSubmit|job submit limit", re.IGNORECASE)
"""How SLURM reports that a user has reached the limit of jobs in the queue."""

HIDDEN = "HIDDEN"
"""The state of a job that only its user can see."""

ROW = "vendomini"
"""Marks our rows among what a site's wrappers print."""


@dataclass(frozen=True, slots=True)
class Task:
    """One live job, or one live task of an array.

    Attributes:
        job_id: of the array; with ``index``, ``123_4`` names the task.
        index: array index; 0 where the job is no array.
        state: ``PENDING``, ``RUNNING``, …
        reason: why it is pending.
        cluster: where it is, if not on the cluster that SLURM's commands talk to by default.
    """

    job_name: str
    job_id: str
    index: int
    array: bool
    state: str
    reason: str
    cluster: str = ""

    @property
    def name(self) -> str:
        """The task's name for scancel and scontrol."""
        return f"{self.job_id}_{self.index}" if self.array else self.job_id

    @property
    def hidden(self) -> bool:
        return self.state == HIDDEN

    @classmethod
    def of_another_user(cls, job_name: str, job_id: str, index: int, uid: int) -> Task:
        """A job that the cluster does not show, and that may be live."""
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            user = f"user {uid}"
        return cls(job_name, job_id, index, False, HIDDEN, f"a job of {user}, which this cluster hides from you")


@dataclass(frozen=True, slots=True)
class End:
    """How one start of a job ended, as accounting has it.

    Attributes:
        state: ``FAILED``, ``NODE_FAIL``, ``PREEMPTED``, …
        code: its exit code, ``0`` or ``9, signal 15``.
        nodes: where it ran.
    """

    state: str
    code: str
    nodes: str

    def __str__(self) -> str:
        return self.state if self.code == "0" else f"{self.state} (exit code {self.code})"


def queue(job_names: Iterable[str], clusters: Iterable[str] = ("",)) -> list[Task]:
    """The live tasks of these jobs, whoever sent them; a job that is still completing is live: it may be requeued.

    Args:
        clusters: asked one by one: a cluster that is down must not make its jobs look gone.

    Raises:
        ClusterError: SLURM is not here or does not answer.
    """
    wanted = set(job_names)
    tasks = []
    for cluster in sorted(set(clusters)) if wanted else ():
        for names in _chunks(wanted):
            line = f"{ROW}|%F|%K|%T|%r|%j"
            text = call("squeue", *_on(cluster), "-a", "-r", "-h", "-o", line, f"--name={names}")
            tasks += [task for task in _tasks(text, cluster) if task.job_name in wanted]
    return tasks


def _tasks(text: str, cluster: str) -> Iterator[Task]:
    row = re.compile(rf"{ROW}\|(\d+)\|([^|]*)\|([A-Z_]+)\|([^|]*)\|(.*)")
    for line in text.splitlines():
        if match := row.fullmatch(line.strip()):
            job_id, index, state, reason, name = match.groups()
            array = index.isdigit()
            yield Task(name, job_id, int(index) if array else 0, array, state, reason, cluster)


def ended(job_ids: Iterable[str], job_names: Iterable[str], clusters: Iterable[str] = ("",)) -> dict[str, list[End]]:
    """Task or job id → how each of its starts ended, from ``sacct``.

    Args:
        job_names: of these jobs: a site that has restarted its numbering has used the same ids before.

    Returns:
        Nothing where there is no accounting.
    """
    found: dict[str, list[End]] = {}
    names = set(job_names)
    row = re.compile(r"(\d+(?:_\d+)?)\|([A-Z_]+(?: by \d+)?)\|(\d+:\d+)\|([^|]*)\|(.*)")
    columns = "JobID,State,ExitCode,NodeList,JobName"
    for cluster in sorted(set(clusters)):
        for ids in _chunks(set(job_ids)):
            try:
                text = call("sacct", *_on(cluster), "-n", "-P", "-X", "-D", "-j", ids, "-o", columns, patience=5.0)
            except ClusterError:
                continue
            for match in (row.fullmatch(line.strip()) for line in text.splitlines()):
                if match and match[5] in names and not match[2].startswith(("PENDING", "RUNNING", "REQUEUED")):
                    found.setdefault(match[1], []).append(End(match[2], _code(match[3]), match[4]))
    return found


def cancel(tasks: Sequence[Task]) -> None:
    """Raises:
    ClusterError: scancel refuses.
    """
    for cluster in sorted({task.cluster for task in tasks}):
        ids = sorted({task.job_id for task in tasks if task.cluster == cluster})
        for some in (ids[i : i + 1000] for i in range(0, len(ids), 1000)):
            call("scancel", *_on(cluster), *some)


def requeue(name: str, patience: float) -> None:
    """Puts a running job back into the queue; it keeps its id, array index and logs.

    Args:
        patience: seconds to wait for a controller that does not answer.

    Raises:
        ClusterError: the site does not allow it.
    """
    call("scontrol", "requeue", name, patience=patience)


def is_ending(job_id: str) -> bool | None:
    """Whether SLURM is about to end a running job: it is cancelled, preempted, or its time is up; None if unknown."""
    text, _ = ask_slurm(["scontrol", "show", "job", job_id], TIMEOUT_S)
    state = re.search(r"\bJobState=(\w+)", text or "")
    if text is None or state is None:
        return None
    preempted = re.search(r"\bPreemptTime=(\S+)", text)
    return state[1] != "RUNNING" or (preempted is not None and preempted[1] != "None")


def hides_others_jobs(cluster: str = "") -> bool:
    """Whether this cluster shows users their own jobs only (``PrivateData=jobs``).

    Raises:
        ClusterError: SLURM does not answer.
    """
    text = call("scontrol", *_on(cluster), "show", "config")
    return any("jobs" in private for private in re.findall(r"^PrivateData\s*=\s*(.*)$", text, re.MULTILINE))


def call(*command: str, patience: float = PATIENCE_S) -> str:
    """What one of SLURM's commands printed.

    Args:
        patience: seconds to allow for a transient error, such as a busy controller.

    Raises:
        ClusterError: it is not here, refuses, or does not answer.
    """
    end, pause = time.monotonic() + patience, 1.0
    while True:
        text, reason = ask_slurm(command, TIMEOUT_S)
        if text is not None:
            return text
        if not PASSING.search(reason) or time.monotonic() + pause > end:
            hint = ": this is no SLURM login node" if "not installed" in reason else ""
            raise ClusterError(f"{reason}{hint}")
        time.sleep(pause)
        pause = min(2 * pause, 15.0)


def steering_variables(environ: Mapping[str, str]) -> list[str]:
    """The names of the variables that :func:`environment` leaves out."""
    return sorted(environ.keys() - environment(environ).keys())


def minutes(text: str) -> int | None:
    """SLURM's time, such as ``1-12:00:00``, ``90`` or ``00:30:00``, in whole minutes, seconds rounded up.

    Returns:
        None for ``infinite``, ``UNLIMITED`` and anything that is not a time.
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


def _on(cluster: str) -> list[str]:
    return ["-M", cluster] if cluster else []


def _chunks(words: set[str]) -> Iterator[str]:
    """Comma-separated, each short enough for one argument."""
    chunk: list[str] = []
    size = 0
    for word in sorted(words):
        if chunk and size + len(word) > CHUNK:
            yield ",".join(chunk)
            chunk, size = [], 0
        chunk.append(word)
        size += len(word) + 1
    if chunk:
        yield ",".join(chunk)
