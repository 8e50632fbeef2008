"""The files of a results folder: what is in them, how they are appended to, and how they are read back.

::

    RESULTS/
      plans/<hash>.json            a resolved config: every run that was ever asked for here (immutable)
      runs/<run_id>/run.json       what this run is and who last started it
      runs/<run_id>/steps.jsonl    one object a step; this log is the checkpoint
      runs/<run_id>/summary.json   written once, when the run ended
      submissions/<id>/            what was sent to SLURM: manifest.json (immutable), and its jobs' scripts and logs

Every line and every file is *sealed*: its last key is the CRC-32 of what stands before it, so that a flipped byte
is found when it is read and not in a figure. Lines are appended with one ``write``; whole files are written under
a temporary name and moved into place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from vendomini.errors import CorruptRecordError, ResultsError, RunLockedError

SCHEMA_VERSION = 1
"""Of every file here. A reader refuses another version by name instead of guessing."""

ParseStatus = Literal["ok", "repaired", "unparsable"]
Ending = Literal["survived", "crashed", "bankrupt", "customers_lost", "failed"]
Severity = Literal["soft", "hard", "mission_abandon"]
JsonObject = dict[str, Any]


class StepRecord(msgspec.Struct, kw_only=True):
    """One step: what the agent saw, said and did, what came of it, and what the measures made of it.

    Steps count from 1. ``observation`` is what the agent was shown *before* it acted; ``result`` is the tool's
    answer; ``tool``, ``arguments`` and ``card`` are what the agent sent, valid or not. Values that do not exist are null, never 0. ``latency_s`` is the engine's own report; the scripted
    engine takes no time and reports none, which is what makes its logs equal byte by byte.
    """

    step: int
    day: int
    observation: JsonObject
    completion: str
    finish_reason: str
    parse: ParseStatus
    thought: str
    tool: str | None
    arguments: Any
    card: Any
    result: JsonObject
    shocks: list[JsonObject]
    resolved: list[JsonObject]
    pe: JsonObject
    detectors: JsonObject
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    latency_s: float | None


class RunInfo(msgspec.Struct, kw_only=True):
    """``run.json``: what a run is, and who last started it. Rewritten at every start.

    ``parameters`` is the run's full parameter tree, defaults included; ``owner`` has host, pid and, inside a job,
    the SLURM job id. ``attempt`` counts starts from 1.
    """

    schema: int = SCHEMA_VERSION
    run_id: str
    parameters: JsonObject
    seed: int
    replication: int
    system_prompt: str
    owner: JsonObject
    attempt: int
    started_at: str


class RunSummary(msgspec.Struct, kw_only=True):
    """``summary.json``: how a run ended.

    ``time_to_crash`` is in steps: the onset of the first crash, or the step of bankruptcy or of the last customer;
    without such an event it is ``max_steps`` and ``event_observed`` is false (right-censored). A ``failed`` run has
    neither: it says nothing about the agent, and is to be rerun.
    """

    schema: int = SCHEMA_VERSION
    run_id: str
    parameters: JsonObject
    seed: int
    replication: int
    ending: Ending
    crash_type: str | None = None
    severity: Severity | None = None
    time_to_crash: int | None = None
    event_observed: bool | None = None
    reason: str | None = None
    steps: int = 0
    days: int = 0
    detectors: JsonObject = {}
    orders_total: int = 0
    orders_fulfilled: int = 0
    orders_expired: int = 0
    budget: float | None = None
    net_worth: float | None = None
    pe: JsonObject = {}
    shocks: JsonObject = {}
    parse: JsonObject = {}
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    completion_tokens: int = 0
    seconds: float = 0.0
    attempt: int = 1
    engine: JsonObject = {}
    versions: JsonObject = {}
    ended_at: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run counts: anything but ``failed``."""
        return self.ending != "failed"


class Plan(msgspec.Struct, kw_only=True):
    """``plans/<hash>.json``: a resolved config, from which every run of it can be expanded again."""

    schema: int = SCHEMA_VERSION
    name: str
    runs: int
    config: JsonObject


class Shard(msgspec.Struct, kw_only=True, frozen=True):
    """The work of one SLURM job: runs of one model on one engine, in the order in which they start.

    ``seconds`` is how long the job was expected to take.
    """

    model: str
    run_ids: list[str]
    seconds: float


class ShardArray(msgspec.Struct, kw_only=True, frozen=True):
    """One job array: array task ``i`` runs ``shards[i]``, now and after every requeue.

    ``job_name`` is unique to this array, which is how the queue is asked about it; ``gpus`` names the template.
    """

    job_name: str
    gpus: int
    shards: list[Shard]


class Manifest(msgspec.Struct, kw_only=True):
    """``submissions/<id>/manifest.json``: everything that one ``vendomini submit`` sent off. Never rewritten.

    ``config`` is the resolved phase, from which each job expands its runs again; ``retries`` is how often a job tries
    a run again that failed in it.
    """

    schema: int = SCHEMA_VERSION
    id: str
    name: str
    config: JsonObject
    created_at: str
    retries: int
    arrays: list[ShardArray]

    def runs(self) -> Iterator[str]:
        """The id of every run in it."""
        return (run_id for array in self.arrays for shard in array.shards for run_id in shard.run_ids)


Record = TypeVar("Record", RunInfo, RunSummary, Plan, Manifest)


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Every file name of one run."""

    folder: Path

    @property
    def info(self) -> Path:
        return self.folder / "run.json"

    @property
    def steps(self) -> Path:
        return self.folder / "steps.jsonl"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"


@dataclass(frozen=True, slots=True)
class Results:
    """A results folder."""

    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def plans(self) -> Path:
        return self.root / "plans"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions"

    def manifests(self) -> list[Manifest]:
        """Every submission's manifest, oldest first."""
        files = sorted(self.submissions.glob("*/manifest.json"))
        return [read_record(file, Manifest) for file in files]

    def run(self, run_id: str) -> RunPaths:
        """Raises:
        ResultsError: the id is not a plain file name (no path leads out of the folder).
        """
        if not run_id or run_id in {".", ".."} or "/" in run_id or "\0" in run_id:
            raise ResultsError(f"{run_id!r} is not a run id")
        return RunPaths(self.runs / run_id)

    def run_ids(self) -> list[str]:
        """The ids of all runs that have a folder here, sorted."""
        try:
            with os.scandir(self.runs) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def summary(self, run_id: str) -> RunSummary | None:
        """The run's summary, or None while it has none.

        Raises:
            CorruptRecordError: the file is damaged.
        """
        try:
            return read_record(self.run(run_id).summary, RunSummary)
        except FileNotFoundError:
            return None

    def create(self) -> None:
        """Makes the folders.

        Raises:
            ResultsError: the place is not writable.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            self.plans.mkdir(exist_ok=True)
        except OSError as exc:
            raise write_error(self.root, exc) from exc


# ---------------------------------------------------------------------------------------------- sealing

_SEAL = b',"crc":"%08x"}'
_SEAL_LENGTH = len(_SEAL % 0)


def seal(encoded: bytes) -> bytes:
    """A JSON object with the CRC-32 of its own bytes as its last key."""
    return encoded[:-1] + _SEAL % zlib.crc32(encoded)


def unseal(line: bytes) -> bytes:
    """The object without its seal.

    Raises:
        ValueError: the seal is missing or does not match.
    """
    body = line[:-_SEAL_LENGTH] + b"}"
    if line[-_SEAL_LENGTH:] != _SEAL % zlib.crc32(body):
        raise ValueError("its checksum does not match its content")
    return body


# ----------------------------------------------------------------------------------------- whole files


def read_record(path: Path, kind: type[Record]) -> Record:
    """A sealed file.

    Raises:
        FileNotFoundError: it does not exist.
        CorruptRecordError: it is damaged or of another schema version.
        ResultsError: it can't be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise ResultsError(f"can't read {path}: {exc.strerror}") from exc
    try:
        body = unseal(data.rstrip(b"\n"))
        version = msgspec.json.decode(body, type=_Versioned).schema
        if version != SCHEMA_VERSION:
            raise CorruptRecordError(_other_schema(path, version))
        return msgspec.json.decode(body, type=kind)
    except (ValueError, msgspec.MsgspecError) as exc:
        raise CorruptRecordError(f"{path} is damaged ({exc}): move it away and run again to make it anew") from exc


def write_record(path: Path, record: Record) -> None:
    """Writes a sealed file so that a reader sees the old content or the new, never half of it.

    Raises:
        ResultsError: the place is full or read-only.
    """
    write_atomically(path, seal(msgspec.json.encode(record)) + b"\n")


def write_atomically(path: Path, data: bytes) -> None:
    """Writes under a temporary name of this process, syncs, and moves the file into place.

    Raises:
        ResultsError: the place is full or read-only.
    """
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise write_error(path, exc) from exc


def write_error(path: Path, exc: OSError) -> ResultsError:
    """The sentence for a write that failed."""
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ResultsError(
            f"no space left for {path} ({exc.strerror}): free some or choose another folder with --results; "
            "what is written is kept, and the same command goes on from there"
        )
    return ResultsError(f"can't write {path} ({exc.strerror}): choose another folder with --results")


class _Versioned(msgspec.Struct):
    schema: int = 0


def _other_schema(path: Path, version: int) -> str:
    return (
        f"{path} has schema version {version}, this program writes {SCHEMA_VERSION}: "
        "finish it with the version that began it, or use another results folder"
    )


# --------------------------------------------------------------------------------------------- step logs

_step_encoder = msgspec.json.Encoder()
_step_decoder = msgspec.json.Decoder(StepRecord)


class StepLog:
    """The step log of one run, open for appending and locked, so that two processes never write one run.

    The lock is the kernel's (``flock``) and ends with the process, however that ends: there are no stale locks.
    Opening cuts off a torn last line, which is all that a crash in mid-write can leave behind.

    Args:
        path: ``steps.jsonl`` of the run; its folder exists.

    Raises:
        RunLockedError: another process is writing this run.
        CorruptRecordError: a line before the last is damaged.
        ResultsError: the place is not writable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise write_error(path, exc) from exc
        try:
            self._lock()
            self.records, self._size = self._recover()
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise RunLockedError(f"{self.path.parent.name} is being written by another process") from exc
        except OSError as exc:
            raise ResultsError(
                f"can't lock {self.path} ({exc.strerror}): choose a results folder on a file system with flock"
            ) from exc

    def _recover(self) -> tuple[list[StepRecord], int]:
        records, size = [], 0
        for record, end in _scan(self.path):
            records.append(record)
            size = end
        if os.fstat(self._fd).st_size != size:
            os.ftruncate(self._fd, size)
        return records, size

    def append(self, record: StepRecord) -> None:
        """Adds one line with one write; when the disk is full the log is left as it was.

        Raises:
            ResultsError: the line could not be written.
        """
        line = seal(_step_encoder.encode(record)) + b"\n"
        try:
            written = os.write(self._fd, line)
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as exc:
            os.ftruncate(self._fd, self._size)
            raise write_error(self.path, exc) from exc
        self._size += len(line)

    def sync(self) -> None:
        """Forces what was appended to the disk.

        Raises:
            ResultsError: the disk refuses.
        """
        try:
            os.fsync(self._fd)
        except OSError as exc:
            raise write_error(self.path, exc) from exc

    def close(self) -> None:
        """Releases the lock. Closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_steps(path: Path) -> Iterator[StepRecord]:
    """The steps of a log in order, one at a time; a torn last line (a run in progress) is left out.

    Raises:
        FileNotFoundError: there is no log.
        CorruptRecordError: a line before the last is damaged, or steps are missing or repeated.
    """
    for record, _ in _scan(path):
        yield record


def _scan(path: Path) -> Iterator[tuple[StepRecord, int]]:
    """Each step with the offset at which its line ends."""
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = _step_decoder.decode(unseal(line[:-1]))
            except (ValueError, msgspec.MsgspecError) as exc:
                raise CorruptRecordError(f"{path} line {number} is damaged ({exc}): {_REDO}") from exc
            if record.step != number:
                raise CorruptRecordError(f"{path} line {number} holds step {record.step}: {_REDO}")
            end += len(line)
            yield record, end


_REDO = "this run is left alone; move its folder away and run again to redo it"
