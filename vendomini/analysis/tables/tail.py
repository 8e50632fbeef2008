"""The end of a step log, without reading the rest."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from vendomini.errors import CorruptRecordError
from vendomini.records import StepRecord, open_record, unseal

_CHUNK = 256 * 1024


def last_steps(path: Path, count: int) -> list[StepRecord]:
    """The last complete steps of a log, at most ``count``, in order; a torn last line is left out.

    Raises:
        CorruptRecordError: one of these lines is damaged, missing or repeated.
    """
    try:
        steps = [msgspec.json.decode(unseal(line), type=StepRecord) for line in _last_lines(path, count)]
    except FileNotFoundError:
        return []
    except (ValueError, msgspec.MsgspecError) as exc:
        raise CorruptRecordError(f"one of the last lines of {path} is damaged ({exc})") from exc
    numbers = [step.step for step in steps]
    first = numbers[0] if len(numbers) == count else 1  # fewer are the whole log
    if numbers != list(range(first, first + len(numbers))):
        raise CorruptRecordError(f"the last lines of {path} are not steps that follow each other")
    return steps


def _last_lines(path: Path, count: int) -> list[bytes]:
    """Reads backwards from the end."""
    with open_record(path) as file:
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
