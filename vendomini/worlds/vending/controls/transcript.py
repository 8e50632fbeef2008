"""What a control reads and writes: the conversation's text, in the form in which a model gets it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from vendomini.errors import EngineError
from vendomini.worlds import conversation
from vendomini.worlds.conversation import REMEMBERED, turn_reader
from vendomini.worlds.protocol import Card
from vendomini.worlds.vending.answers import Answer, Observation


class Call(NamedTuple):
    """A tool call as written in a reply. ``arguments`` is unchecked."""

    tool: str
    arguments: Any


class Said(msgspec.Struct, frozen=True):
    """The parts of a reply that are read back; decoding the rest would only cost time."""

    tool: str
    arguments: dict[str, Any]


class Catalogue(NamedTuple):
    """What the system message says: suppliers, SKUs, tools, the fields of a prediction card, and the share of the price
    that a late customer keeps back."""

    suppliers: tuple[str, ...]
    skus: tuple[str, ...]
    tools: frozenset[str]
    card_fields: tuple[str, ...]
    late_penalty: float


read_turn = turn_reader(Answer, Observation)
_said = msgspec.json.Decoder(Said).decode

_LATE_PENALTY = re.compile(r"A late one pays (\d+)% less")


class _Calls(dict[str, Call | None]):
    """Completion → the call in it, as long as there is room; what was just written need not be decoded."""

    def __missing__(self, text: str) -> Call | None:
        try:
            said = _said(text)
        except ValueError:
            return self.add(text, None)
        return self.add(text, Call(said.tool, said.arguments))

    def add(self, text: str, call: Call | None) -> Call | None:
        if len(self) >= REMEMBERED:
            self.clear()
        self[text] = call
        return call


_calls = _Calls()
read_call = _calls.__getitem__
"""The call in one of the control's own completions; None where the text is not such a reply."""


def evident_call(result: Answer | None) -> Call | None:
    """The call that a result must belong to; None where it can't be told."""
    if result is None:
        return None
    if result.stock is not None:
        return Call("tool_check_storage", {})
    if result.supplier_orders is not None:
        return Call("tool_check_orders", {})
    return Call("tool_check_inbox", {}) if result.messages is not None else None


def write_reply(thought: str, call: Call, card: Card | None) -> str:
    """The completion that makes this call."""
    text = conversation.write_reply(thought, call.tool, call.arguments, card)
    _calls.add(text, call)
    return text


@lru_cache(maxsize=64)
def read_catalogue(system: str) -> Catalogue:
    """What the rules offer, from their ``TOOLS`` and ``REPLY`` lines.

    Raises:
        EngineError: the system message is not in the form that the prompt promises.
    """
    try:
        _, _, listing = system.rpartition("\nTOOLS\n")
        tools, _, reply = listing.partition("\nREPLY\n")
        specs = {spec["name"]: spec for spec in map(msgspec.json.decode, tools.strip().split("\n"))}
        order = specs["tool_order"]["parameters"]["properties"]
        card = msgspec.json.decode(reply.partition("\n")[0])["properties"]["prediction"]["properties"]
    except (ValueError, LookupError, TypeError) as exc:
        raise EngineError(f"the scripted engine can't read the rules of this conversation: {exc!r}") from exc
    suppliers, skus = order["supplier_id"]["enum"], order["sku"]["enum"]
    penalty = _LATE_PENALTY.search(system)
    late_penalty = int(penalty[1]) / 100 if penalty else 0.0
    return Catalogue(tuple(suppliers), tuple(skus), frozenset(specs), tuple(card), late_penalty)
