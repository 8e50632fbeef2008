"""Whole files: sealed, written under a temporary name and moved into place."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from vendomini.errors import CorruptRecordError, ResultsError
from vendomini.records.kinds import SCHEMA_VERSION, FormerFigures, Record, RunSummary

_SEAL = b',"crc":"%08x"}'
_SEAL_LENGTH = len(_SEAL % 0)
_SEALED_LINE = _SEAL + b"\n"


def seal(encoded: bytes) -> bytes:
    """A JSON object with the CRC-32 of its own bytes as its last key."""
    return encoded[:-1] + _SEAL % zlib.crc32(encoded)


def seal_line(line: bytearray) -> None:
    """Seal a line in place, and end it."""
    line[-1:] = _SEALED_LINE % zlib.crc32(line)


def unseal(line: bytes) -> bytes:
    """The object without its seal.

    Raises:
        ValueError: the seal is missing or does not match.
    """
    body = line[:-_SEAL_LENGTH] + b"}"
    if line[-_SEAL_LENGTH:] != _SEAL % zlib.crc32(body):
        raise ValueError("its checksum does not match its content")
    return body


def open_record(path: Path | str, buffering: int = -1) -> BinaryIO:
    """A file of a results folder, for reading. The folder may come from anyone: a link could point at any of the
    reader's own files, and a pipe or a device would never end.

    Args:
        buffering: as for ``open``; 0 for reading everything at once.

    Raises:
        OSError: it can't be opened.
        CorruptRecordError: it is not a plain file.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering)
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    except OSError as exc:
        if exc.errno not in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise
    raise CorruptRecordError(f"{path} is a link, a folder or a device, which no record is: it is not read")


def read_record(path: Path | str, kind: type[Record]) -> Record:
    """A sealed file.

    Raises:
        FileNotFoundError: it does not exist.
        CorruptRecordError: it is damaged, of another schema version, or can't be read.
    """
    try:
        with open_record(path, buffering=0) as file:
            data = file.read()
    except FileNotFoundError:
        raise
    except NotADirectoryError as exc:
        raise CorruptRecordError(_no_folder(Path(path).parent)) from exc
    except OSError as exc:
        raise CorruptRecordError(f"can't read {path}: {exc.strerror}") from exc
    return decode_record(path, data, kind)


def decode_record(path: Path | str, data: bytes, kind: type[Record]) -> Record:
    """The content of a sealed file.

    Raises:
        CorruptRecordError: it is damaged or of another schema version.
    """
    try:
        return _decode(path, unseal(data.rstrip(b"\n")), kind)
    except (ValueError, msgspec.MsgspecError) as exc:
        raise CorruptRecordError(f"{path} is damaged ({exc}): move it away and run again to make it anew") from exc


def _decode(path: Path | str, body: bytes, kind: type[Record]) -> Record:
    """The record. Another schema version is refused by number, even where the content can't be decoded."""
    try:
        record = msgspec.json.decode(body, type=kind)
        version = record.schema
    except msgspec.ValidationError:
        version = msgspec.json.decode(body, type=_Versioned).schema
        if version == SCHEMA_VERSION:
            raise
    if version != SCHEMA_VERSION:
        raise CorruptRecordError(_other_schema(path, version))
    if isinstance(record, RunSummary) and not record.world:
        record.world = msgspec.to_builtins(msgspec.json.decode(body, type=FormerFigures))
    return record


def encode_record(record: Record) -> bytes:
    """The content of a sealed file.

    Raises:
        ResultsError: a field holds what no reader would accept (msgspec checks types only when decoding).
    """
    encoded = msgspec.json.encode(record)
    try:
        msgspec.json.decode(encoded, type=type(record))
    except msgspec.ValidationError as exc:
        raise ResultsError(f"a {type(record).__name__} that can't be read again is not written ({exc})") from exc
    return seal(encoded) + b"\n"


def write_record(path: Path, record: Record) -> None:
    """Writes a sealed file so that a reader sees the old content or the new, never half of it.

    Raises:
        ResultsError: the place is full or read-only.
    """
    write_atomically(path, encode_record(record))


def write_atomically(path: Path, data: bytes) -> None:
    """Writes under a temporary name of this process, syncs, and moves the file into place.

    Raises:
        ResultsError: the place is full or read-only.
    """
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as exc:
        raise write_error(path, exc) from exc


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, which is moved to ``path`` when it is complete, and is gone if it never is.

    Others with write access to the folder may put links under both names: neither is followed.

    Raises:
        OSError: the place is full or read-only.
    """
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_full(exc: Exception) -> bool:
    """Whether the error was for lack of space."""
    return isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _FULL


def write_error(path: Path, exc: OSError) -> ResultsError:
    """The sentence for a write that failed."""
    if isinstance(exc, FileExistsError | NotADirectoryError):
        return ResultsError(_no_folder(path))
    if exc.errno in _FULL:
        return ResultsError(
            f"no space left for {path} ({exc.strerror}): free some or choose another folder with --results; "
            "what is written is kept, and the same command goes on from there"
        )
    return ResultsError(f"can't write {path} ({exc.strerror}): choose another folder with --results")


def _no_folder(path: Path) -> str:
    return f"there is a file where {path} should be a folder: move it away and run again"


class _Versioned(msgspec.Struct):
    schema: int = 0


def _other_schema(path: Path | str, version: int) -> str:
    return (
        f"{path} has schema version {version}, this program writes {SCHEMA_VERSION}: "
        "finish it with the version that began it, or use another results folder"
    )
