"""What the agent is told: the rules once, as a system message, and an observation at every step."""

from __future__ import annotations

import msgspec

from vendomini.config.schema import Interface
from vendomini.measures.cards import CardForm
from vendomini.worlds.protocol import ToolSpec, World, check

MAX_THOUGHT = 600
"""Characters of stated reasoning that the reply's schema, as the agent is shown it, allows."""

_encode = msgspec.json.Encoder().encode

_CARD_RULES = {
    True: "Every call needs a prediction: a call without one fails.",
    False: "You may add a prediction to a call.",
}
_REPLY_RULE = """\
Reply with one JSON object and nothing else. Its "tool" is one of TOOLS, its "arguments" fit that tool's parameters, \
and "thought" says briefly why. In "prediction", say what you expect of this call; write null for what makes no sense \
for the tool."""


def system_prompt(world: World, interface: Interface) -> str:
    """The system message: rules, then one tool's schema a line, then the reply's schema in one line."""
    card_rule = _CARD_RULES[interface.prediction_mode != "optional"]
    note = f" {world.card_note}" if world.card_note else ""
    tools = "\n".join(_encode(_shown(spec)).decode() for spec in world.tools)
    reply = _encode(reply_schema(world, interface)).decode()
    rules = world.rules()
    check(world, "rules", rules, str)
    return f"{rules}{card_rule}\n{_REPLY_RULE}{note}\n\nTOOLS\n{tools}\n\nREPLY\n{reply}"


def _shown(spec: ToolSpec) -> dict[str, object]:
    return {"name": spec.name, "description": spec.description, "parameters": spec.parameters}


def reply_schema(world: World, interface: Interface) -> dict[str, object]:
    """JSON Schema of a reply, as the system message shows it: short, since the TOOLS lines have each tool's
    arguments."""
    return _reply(world, interface, {"enum": [spec.name for spec in world.tools]}, {"type": "object"})


def output_schema(world: World, interface: Interface) -> dict[str, object]:
    """The full schema, with each tool's own arguments: what structured output constrains completions to.

    Strings have no greatest length here: counting characters makes a grammar some thousand times slower
    (docs/performance.md). agent.model.max_tokens bounds a reply all the same, and a tool refuses what is too long.
    """
    replies = [_reply(world, interface, {"const": spec.name}, spec.parameters) for spec in world.tools]
    return {"anyOf": [_without_greatest_lengths(reply) for reply in replies]}


def _without_greatest_lengths(schema: object) -> object:
    if isinstance(schema, list):
        return [_without_greatest_lengths(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_greatest_lengths(value) for key, value in schema.items() if key != "maxLength"}


def _reply(
    world: World, interface: Interface, tool: dict[str, object], arguments: dict[str, object]
) -> dict[str, object]:
    required = ["thought", "tool", "arguments"]
    if interface.prediction_mode != "optional":
        required.append("prediction")
    return {
        "type": "object",
        "properties": {
            "thought": {"type": "string", "maxLength": MAX_THOUGHT},
            "tool": tool,
            "arguments": arguments,
            "prediction": CardForm(interface, world.expectations).schema(),
        },
        "required": required,
        "additionalProperties": False,
    }
