"""JSON objects in a text, also those that are not quite JSON."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

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


class KeyTwiceError(Exception):
    """An object has a key twice, of which readers of JSON and Python silently keep the last."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        times = Counter(key for key, _ in pairs)
        if [key for key in times if times[key] > 1] != ["thought"]:  # which doesn't change the call
            raise KeyTwiceError
    return value


_lenient = json.JSONDecoder(strict=False, object_pairs_hook=_once)


def read_json(text: str) -> object:
    """The value of a text that is JSON from end to end.

    Raises:
        ValueError: it is not.
        KeyTwiceError: an object in it has a key twice.
        RecursionError: it nests too deeply.
    """
    value = msgspec.json.decode(text)
    if isinstance(value, dict | list):
        _lenient.decode(text)
    return value


def read_python(source: str | ast.expr) -> object:
    """The value of a literal.

    Raises:
        ValueError, SyntaxError, TypeError, RecursionError, MemoryError: it is none.
        KeyTwiceError: a dictionary in it has a key twice.
    """
    tree = ast.parse(source, mode="eval") if isinstance(source, str) else source
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _once([(key.value, None) for key in node.keys if isinstance(key, ast.Constant)])  # type: ignore[misc]
    return ast.literal_eval(tree)


def objects_in(text: str) -> Iterator[Found | None]:
    """Every complete object in a text, from the left, none inside another; None at one that is never closed.

    Raises:
        KeyTwiceError: one has a key twice.
    """
    position = text.find("{")
    for _ in range(MAX_CANDIDATES):
        if position < 0:
            return
        found, end = _object_at(text, position)
        if end is None:
            yield None
            return
        if found is not None:
            yield found
        position = text.find("{", end)
    yield None


def _object_at(text: str, start: int) -> tuple[Found | None, int | None]:
    """The object that begins at ``start``, None where it can't be read, and where it ends, None where it doesn't."""
    try:
        value, end = _lenient.raw_decode(text, start)
        return Found(value, start, end), end
    except (ValueError, RecursionError, KeyTwiceError):
        pass
    close = _balanced_end(text, start)
    if close is None:
        return None, None
    for read in (_lenient.decode, _without_trailing_commas, read_python):
        try:
            value = read(text[start:close])
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(value, dict):
            return Found(value, start, close), close
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
    """Whether an object has a key twice.

    Args:
        keys: how many a reader kept.
    """
    if answer.count(":") == keys:  # one colon for each
        return False
    try:
        _lenient.decode(answer)
    except (ValueError, RecursionError, KeyTwiceError):
        return True
    return False
