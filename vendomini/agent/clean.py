"""Values in the form that a log can hold, so that a replay repeats exactly what was done."""

from __future__ import annotations

import math
from typing import Any

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def small(value: Any) -> Any:
    """:func:`clean`, for values from strict JSON: only nesting and long numbers need work."""
    if type(value) is dict:
        for item in value.values():
            kind = type(item)
            if kind is dict or kind is list or (kind is int and not _INT64_MIN <= item <= _INT64_MAX):
                return clean(value)
        return value
    return clean(value)


def clean(value: Any, depth: int = 0) -> Any:
    """The value as JSON of 64-bit numbers.

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
        return {clean(key if type(key) is str else str(key)): clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item, depth + 1) for item in value]
    return clean(str(value))


def _finite(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
