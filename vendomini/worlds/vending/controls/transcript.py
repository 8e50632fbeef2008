"""What a control reads and writes: the conversation's text, in the form that a model gets it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from vendomini.errors import EngineError


class Call(NamedTuple):
    """A tool call as the text shows it. ``arguments`` is whatever stands there."""

    tool: str
    arguments: Any


class Observation(msgspec.Struct, frozen=True):
    """What the agent sees before a step. Money in the warehouse's currency, days from 0, steps from 1."""

    step: int
    day: int
    actions_left_today: int
    budget: float
    storage_used: int
    storage_capacity: int
    inbox_unread: int
    pending_supplier_orders: int
    open_customer_orders: int


class SupplierOrder(msgspec.Struct, frozen=True):
    order_id: str
    supplier_id: str
    sku: str
    quantity: int
    eta_day: int


class CustomerOrder(msgspec.Struct, frozen=True):
    customer_order_id: str
    sku: str
    quantity: int
    unit_price: float | None
    due_day: int
    expires_day: int


class Letter(msgspec.Struct, frozen=True):
    """A message of the inbox: the union of the fields that the controls use."""

    day: int
    kind: str
    text: str
    order_id: str = ""
    customer_order_id: str = ""
    supplier_id: str = ""
    sku: str = ""
    shock: str = ""
    quantity: int | None = None
    due_day: int = 0
    eta_day: int | None = None


class Result(msgspec.Struct, frozen=True):
    """A tool's answer: the union of the fields that the controls use; absent ones are None."""

    ok: bool
    unit_price: float | None = None
    lead_days: int | None = None
    order_id: str | None = None
    eta_day: int | None = None
    cost: float | None = None
    messages: list[Letter] | None = None
    stock: dict[str, int] | None = None
    supplier_orders: list[SupplierOrder] | None = None
    customer_orders: list[CustomerOrder] | None = None
    value: str | None = None


class Reply(msgspec.Struct, frozen=True):
    """The JSON object that a completion holds."""

    thought: str
    tool: str
    arguments: dict[str, Any]
    prediction: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Said(msgspec.Struct, frozen=True):
    """What of a reply is read again: the rest costs time."""

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


_REMEMBERED = 8_192
"""Decoded messages that are kept, since old turns are read again whenever older ones have been dropped."""

_observation = msgspec.json.Decoder(Observation).decode
_result = msgspec.json.Decoder(Result).decode
_said = msgspec.json.Decoder(Said).decode
_encode = msgspec.json.Encoder().encode

_LATE_PENALTY = re.compile(r"A late one pays (\d+)% less")
_RESULT = "RESULT "
_OBSERVATION = "OBSERVATION "


@lru_cache(maxsize=_REMEMBERED)
def read_turn(content: str) -> tuple[Result | None, Observation]:
    """A user turn: the result of the call before it, where there was one, and what the agent sees now.

    Raises:
        EngineError: the turn is not in the form that the prompt promises.
    """
    start = content.rfind(_OBSERVATION)
    try:
        if start < 0:
            raise ValueError("it has no OBSERVATION line")
        observation = _observation(content[start + len(_OBSERVATION) :])
        return (_result(content[len(_RESULT) : start]) if start else None), observation
    except ValueError as exc:
        raise EngineError(f"the scripted engine can't read this turn ({exc}): {content[:200]}") from exc


@lru_cache(maxsize=_REMEMBERED)
def read_call(text: str) -> Call | None:
    """The call in a completion of one's own; None where the text is no such reply."""
    try:
        said = _said(text)
    except ValueError:
        return None
    return Call(said.tool, said.arguments)


def evident_call(result: Result | None) -> Call | None:
    """The call that a result must be of; None where it does not show."""
    if result is None:
        return None
    if result.stock is not None:
        return Call("tool_check_storage", {})
    if result.supplier_orders is not None:
        return Call("tool_check_orders", {})
    return Call("tool_check_inbox", {}) if result.messages is not None else None


def write_reply(thought: str, call: Call, card: dict[str, Any] | None) -> str:
    """The completion that makes this call."""
    return _encode(Reply(thought, call.tool, call.arguments, msgspec.UNSET if card is None else card)).decode()


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
