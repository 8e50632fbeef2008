"""A completion → an :class:`Action`. Nothing that a model can say raises, and nothing is guessed.

``ok`` is exactly one JSON object of the asked-for shape (behind a ``<think>`` block, where the model has one).
``repaired`` is a complete object that had to be dug out: prose or a fence around it, single quotes, trailing commas,
another key for the same thing. Everything else is ``unparsable``, and that is what the world is told: no action is
ever put in its place. A truncated object is not completed, since the missing part is what the agent meant to say.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from vendomini.worlds.steps import Action

MAX_SCAN = 65_536
"""Characters of a malformed completion that are searched for an object."""

MAX_CANDIDATES = 32
"""Opening braces at which an object is looked for."""

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

_decode = msgspec.json.Decoder().decode
_lenient = json.JSONDecoder(strict=False)
_THINK = re.compile(r"^\s*(?:<think>)?(?P<thought>.*?)</think>\s*", re.DOTALL)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_MARKS = re.compile(r"""[{}]|"(?:[^"\\]|\\.)*+"?|(?<![^\W_])'(?:[^'\\]|\\.)*+'?""", re.DOTALL)
"""Braces and quoted texts. A single quote behind a letter or digit is an apostrophe; a quote may be left open."""

_TOOL_KEYS = ("tool", "name", "tool_name", "action", "function")
_ARGUMENT_KEYS = ("arguments", "args", "parameters", "tool_input", "input")
_CARD_KEYS = ("prediction", "prediction_card", "card", "predictions")
_THOUGHT_KEYS = ("thought", "thoughts", "reasoning", "thinking")


def parse_completion(text: str) -> Action:
    """Reads a reply of the form ``{"thought", "tool", "arguments", "prediction"}``."""
    body, thinking = _split_thinking(text)
    try:
        reply = _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _repair(body, thinking)
    if type(reply) is dict and type(tool := reply.get("tool")) is str and type(reply.get("arguments")) is dict:
        thought = reply.get("thought", thinking)
        if type(thought) is str:
            return Action("ok", tool, _small(reply["arguments"]), _small(reply.get("prediction")), thought)
    return _repair(body, thinking)


def _split_thinking(text: str) -> tuple[str, str]:
    if "</think>" not in text:
        return text, ""
    match = _THINK.match(text)
    return (text[match.end() :], match["thought"].strip()) if match else (text, "")


def _repair(body: str, thinking: str) -> Action:
    """The first complete object in the text that names a tool."""
    for candidate in _objects(body[:MAX_SCAN]):
        action = _read_object(candidate, thinking)
        if action is not None:
            return action
    return Action("unparsable", None, None, None, thinking, _complaint(body))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every complete object in a text, from the left, none inside another."""
    position = text.find("{")
    for _ in range(MAX_CANDIDATES):
        if position < 0:
            return
        found, end = _object_at(text, position)
        if found is not None:
            yield found
        position = text.find("{", end)


def _object_at(text: str, start: int) -> tuple[dict[str, Any] | None, int]:
    """The object that begins at ``start`` and where it ends; else None and where to look on."""
    try:
        value, end = _lenient.raw_decode(text, start)
        return value, end
    except (ValueError, RecursionError):
        pass
    close = _balanced_end(text, start)
    if close is None:
        return None, start + 1
    piece = text[start:close]
    for read in (_without_trailing_commas, ast.literal_eval):
        try:
            value = read(piece)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(value, dict):
            return value, close
    return None, start + 1


def _without_trailing_commas(piece: str) -> Any:
    return json.loads(_TRAILING_COMMA.sub(r"\1", piece), strict=False)


def _balanced_end(text: str, start: int) -> int | None:
    """Where the braces that open at ``start`` are closed again, quotes respected."""
    depth = 0
    for mark in _MARKS.finditer(text, start):
        if (found := mark[0]) == "{":
            depth += 1
        elif found == "}":
            depth -= 1
            if not depth:
                return mark.end()
    return None


def _read_object(reply: dict[str, Any], thinking: str) -> Action | None:
    nested = reply.get("tool_call") or reply.get("function_call") or reply.get("function")
    if isinstance(nested, dict):
        reply = {**reply, **nested}
    tool = _first(reply, _TOOL_KEYS, str)
    if tool is None:
        return None
    arguments = _first(reply, _ARGUMENT_KEYS, dict | str)
    if isinstance(arguments, str):
        arguments = _json_object(arguments)
    card = _first(reply, _CARD_KEYS, object)
    thought = _first(reply, _THOUGHT_KEYS, str) or thinking
    return Action("repaired", _clean(tool), _clean(arguments or {}), _clean(card), _clean(thought))


def _first(reply: dict[str, Any], keys: tuple[str, ...], kind: Any) -> Any:
    return next((reply[key] for key in keys if key in reply and isinstance(reply[key], kind)), None)


def _json_object(text: str) -> Any:
    """Arguments as JSON in a string, as some chat APIs write them; any other string stays what it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _complaint(body: str) -> str:
    if not body.strip():
        return "the reply was empty"
    if "{" not in body:
        return "the reply holds no JSON object"
    return "the reply holds no complete JSON object that names a tool"


def _small(value: Any) -> Any:
    """:func:`_clean`, for what strict JSON can say: only where it nests or holds a long number is there work to do."""
    if type(value) is dict:
        for item in value.values():
            kind = type(item)
            if kind is dict or kind is list or (kind is int and not _INT64_MIN <= item <= _INT64_MAX):
                return _clean(value)
        return value
    return _clean(value)


def _clean(value: Any, depth: int = 0) -> Any:
    """The value as a log can hold it, so that what is replayed is what was done.

    Numbers without a JSON form (NaN, infinities) become null, integers beyond 64 bits floats, unpaired surrogates
    are replaced, keys are text, and what nests deeper than 32 becomes its text.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if _INT64_MIN <= value <= _INT64_MAX else _finite(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if depth > 32:
        return repr(type(value))
    if kind is dict:
        return {_clean(key if type(key) is str else str(key)): _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    return _clean(str(value))


def _finite(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
