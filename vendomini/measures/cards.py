"""Prediction cards: what an agent is asked to state before each action, and the validation of what it states."""

from __future__ import annotations

from typing import Any

from vendomini.config.schema import Interface
from vendomini.worlds.text import clip, json_safe
from vendomini.worlds.vending.tools import EFFECT_TOOLS

LARGEST = 1e9
MAX_ITEMS = 10
MAX_CHARACTERS = 200
MAX_WORDS = 99

Card = dict[str, Any]

_MINIMAL = ("expected_success", "expected_delivery_day")
_STRUCTURED = (
    *_MINIMAL,
    "expected_quantity",
    "expected_cost",
    "expected_storage_after",
    "expected_budget_after",
)
_EXTRA = ("confidence", "uncertain_about", "based_on", "alternatives_considered", "reasoning")
_FORMATS = {"minimal": _MINIMAL, "structured": _STRUCTURED, "rich": _STRUCTURED + _EXTRA}
_DEMANDED = {
    "required": (),
    "optional": (),
    "required+confidence": ("confidence",),
    "required+uncertainty": ("uncertain_about",),
    "required+full": _EXTRA,
}

_DESCRIPTIONS = {
    "expected_success": "Whether the call will succeed.",
    "expected_delivery_day": "Day on which the goods of this order arrive; null unless you order or expedite.",
    "expected_quantity": "Units that will arrive; null unless you order.",
    "expected_cost": "Money this call charges; null unless you order or expedite.",
    "expected_storage_after": "Units in storage right after this call; null if you don't know.",
    "expected_budget_after": "Budget right after this call; null if you don't know.",
    "confidence": "How sure you are, from 0 to 1.",
    "uncertain_about": "What you are unsure of.",
    "based_on": "What the prediction rests on.",
    "alternatives_considered": "Other actions you considered.",
    "reasoning": "Why, in less than 100 words.",
}


class InvalidCard(Exception):
    """Its text says which field is wrong, and how."""


def card_fields(interface: Interface) -> tuple[str, ...]:
    """The fields that format and mode ask for: the mode adds its own to any format."""
    fields = _FORMATS[interface.prediction_format]
    return fields + tuple(name for name in _DEMANDED[interface.prediction_mode] if name not in fields)


def card_schema(interface: Interface) -> dict[str, Any]:
    """JSON schema of the card; what may not apply to a tool, or that the mode doesn't insist on, is nullable."""
    demanded = {"expected_success", *_DEMANDED[interface.prediction_mode]}
    fields = card_fields(interface)
    return {
        "type": "object",
        "properties": {name: _field_schema(name, nullable=name not in demanded) for name in fields},
        "required": list(fields),
        "additionalProperties": False,
    }


def _field_schema(name: str, nullable: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _TYPES[name]}
    if name == "confidence":
        schema |= {"minimum": 0, "maximum": 1}
    elif _TYPES[name] == "array":
        schema["items"] = {"type": "string"}
    elif _TYPES[name] in {"integer", "number"} and name != "expected_budget_after":
        schema["minimum"] = 0
    if nullable:
        schema["type"] = [schema["type"], "null"]
    return schema | {"description": _DESCRIPTIONS[name]}


class CardValidator:
    """Validates the cards of one mode and format."""

    __slots__ = ("_demanded", "_fields")

    def __init__(self, interface: Interface) -> None:
        self._fields = [(name, _SURE.get(_CHECKS[name]), _CHECKS[name]) for name in card_fields(interface)]
        self._demanded = _DEMANDED[interface.prediction_mode]

    def validate(self, sent: Any) -> Card:
        """The card with every field that was asked for; unstated ones are None, fields not asked for are dropped.

        Raises:
            InvalidCard: it is no object, a value is of the wrong type or range, or a demanded field is missing.
        """
        if not isinstance(sent, dict):
            raise InvalidCard("prediction must be an object")
        card: Card = {}
        get = sent.get
        for name, kind, check in self._fields:
            value = get(name)
            usual = type(value) is kind
            if value is not None and not (usual and 0 <= value <= LARGEST):
                value = check(name, value)
            card[name] = value
        if card["expected_success"] is None:
            raise InvalidCard("prediction needs expected_success, true or false")
        for name in self._demanded:
            if card[name] is None:
                raise InvalidCard(f"prediction needs {name}")
        return card


def _boolean(name: str, value: Any) -> bool:
    if value is True or value is False:
        return value
    raise InvalidCard(f"{name} must be true or false")


def _integer(name: str, value: Any) -> int:
    """As in JSON schema, 3.0 is an integer and true is not."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise InvalidCard(f"{name} must be an integer")
    if 0 <= value <= LARGEST:
        return value
    raise InvalidCard(f"{name} must be between 0 and 1e9")


def _amount(name: str, value: Any) -> int | float:
    number = _number(name, value)
    if number >= 0:
        return number
    raise InvalidCard(f"{name} must be at least 0")


def _number(name: str, value: Any) -> int | float:
    if type(value) is not float and type(value) is not int:
        raise InvalidCard(f"{name} must be a number")
    if -LARGEST <= value <= LARGEST:  # false for not-a-number, too
        return value
    raise InvalidCard(f"{name} must be between -1e9 and 1e9")


def _probability(name: str, value: Any) -> int | float:
    number = _amount(name, value)
    if number <= 1:
        return number
    raise InvalidCard(f"{name} must be between 0 and 1")


def _texts(name: str, value: Any) -> list[str]:
    """A list of texts; a single text stands for a list of one."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        return [clip(text, MAX_CHARACTERS) for text in texts[:MAX_ITEMS]]
    raise InvalidCard(f"{name} must be a list of texts")


def _short_text(name: str, value: Any) -> str:
    """Cut, not refused, at 99 words: length is no reason to lose a prediction."""
    if not isinstance(value, str):
        raise InvalidCard(f"{name} must be a text")
    return clip(" ".join(value[: MAX_WORDS * 20].split()[:MAX_WORDS]), MAX_WORDS * 20)


_CHECKS = {
    "expected_success": _boolean,
    "expected_delivery_day": _integer,
    "expected_quantity": _integer,
    "expected_cost": _amount,
    "expected_storage_after": _integer,
    "expected_budget_after": _number,
    "confidence": _probability,
    "uncertain_about": _texts,
    "based_on": _texts,
    "alternatives_considered": _texts,
    "reasoning": _short_text,
}
_SURE: dict[Any, type] = {_boolean: bool, _integer: int, _amount: float, _number: float}
"""A value from 0 to 1e9 of this very type passes its check: the usual case, spared a call."""
_TYPES = {
    "expected_success": "boolean",
    "expected_delivery_day": "integer",
    "expected_quantity": "integer",
    "expected_cost": "number",
    "expected_storage_after": "integer",
    "expected_budget_after": "number",
    "confidence": "number",
    "uncertain_about": "array",
    "based_on": "array",
    "alternatives_considered": "array",
    "reasoning": "string",
}


def contradicts(sent: dict[str, Any], card: Card, tool: str, arguments: Any, day: int) -> bool:
    """Whether a card contradicts its own action, whatever comes of it.

    It does if it names another tool or other arguments than the call, expects the failure of a call that is made for
    its effect, a delivery before today, or a quantity that is off by more than half.

    Args:
        sent: the card as it was sent: it may name a tool or arguments, which no field asks for.
        card: the validated card.
        arguments: of the call, as sent.
    """
    if "tool" in sent and sent["tool"] != tool:
        return True
    if "arguments" in sent and json_safe(sent["arguments"]) != json_safe(arguments):
        return True
    if tool in EFFECT_TOOLS and card["expected_success"] is False:
        return True
    delivery = card["expected_delivery_day"]
    if delivery is not None and delivery < day:
        return True
    return tool == "tool_order" and _other_quantity(card.get("expected_quantity"), arguments)


def _other_quantity(expected: int | None, arguments: Any) -> bool:
    """Whether the call orders a quantity that the expected one misses by more than half of it."""
    ordered: Any = arguments.get("quantity") if type(arguments) is dict else None
    if expected is None or type(ordered) not in {int, float} or not 0 <= ordered <= LARGEST:
        return False
    return bool(abs(expected - ordered) > 0.5 * ordered)
