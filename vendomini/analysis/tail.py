"""The end of a step log, without reading the rest."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from vendomini.errors import CorruptRecordError
from vendomini.records import StepRecord, unseal

_CHUNK = 64 * 1024


def last_step(path: Path) -> StepRecord | None:
    """The last complete step of a log, or None where there is none yet; a torn last line is left out.

    Raises:
        CorruptRecordError: that line is damaged.
    """
    try:
        line = _last_line(path)
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(unseal(line), type=StepRecord) if line else None
    except (ValueError, msgspec.MsgspecError) as exc:
        raise CorruptRecordError(f"the last line of {path} is damaged ({exc})") from exc


def _last_line(path: Path) -> bytes:
    """The last line that ends with a newline, without it; reads backwards from the end."""
    with open(path, "rb") as file:
        position = file.seek(0, os.SEEK_END)
        tail = b""
        while position > 0:
            size = min(_CHUNK, position)
            position -= size
            file.seek(position)
            tail = file.read(size) + tail
            complete = tail.rpartition(b"\n")[0]
            before, newline, line = complete.rpartition(b"\n")
            if newline or position == 0:
                return line
        return b""
