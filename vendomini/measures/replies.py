"""Replies that can't be used: there is no call in them, or none that the world may take."""

from __future__ import annotations

from vendomini.records import StepRecord

CARD_ERRORS = frozenset({"card_missing", "card_invalid"})


def unusable(parse: str, reason: str | None, error: str | None) -> str | None:
    """Why a reply can't be used, in a word; None for a call that the world took, whatever came of it.

    Args:
        parse, reason: as in a :class:`StepRecord`.
        error: code of the error in its result.
    """
    if parse == "cut_off":
        return parse
    if parse == "unparsable":
        return reason or parse
    return error if error in CARD_ERRORS else None


def error_code(record: StepRecord) -> str | None:
    """Why the call of a logged step failed."""
    error = record.result.get("error")
    return str(error.get("code")) if isinstance(error, dict) else None
