"""Values in the form that a log can hold, so that a replay repeats exactly what was done."""

from __future__ import annotations

import math

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def clean(value: object, depth: int = 0) -> object:
    """The value as JSON of 64-bit numbers.

    Numbers without a JSON form (NaN, infinities) become null, integers beyond 64 bits floats, unpaired surrogates
    are replaced, keys are text, and what nests deeper than 32 becomes its text.
    """
    if type(value) is str:
        return clean_text(value)
    if value is None or type(value) is bool:
        return value
    if type(value) is int:
        return value if _INT64_MIN <= value <= _INT64_MAX else _finite(value)
    if type(value) is float:
        return value if math.isfinite(value) else None
    if depth > 32:
        return repr(type(value))
    if type(value) is dict:
        return {clean_text(str(key)): clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item, depth + 1) for item in value]
    return clean_text(str(value))


def clean_text(text: str) -> str:
    """The text with unpaired surrogates, which UTF-8 can't carry, replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _finite(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
