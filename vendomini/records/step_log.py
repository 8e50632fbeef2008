"""The step log: appended to a line at a time, recovered after a crash, locked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from vendomini.errors import CorruptRecordError, ResultsError, RunLockedError
from vendomini.records.files import open_record, seal_line, unseal, write_error
from vendomini.records.kinds import StepRecord

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
"""A link in place of a log could point at any other file of the user, which opening would truncate and append to."""

_step_encoder = msgspec.json.Encoder()
_step_decoder = msgspec.json.Decoder(StepRecord)


class StepLog:
    """The step log of one run, open for appending and locked, so that two processes never write one run.

    The lock is the kernel's (``flock``) and is released when the process ends, however it ends: there are no stale
    locks. Opening cuts off a torn last line, which is all that a crash in mid-write can leave behind.

    Args:
        path: ``steps.jsonl`` of the run; its folder exists.

    Raises:
        RunLockedError: another process is writing this run.
        CorruptRecordError: a line before the last is damaged.
        ResultsError: the place is not writable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._line = bytearray()  # used again for every line
        self._open()

    def _open(self) -> None:
        try:
            self._fd = os.open(self.path, _FLAGS, 0o644)
        except OSError as exc:
            raise write_error(self.path, exc) from exc
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
        for record, end in step_lines(self.path):
            records.append(record)
            size = end
        if os.fstat(self._fd).st_size != size:
            os.ftruncate(self._fd, size)
        return records, size

    def set_aside(self, name: str) -> None:
        """Keeps what was logged under another name beside it, and begins an empty log.

        Raises:
            RunLockedError: another process has begun it meanwhile.
            ResultsError: the place is not writable.
        """
        old = self._fd
        try:
            os.rename(self.path, self.path.with_name(name))
            self._open()
        except OSError as exc:
            raise write_error(self.path, exc) from exc
        finally:
            os.close(old)

    def append(self, record: StepRecord) -> None:
        """Adds one line with one write; when the disk is full the log is left as it was.

        Raises:
            ResultsError: the line could not be written.
        """
        line = self._line
        _step_encoder.encode_into(record, line)
        seal_line(line)
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
        """Releases the lock. Closing twice is fine.

        Raises:
            ResultsError: the file system reports only now that it could not store what was written (a quota, on NFS).
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            os.close(fd)
        except OSError as exc:
            raise write_error(self.path, exc) from exc


def is_locked(path: Path) -> bool:
    """Whether a process is writing this log."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_steps(path: Path) -> Iterator[StepRecord]:
    """The steps of a log in order, one at a time; a torn last line (a run in progress) is left out.

    Raises:
        FileNotFoundError: there is no log.
        CorruptRecordError: a line before the last is damaged, or can't be read; or steps are missing or repeated.
    """
    for record, _ in step_lines(path):
        yield record


def step_lines(path: Path) -> Iterator[tuple[StepRecord, int]]:
    """Each step with the offset at which its line ends.

    Raises:
        FileNotFoundError, CorruptRecordError: as :func:`read_steps`.
    """
    end = 0
    with _reading(path) as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield decode_step(line, path, number), end


def last_steps(path: Path, count: int) -> list[StepRecord]:
    """The last complete steps of a log, at most ``count``, in order, without reading the rest; none where there is no
    log. A torn last line is left out.

    Raises:
        CorruptRecordError: one of these lines is damaged, missing or repeated.
    """
    try:
        lines = _last_lines(path, count)
    except FileNotFoundError:
        return []
    if not lines:
        return []
    first = _decode(lines[0], path, "one of the last lines").step if len(lines) == count else 1  # fewer are all
    return [decode_step(line, path, number) for number, line in enumerate(lines, first)]


def decode_step(line: bytes, path: Path, number: int) -> StepRecord:
    """The step in a line of a log.

    Raises:
        CorruptRecordError: it is damaged, or not step ``number``.
    """
    record = _decode(line, path, f"line {number}")
    if record.step != number:
        raise CorruptRecordError(f"{path} line {number} holds step {record.step}: {_REDO}")
    return record


def _decode(line: bytes, path: Path, which: str) -> StepRecord:
    try:
        return _step_decoder.decode(unseal(line.rstrip(b"\n")))
    except (ValueError, msgspec.MsgspecError) as exc:
        raise CorruptRecordError(f"{path} {which} is damaged ({exc}): {_REDO}") from exc


def _last_lines(path: Path, count: int) -> list[bytes]:
    """Reads backwards from the end."""
    with _reading(path) as file:
        position = file.seek(0, os.SEEK_END)
        chunks: list[bytes] = []
        newlines = 0
        while position > 0 and newlines <= count:
            size = min(_CHUNK, position)
            position -= size
            file.seek(position)
            chunks.append(file.read(size))
            newlines += chunks[-1].count(b"\n")
    lines = b"".join(reversed(chunks)).split(b"\n")[:-1]
    return lines[-count:]


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_record(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise CorruptRecordError(f"{path} can't be read ({exc.strerror}): {_REDO}") from exc


_CHUNK = 256 * 1024
_REDO = "this run is left alone; move its folder away and run again to redo it"
