"""JSON objects in a text, also those that are not quite JSON."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CANDIDATES = 32
"""Opening braces at which an object is looked for."""

_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_MARKS = re.compile(r"""[{}]|"(?:[^"\\]|\\.)*+"?|(?<![^\W_])'(?:[^'\\]|\\.)*+'?""", re.DOTALL)
"""Braces and quoted texts. A single quote after a letter or digit is an apostrophe; a quote may be left open."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object in an answer, and its position."""

    value: dict[str, object]
    start: int
    end: int


class _KeyTwiceError(Exception):
    """An object has a key twice."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        times = Counter(key for key, _ in pairs)
        if [key for key in times if times[key] > 1] != ["thought"]:  # which doesn't change the call
            raise _KeyTwiceError
    return value


_lenient = json.JSONDecoder(strict=False, object_pairs_hook=_once)


def objects_in(text: str) -> Iterator[Found | None]:
    """Every complete object in a text, from the left, none inside another; None at one that is never closed."""
    position = text.find("{")
    for _ in range(MAX_CANDIDATES):
        if position < 0:
            return
        value, end = _object_at(text, position)
        if end is None:
            yield None
            return
        if value is not None:
            yield Found(value, position, end)
        position = text.find("{", end)
    yield None


def _object_at(text: str, start: int) -> tuple[dict[str, object] | None, int | None]:
    """The object that begins at ``start``, None where it can't be read, and where it ends, None where it doesn't."""
    try:
        value, end = _lenient.raw_decode(text, start)
        return value, end
    except _KeyTwiceError:
        return None, _balanced_end(text, start)
    except (ValueError, RecursionError):
        pass
    close = _balanced_end(text, start)
    if close is None:
        return None, None
    piece = text[start:close]
    for read in (_without_trailing_commas, ast.literal_eval):
        try:
            value = read(piece)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError, _KeyTwiceError):
            continue
        if isinstance(value, dict):
            return value, close
    return None, close


def _without_trailing_commas(piece: str) -> object:
    return _lenient.decode(_TRAILING_COMMA.sub(r"\1", piece))


def _balanced_end(text: str, start: int) -> int | None:
    """The end of the braces that open at ``start``; braces inside quotes don't count."""
    depth = 0
    for mark in _MARKS.finditer(text, start):
        if (found := mark[0]) == "{":
            depth += 1
        elif found == "}":
            depth -= 1
            if not depth:
                return mark.end()
    return None


def says_twice(answer: str, keys: int) -> bool:
    """Whether an object has a key twice, of which JSON readers silently keep the last.

    Args:
        keys: how many such a reader kept.
    """
    if answer.count(":") == keys:  # one colon for each
        return False
    try:
        _lenient.decode(answer)
    except (ValueError, RecursionError, _KeyTwiceError):
        return True
    return False
