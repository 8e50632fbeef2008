"""What it means when a server answers with an error, or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from vendomini.errors import EngineError

Kind = Literal["key", "quota", "model", "address", "too long", "withheld", "busy", "unreachable", "empty", "other"]
LONGEST = 300
"""Characters that are shown of what a server says."""

FOR_GOOD = frozenset({"key", "quota", "model", "address", "unreachable"})
"""Failures that the next run would meet as well."""

PASSING: frozenset[Kind] = frozenset({"busy", "unreachable", "empty"})
"""Failures that may be gone at the next try."""


class Failure(EngineError):
    """One request brought nothing.

    Args:
        kind: why, as far as it affects what to do next.
        sentence: for people.
        said: the server's own words, where it had any.
        wait: seconds that the server asks us to wait.
    """

    def __init__(self, kind: Kind, sentence: str, said: Said | None = None, wait: float | None = None) -> None:
        super().__init__(sentence)
        self.kind: Kind = kind
        self.said, self.wait = said, wait


@dataclass(frozen=True, slots=True)
class Said:
    """An error answer.

    Attributes:
        status: of HTTP, or what the error itself gives as its code.
        text: what it says, in one line.
        code: the machine-readable names of the error, one behind the other.
        parameter: the field of the request that it is about, if it names one.
    """

    status: int
    text: str
    code: str = ""
    parameter: str | None = None

    def __str__(self) -> str:
        return f"{self.status}: {self.text:.{LONGEST}}" if self.text else str(self.status)


def read_error(status: int, answer: object, body: str) -> Said:
    """Finds the message in the forms in which servers send errors.

    Args:
        answer: the decoded JSON; None where the body is none.
        body: as text.
    """
    if not isinstance(answer, dict):
        return Said(status, _line(_TAGS.sub(" ", body) if "<" in body else body))
    error = answer.get("error", answer)
    if not isinstance(error, dict):
        return Said(_status(None, status), _line(str(error)))
    detail = error.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        place = detail[0].get("loc") or [None]
        names = [str(part) for part in place if isinstance(part, str) and part != "body"]
        return Said(status, _line(f"{detail[0].get('msg')}: {'.'.join(names)}"), "", names[0] if names else None)
    text = next((error[key] for key in ("message", "msg", "detail", "error") if isinstance(error.get(key), str)), body)
    codes = [str(error[key]) for key in ("code", "type", "status") if error.get(key) is not None]
    parameter = error.get("param")
    return Said(_status(error.get("code"), status), _line(text), " ".join(codes), parameter and str(parameter))


def _status(code: object, status: int) -> int:
    """An answer of status 200 may still hold an error, with a status of its own."""
    if status >= 400:
        return status
    return int(str(code)) if re.fullmatch(r"[45]\d\d", str(code)) else 500


_TAGS = re.compile(r"<(script|style|head)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


_TOO_LONG = re.compile(
    r"context.?length|context.?window|context.?size|(prompt|input|request|message)s?( is| are)? too (long|large|big)"
    r"|reduce the length|too many (input )?tokens|max_new_tokens. must be|must have less than \d+ tokens"
    r"|input token count|prompt contains \d+ tokens|longer than the (model|maximum)|exceeds? the max(imum)? number of"
    r" (input )?tokens|maximum (input|prompt|sequence) length",
    re.IGNORECASE,
)
_QUOTA = re.compile(r"insufficient.?(quota|balance|credit)|credit balance|billing|payment required", re.IGNORECASE)
_WITHHELD = re.compile(
    r"content.?(filter|management|policy|moderation)|moderation|responsible.?ai|flagged|data_inspection"
    r"|output limit was reached",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"model.?not.?found|(?:model|deployment)\b.{0,200}?(?:not exist|not found|not available|unknown|decommissioned)"
    r"|(?:unknown|invalid|no such|find|load) model|invalid_model|deploymentnotfound",
    re.IGNORECASE,
)
_WAIT = re.compile(r"(?:try again|retry) in (?:(\d+)m)?(\d+(?:\.\d+)?)(ms|s)", re.IGNORECASE)


def kind_of(said: Said, wait: float | None) -> Kind:
    """What an error answer is about.

    Args:
        wait: seconds after which the server says that it can be asked again: then a quota is only a rate limit.
    """
    words = f"{said.code} {said.text}"
    if said.status == 413 or (said.status != 404 and _TOO_LONG.search(words)):
        return "too long"
    if said.status == 402 or (wait is None and said.status < 500 and _QUOTA.search(words)):
        return "quota"
    if said.status in {400, 403, 422, 451} and _WITHHELD.search(words):
        return "withheld"
    if said.status in {401, 403}:
        return "key"
    if said.status in {400, 404, 410, 422} and _MODEL.search(words):
        return "model"
    if said.status in {404, 405, 410} or 300 <= said.status < 400:
        return "address"
    if said.status >= 500 or said.status in {408, 409, 425, 429}:
        return "busy"
    return "other"


def told_to_wait(said: Said) -> float | None:
    """Seconds after which a server's text says that it can be asked again."""
    found = _WAIT.search(said.text)
    if not found:
        return None
    minutes, number, unit = found.groups()
    return int(minutes or 0) * 60 + float(number) / (1000 if unit == "ms" else 1)
