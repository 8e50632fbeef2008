"""What an agent sends is untrusted: bounded, printable copies of it for results, logs and comparisons."""

from __future__ import annotations

import math

_DEPTH = 6
_ITEMS = 32
_CHARACTERS = 400
_INT64 = 1 << 63


def clip(value: object, limit: int = 80) -> str:
    """At most ``limit`` characters of a text, without lone surrogates; for another type, its name."""
    if not isinstance(value, str):
        return f"a value of type {type(value).__name__}"
    text = value if len(value) <= limit else value[: limit - 1] + "…"
    return text if text.isascii() else encodable(text)


def encodable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 can't carry, written out as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_safe(value: object, depth: int = _DEPTH) -> object:
    """A copy that JSON can carry, bounded in depth, length and size of its numbers.

    Not-a-number and infinities become null; integers beyond 64 bits, and what nests deeper than ``depth``, become a
    short text that says so; long texts, lists and objects are cut.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clip(value, _CHARACTERS)
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth == 0 or not isinstance(value, dict | list | tuple):
        return f"a value of type {type(value).__name__}"
    if isinstance(value, dict):
        items = list(value.items())[:_ITEMS]
        return {clip(key): json_safe(item, depth - 1) for key, item in items}
    return [json_safe(item, depth - 1) for item in value[:_ITEMS]]
