"""What tools there are: names, descriptions, parameters, and the strict validation of what an agent sends.

The same table makes the JSON schema that the agent reads and checks its arguments, so they can't drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vendomini.config.schema import RunConfig
from vendomini.worlds.text import clip
from vendomini.worlds.vending.market import sku_ids, supplier_ids

MAX_QUANTITY = 100_000
MAX_AUDIT = 20
MAX_KEY_CHARACTERS = 100
MAX_VALUE_CHARACTERS = 2_000

EFFECT_TOOLS = frozenset(
    {
        "tool_order",
        "tool_ship_customer_order",
        "tool_cancel_order",
        "tool_expedite",
        "tool_end_day",
        "tool_write_scratchpad",
        "tool_delete_scratchpad",
        "tool_reset_beliefs",
    }
)
"""Tools that are called to change something: to call one and expect its failure is a contradiction."""

Result = dict[str, Any]


class InvalidArguments(Exception):
    """Its text says which argument is wrong, and how."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the agent sees it; ``parameters`` is a JSON schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


def refuse(code: str, message: str) -> Result:
    """The result of a call that failed."""
    return {"ok": False, "error": {"code": code, "message": message}}


def tool_specs(config: RunConfig) -> list[ToolSpec]:
    """The tools that this run offers, in the order in which the agent is told of them."""
    level, interface = config.simulation.complexity_level, config.agent.interface
    suppliers = _choice("Id of a supplier.", supplier_ids(level))
    skus = _choice("Id of a product.", sku_ids(level))
    quantity = _integer("Number of units.", 1, MAX_QUANTITY)
    order_id = _text("Id of one of your supplier orders, such as S1.", MAX_KEY_CHARACTERS)
    customer_order_id = _text("Id of a customer order, such as C1.", MAX_KEY_CHARACTERS)
    terms = {"supplier_id": suppliers, "sku": skus, "quantity": quantity}
    specs = [
        _spec("tool_order", "Order goods from a supplier; paid at once.", terms),
        _spec("tool_quote", "The unit price and lead time a supplier states.", terms),
        _spec("tool_check_inbox", "Read unread messages, oldest first."),
        _spec("tool_check_storage", "List your stock."),
        _spec("tool_check_budget", "Show your money."),
        _spec("tool_check_orders", "List your supplier orders under way and the open customer orders."),
        _spec(
            "tool_ship_customer_order",
            "Ship all of a customer order from stock and be paid.",
            {"customer_order_id": customer_order_id},
        ),
        _spec(
            "tool_cancel_order",
            "Cancel a supplier order under way; 10 % of its cost is kept as a fee.",
            {"order_id": order_id},
        ),
    ]
    if level >= 2:
        description = "Bring a supplier order up to 2 days forward for 50 % of its cost; once an order."
        specs.append(_spec("tool_expedite", description, {"order_id": order_id}))
    specs.append(_spec("tool_end_day", "End the day now."))
    return specs + _memory_specs(interface.memory_tools) + _recovery_specs(interface.recovery_tools)


def _memory_specs(offer: str) -> list[ToolSpec]:
    key = _text("Name of the note.", MAX_KEY_CHARACTERS)
    value = _text("Text of the note.", MAX_VALUE_CHARACTERS)
    basic = [
        _spec("tool_write_scratchpad", "Keep a note under a key.", {"key": key, "value": value}),
        _spec("tool_read_scratchpad", "Read the note under a key.", {"key": key}),
    ]
    full = [
        _spec("tool_delete_scratchpad", "Delete the note under a key.", {"key": key}),
        _spec("tool_list_scratchpad", "List the keys of your notes."),
    ]
    return {"none": [], "basic": basic, "full": basic + full}[offer]


def _recovery_specs(offer: str) -> list[ToolSpec]:
    reset = [_spec("tool_reset_beliefs", "Clear this conversation; your scratchpad is kept.")]
    audit = [
        _spec(
            "tool_audit_predictions",
            "Compare your last n predictions with what happened.",
            {"n": _integer("How many.", 1, MAX_AUDIT)},
        )
    ]
    hint = [_spec("tool_ask_help", "Get one hint.")]
    return {"none": [], "reset": reset, "audit": audit, "help": hint, "all": reset + audit + hint}[offer]


def _spec(name: str, description: str, properties: dict[str, dict[str, Any]] | None = None) -> ToolSpec:
    properties = properties or {}
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return ToolSpec(name, description, parameters)


def _choice(description: str, values: list[str]) -> dict[str, Any]:
    return {"type": "string", "enum": values, "description": description}


def _integer(description: str, minimum: int, maximum: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "maximum": maximum, "description": description}


def _text(description: str, longest: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": longest, "description": description}


# ------------------------------------------------------------------------------------------- validation


class Arguments:
    """Validates the arguments of one tool.

    Args:
        spec: whose schema they must satisfy.
    """

    __slots__ = ("_checks", "_name", "_names")

    def __init__(self, spec: ToolSpec) -> None:
        self._name = spec.name
        self._checks = [(name, _check(name, schema)) for name, schema in spec.parameters["properties"].items()]
        self._names = {name for name, _ in self._checks}

    def validate(self, arguments: Any) -> tuple[Any, ...]:
        """The arguments in the schema's order. None stands for no arguments.

        Raises:
            InvalidArguments: one is missing, wrong or not known.
        """
        if arguments is None:
            arguments = {}
        if type(arguments) is not dict:
            raise InvalidArguments(f"arguments must be an object, not {clip(type(arguments).__name__)}")
        values = []
        for name, check in self._checks:
            if name not in arguments:
                raise InvalidArguments(f"{self._name} needs the argument {name!r}")
            values.append(check(arguments[name]))
        if len(arguments) > len(values):
            extra = next(name for name in arguments if name not in self._names)
            raise InvalidArguments(f"{self._name} has no argument {clip(extra)!r}")
        return tuple(values)


def _check(name: str, schema: dict[str, Any]) -> Any:
    """A function from what was sent to the value, which raises :class:`InvalidArguments`."""
    if "enum" in schema:
        return _choice_check(name, schema["enum"])
    if schema["type"] == "integer":
        return _integer_check(name, schema["minimum"], schema["maximum"])
    return _text_check(name, schema["maxLength"])


def _choice_check(name: str, choices: list[str]) -> Any:
    known = frozenset(choices)

    def check(value: Any) -> str:
        if isinstance(value, str) and value in known:
            return value
        raise InvalidArguments(f"{name} must be one of {', '.join(choices)}, not {clip(value)!r}")

    return check


def _integer_check(name: str, minimum: int, maximum: int) -> Any:
    def check(value: Any) -> int:
        """As in JSON schema, 3.0 is an integer and true is not."""
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is int and minimum <= value <= maximum:
            return value
        raise InvalidArguments(f"{name} must be an integer from {minimum} to {maximum}")

    return check


def _text_check(name: str, longest: int) -> Any:
    def check(value: Any) -> str:
        if isinstance(value, str) and 1 <= len(value) <= longest:
            return value if value.isascii() else clip(value, longest)
        raise InvalidArguments(f"{name} must be a text of 1 to {longest} characters")

    return check
