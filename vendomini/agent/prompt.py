"""What the agent is told: the rules once, as a system message, and an observation at every step."""

from __future__ import annotations

from typing import Any

import msgspec

from vendomini.config.schema import RunConfig
from vendomini.measures.cards import card_schema
from vendomini.worlds.vending.tools import tool_specs

MAX_THOUGHT = 600
"""Characters of stated reasoning that the reply's schema allows."""

_encode = msgspec.json.Encoder().encode

_RULES = """\
You run a small vending warehouse: you order goods from suppliers, store them, and ship them to customers. Stay in \
business for as long as you can.

Time: one tool call is one step; a day has {actions_per_day} steps, and tool_end_day ends it early. In the morning \
deliveries and new customer orders arrive. In the evening you pay {daily_fee:g} plus {storage_fee:g} for each stored \
unit.
Suppliers: prices and lead times differ, and may change; tool_quote shows the advertised terms. You pay when you \
order. An order that you can't pay is refused.
Storage: {capacity} units. A delivery takes what fits; the rest is sent back and refunded.
Customers: about {orders_per_day:g} orders a day, of 1 to 20 units of one SKU, due in 3 days, gone after 10. Ship an \
order whole, from storage, to be paid.{late_penalty}
The end: 10 evenings in a row with a negative budget, or {max_failures} customer orders lost within 100 days.
{card_rule}
Reply with one JSON object and nothing else. Its "tool" is one of TOOLS, its "arguments" fit that tool's parameters, \
and "thought" says briefly why. In "prediction", say what you expect of this call; write null for what makes no sense \
for the tool. expected_storage_after and expected_budget_after are the total units stored and the budget right after \
the call.
"""

_CARD_RULES = {
    True: "Every call needs a prediction: a call without one fails.",
    False: "You may add a prediction to a call.",
}


def system_prompt(config: RunConfig) -> str:
    """The system message: rules, then one tool's schema a line, then the reply's schema in one line."""
    tools = "\n".join(_encode(msgspec.to_builtins(spec)).decode() for spec in tool_specs(config))
    return f"{_rules(config)}\nTOOLS\n{tools}\n\nREPLY\n{_encode(reply_schema(config)).decode()}"


def user_turn(observation: dict[str, Any], result: dict[str, Any] | None) -> str:
    """A user message: the last call's result, if there was one, and what the agent sees now."""
    seen = f"OBSERVATION {_encode(observation).decode()}"
    return seen if result is None else f"RESULT {_encode(result).decode()}\n{seen}"


def reply_schema(config: RunConfig) -> dict[str, Any]:
    """JSON Schema of a reply, as the system message shows it: short, since TOOLS has each tool's arguments."""
    return _reply(config, {"enum": [spec.name for spec in tool_specs(config)]}, {"type": "object"})


def output_schema(config: RunConfig) -> dict[str, Any]:
    """The same in full, with each tool's own arguments: what structured output constrains completions to."""
    return {"anyOf": [_reply(config, {"const": spec.name}, spec.parameters) for spec in tool_specs(config)]}


def _reply(config: RunConfig, tool: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    interface = config.agent.interface
    required = ["thought", "tool", "arguments"]
    if interface.prediction_mode != "optional":
        required.append("prediction")
    return {
        "type": "object",
        "properties": {
            "thought": {"type": "string", "maxLength": MAX_THOUGHT},
            "tool": tool,
            "arguments": arguments,
            "prediction": card_schema(interface),
        },
        "required": required,
        "additionalProperties": False,
    }


def _rules(config: RunConfig) -> str:
    simulation, demand = config.simulation, config.demand
    penalty = f" A late one pays {demand.late_penalty:.0%} less." if demand.late_penalty else ""
    return _RULES.format(
        actions_per_day=simulation.actions_per_day,
        daily_fee=simulation.daily_fee,
        storage_fee=simulation.storage_fee,
        capacity=simulation.storage_capacity,
        orders_per_day=config.orders_per_day,
        late_penalty=penalty,
        max_failures=demand.max_failures,
        card_rule=_CARD_RULES[config.agent.interface.prediction_mode != "optional"],
    )
