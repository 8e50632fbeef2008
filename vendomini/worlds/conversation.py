"""The text form of a conversation: what an agent is shown, and what it answers. Defined here only.

A user message is ``RESULT {…}`` (from the second step on) and ``OBSERVATION {…}``, a line each; an answer is one JSON
object. Agents write it; controls and the trace viewer read it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypedDict, TypeVar

import msgspec

from vendomini.errors import EngineError

RESULT = "RESULT "
OBSERVATION = "OBSERVATION "

REMEMBERED = 8_192
"""Decoded messages that a control keeps."""

Seen = TypeVar("Seen")
ResultType = TypeVar("ResultType")
ObservationType = TypeVar("ObservationType")

_encode = msgspec.json.Encoder().encode


class Message(TypedDict):
    """One message of a chat; the role is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


class Reply(msgspec.Struct, frozen=True, gc=False):
    """The JSON object that an answer holds."""

    thought: str
    tool: str
    arguments: object
    prediction: object = msgspec.UNSET


def user_turn(observation: object, result: object | None) -> str:
    """A user message: the last call's result, if there was one, and what the agent sees now; both JSON-ready."""
    return joined_turn(_encode(observation).decode(), None if result is None else _encode(result).decode())


def joined_turn(observation: str, result: str | None) -> str:
    """:func:`user_turn` of JSON."""
    seen = f"{OBSERVATION}{observation}"
    return seen if result is None else f"{RESULT}{result}\n{seen}"


def split_turn(content: str) -> tuple[str, str]:
    """The JSON of the result, empty where there is none, and that of the observation.

    Raises:
        ValueError: it is not a user message of this form.
    """
    start = content.rfind(OBSERVATION)
    if start < 0:
        raise ValueError("it has no OBSERVATION line")
    return content[len(RESULT) : start], content[start + len(OBSERVATION) :]


def turn_reader(
    result: type[ResultType], observation: type[ObservationType]
) -> Callable[[str], tuple[ResultType | None, ObservationType]]:
    """What reads a user message of one world: the result, None where there is none, and the observation.

    It remembers what it has read, since old turns are read again whenever older ones are dropped. It raises
    :class:`EngineError` for a message that is not in the form that the prompt promises.
    """
    decode_result, decode_observation = msgspec.json.Decoder(result).decode, msgspec.json.Decoder(observation).decode

    @lru_cache(maxsize=REMEMBERED)
    def read(content: str) -> tuple[ResultType | None, ObservationType]:
        try:
            before, now = split_turn(content)
            return decode_result(before) if before else None, decode_observation(now)
        except ValueError as exc:
            raise EngineError(f"the scripted engine can't read this turn ({exc}): {content[:200]}") from exc

    return read


def write_reply(thought: str, tool: str, arguments: object, card: object | None) -> str:
    """The answer that makes this call."""
    return _encode(Reply(thought, tool, arguments, msgspec.UNSET if card is None else card)).decode()


class Control(ABC, Generic[Seen]):
    """A policy in place of a model: a pure function of the visible conversation and the request's seed.

    Attributes:
        name: as in ``scripted/<name>``.
    """

    name: ClassVar[str]

    @abstractmethod
    def read(self, messages: list[Message], seen: Seen | None, start: int) -> Seen:
        """What the messages say: those from ``start`` on, added to ``seen``, which has the ones before.

        Raises:
            EngineError: a message is not in the form that the prompt promises.
        """

    @abstractmethod
    def reply(self, seen: Seen, seed: int) -> str:
        """The completion, in the text form that a model is asked for."""


Controls = Mapping[str, type[Control[Any]]]
"""Name → control: what a world offers the scripted engine."""
