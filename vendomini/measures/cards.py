"""Prediction cards: what an agent is asked to state before each action, and the validation of what it states.

A card has ``expected_success``, the expectations that the world names, and remarks on how confident the agent is and
why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vendomini.config.schema import Interface
from vendomini.worlds.protocol import SUCCESS, Card, CardValue, Expectation, ToolSpec
from vendomini.worlds.text import clip, json_safe
from vendomini.worlds.tools import Schema

LARGEST = 1e9
MAX_ITEMS = 10
MAX_CHARACTERS = 200
MAX_WORDS = 99

_Check = Callable[[str, object], CardValue]

_REMARKS = ("confidence", "uncertain_about", "based_on", "alternatives_considered", "reasoning")
_DEMANDED = {
    "required": (),
    "optional": (),
    "required+confidence": ("confidence",),
    "required+uncertainty": ("uncertain_about",),
    "required+full": _REMARKS,
}


class InvalidCard(Exception):
    """Its text says which field is wrong, and how."""


class CardForm:
    """The card of one prediction mode and format in one world.

    Attributes:
        fields: those that format and mode ask for: the mode adds its own to any format.
    """

    def __init__(self, interface: Interface, expectations: Sequence[Expectation]) -> None:
        rich, minimal = interface.prediction_format == "rich", interface.prediction_format == "minimal"
        chosen = [one for one in expectations if one.minimal or not minimal]
        self._demanded = _DEMANDED[interface.prediction_mode]
        remarks = _REMARKS if rich else self._demanded
        self.fields = (SUCCESS, *(one.field for one in chosen), *remarks)
        self._schemas: dict[str, Schema] = {
            SUCCESS: {"type": "boolean", "description": "Whether the call will succeed."},
            **{one.field: _schema(one) for one in chosen},
            **{name: _REMARK_SCHEMAS[name] for name in remarks},
        }
        checks: dict[str, _Check] = {SUCCESS: _boolean, **{one.field: _check(one) for one in chosen}, **_REMARK_CHECKS}
        self._checks: list[tuple[str, Any, _Check]] = [(n, _SURE.get(checks[n]), checks[n]) for n in self.fields]

    def schema(self) -> Schema:
        """JSON schema of the card; fields that may not apply to a tool, or that the mode doesn't require, are
        nullable."""
        demanded = {SUCCESS, *self._demanded}
        return {
            "type": "object",
            "properties": {n: s if n in demanded else _nullable(s) for n, s in self._schemas.items()},
            "required": list(self.fields),
            "additionalProperties": False,
        }

    def validate(self, sent: object) -> Card:
        """The card with every field that was asked for; unstated ones are None, fields not asked for are dropped.

        Raises:
            InvalidCard: it is not an object, a value is of the wrong type or range, or a required field is missing.
        """
        if not isinstance(sent, dict):
            raise InvalidCard("prediction must be an object")
        card: Card = {}
        for name, kind, check in self._checks:
            value = sent.get(name)
            if value is not None and not (type(value) is kind and 0 <= value <= LARGEST):
                value = check(name, value)
            card[name] = value
        if card[SUCCESS] is None:
            raise InvalidCard(f"prediction needs {SUCCESS}, true or false")
        for name in self._demanded:
            if card[name] is None:
                raise InvalidCard(f"prediction needs {name}")
        return card


def _nullable(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _schema(expectation: Expectation) -> Schema:
    schema: Schema = {"type": expectation.type}
    if expectation.type != "boolean" and not expectation.signed:
        schema["minimum"] = 0
    return schema | {"description": expectation.description}


_TEXTS = {"type": "array", "items": {"type": "string"}}
_REMARK_SCHEMAS: dict[str, Schema] = {
    "confidence": {"type": "number", "minimum": 0, "maximum": 1, "description": "How sure you are, from 0 to 1."},
    "uncertain_about": {**_TEXTS, "description": "What you are unsure of."},
    "based_on": {**_TEXTS, "description": "What the prediction rests on."},
    "alternatives_considered": {**_TEXTS, "description": "Other actions you considered."},
    "reasoning": {"type": "string", "description": "Why, in less than 100 words."},
}


# ---------------------------------------------------------------------------------------------- checks


def _boolean(name: str, value: object) -> bool:
    if value is True or value is False:
        return value
    raise InvalidCard(f"{name} must be true or false")


def _whole(name: str, value: object) -> int:
    """An integer as in JSON schema: 3.0 is one and true is not."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise InvalidCard(f"{name} must be an integer")
    return value


def _integer(name: str, value: object) -> int:
    number = _whole(name, value)
    if 0 <= number <= LARGEST:
        return number
    raise InvalidCard(f"{name} must be between 0 and 1e9")


def _signed_integer(name: str, value: object) -> int:
    number = _whole(name, value)
    if -LARGEST <= number <= LARGEST:
        return number
    raise InvalidCard(f"{name} must be between -1e9 and 1e9")


def _amount(name: str, value: object) -> int | float:
    number = _number(name, value)
    if number >= 0:
        return number
    raise InvalidCard(f"{name} must be at least 0")


def _number(name: str, value: object) -> int | float:
    if not (type(value) is float or type(value) is int):
        raise InvalidCard(f"{name} must be a number")
    if -LARGEST <= value <= LARGEST:  # false for not-a-number, too
        return value
    raise InvalidCard(f"{name} must be between -1e9 and 1e9")


def _probability(name: str, value: object) -> int | float:
    number = _amount(name, value)
    if number <= 1:
        return number
    raise InvalidCard(f"{name} must be between 0 and 1")


def _texts(name: str, value: object) -> list[str]:
    """A list of texts; a single text stands for a list of one."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        return [clip(text, MAX_CHARACTERS) for text in texts[:MAX_ITEMS]]
    raise InvalidCard(f"{name} must be a list of texts")


def _short_text(name: str, value: object) -> str:
    """Cut at 99 words rather than refused: length is no reason to lose a prediction."""
    if not isinstance(value, str):
        raise InvalidCard(f"{name} must be a text")
    return clip(" ".join(value[: MAX_WORDS * 20].split()[:MAX_WORDS]), MAX_WORDS * 20)


_REMARK_CHECKS: dict[str, _Check] = {
    "confidence": _probability,
    "uncertain_about": _texts,
    "based_on": _texts,
    "alternatives_considered": _texts,
    "reasoning": _short_text,
}
_SURE: dict[_Check, type] = {
    _boolean: bool,
    _integer: int,
    _signed_integer: int,
    _amount: float,
    _number: float,
}
"""A value from 0 to 1e9 of this very type passes its check: the usual case, spared a call."""


def _check(expectation: Expectation) -> _Check:
    if expectation.type == "boolean":
        return _boolean
    if expectation.type == "integer":
        return _signed_integer if expectation.signed else _integer
    return _number if expectation.signed else _amount


# --------------------------------------------------------------------------------------- contradictions


class Contradictions:
    """Tells whether a card contradicts its own action, whatever the outcome.

    It does if it names another tool or other arguments than the call, expects the failure of a call that is made for
    its effect, expects something for a moment that has passed, or misses what the call asks for by more than half.
    """

    def __init__(self, expectations: Iterable[Expectation], tools: Iterable[ToolSpec]) -> None:
        self._effects = frozenset(tool.name for tool in tools if tool.effect)
        self._moments = [one.field for one in expectations if one.score == "wait"]
        self._echoes: defaultdict[object, list[tuple[str, str]]] = defaultdict(list)
        for one in expectations:
            for tool, argument in one.echoes.items():
                self._echoes[tool].append((one.field, argument))

    def found(self, sent: object, card: Card, tool: object, arguments: object, now: int) -> bool:
        """Whether there is one.

        Args:
            sent: the card as it was sent: it may name a tool or arguments, which no field asks for.
            card: the validated card.
            arguments: of the call, as sent.
            now: the world's clock.
        """
        if type(sent) is dict and ("tool" in sent or "arguments" in sent) and _names_another(sent, tool, arguments):
            return True
        if card[SUCCESS] is False and tool in self._effects:
            return True
        for field in self._moments:
            moment = card.get(field)
            if moment is not None and moment < now:  # type: ignore[operator]  # a moment is a number
                return True
        for field, argument in self._echoes.get(tool, ()):
            if _missed_by_half(card.get(field), arguments, argument):
                return True
        return False


def _names_another(sent: dict[str, object], tool: object, arguments: object) -> bool:
    if "tool" in sent and sent["tool"] != tool:
        return True
    return "arguments" in sent and json_safe(sent["arguments"]) != json_safe(arguments)


def _missed_by_half(expected: Any, arguments: object, argument: str) -> bool:
    """Whether the call asks for a number that the expected one misses by more than half of it."""
    asked: Any = arguments.get(argument) if type(arguments) is dict else None
    if expected is None or type(asked) not in {int, float} or not 0 <= asked <= LARGEST:
        return False
    return bool(abs(expected - asked) > 0.5 * asked)
