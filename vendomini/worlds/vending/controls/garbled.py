"""A positive control for the parser: sound decisions in the malformed output that models are seen to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from vendomini.worlds.vending.controls.chance import pick, uniform
from vendomini.worlds.vending.controls.derailed import HEALTHY_STEPS, Derailing
from vendomini.worlds.vending.controls.reactive import Reactive
from vendomini.worlds.vending.controls.view import View

Garble = Callable[[str, dict[str, Any]], str]
"""(a sound completion, the object in it) → what is said instead."""


def _another(reply: dict[str, Any]) -> str:
    tool = "tool_check_budget" if reply["tool"] == "tool_end_day" else "tool_end_day"
    return json.dumps({"thought": "Or rather this.", "tool": tool, "arguments": {}, "prediction": None})


REPAIRABLE: dict[str, Garble] = {
    "prose_around": lambda text, _: f"Sure! Here is my next action:\n\n{text}\n\nLet me know how it goes.",
    "fenced": lambda text, _: f"```json\n{text}\n```",
    "fenced_after_prose": lambda text, _: f"**Thought:** the stock is low.\n```\n{text}\n```",
    "single_quotes": lambda _, reply: repr(reply),
    "trailing_commas": lambda text, _: text.replace("}", ",}").replace("{,}", "{}"),
    "said_twice": lambda text, _: f"{text}\n{text}",
    "array_of_one": lambda text, _: f"[{text}]",
    "raw_line_break": lambda text, _: text.replace('{"thought":"', '{"thought":"First:\n', 1),
    "other_keys": lambda _, reply: json.dumps({"name": reply["tool"], "parameters": reply["arguments"]}),
    "arguments_as_text": lambda _, reply: json.dumps({**reply, "arguments": json.dumps(reply["arguments"])}),
    "nested_call": lambda _, reply: json.dumps({"tool_call": {"name": reply["tool"], "arguments": reply["arguments"]}}),
    "xml_wrapper": lambda text, _: f"<tool_call>\n{text}\n</tool_call>",
}
"""Name → malformed output that holds one complete, unmistakable object."""

HOPELESS: dict[str, Garble] = {
    "empty": lambda *_: "",
    "prose_only": lambda _, reply: f"I think that {reply['tool']} is the best thing to do now.",
    "truncated_early": lambda text, _: text[: len(text) // 4],
    "truncated_late": lambda text, _: text[: len(text) - len(text) // 6],
    "call_syntax": lambda _, reply: (
        f"{reply['tool']}({', '.join(f'{k}={v!r}' for k, v in reply['arguments'].items())})"
    ),
    "tool_of_wrong_type": lambda _, reply: json.dumps({**reply, "tool": 7}),
    "tool_missing": lambda _, reply: json.dumps({"thought": reply["thought"], "arguments": reply["arguments"]}),
    "unclosed_text": lambda text, _: text.replace('","tool"', ',"tool"', 1),
    "repeated_token": lambda *_: "the the the " * 40,
    "number_only": lambda *_: "42",
    "yaml": lambda _, reply: f"thought: low stock\ntool: {reply['tool']}\narguments: none",
    "empty_object": lambda *_: "{}",
    "two_calls": lambda text, reply: f"{text}\n{_another(reply)}",
    "thought_not_closed": lambda text, _: f"<think>\nPerhaps this:\n{text}\nBut then",
    "mentioned": lambda text, _: f"I thought of {text} but it is too early for that.",
}
"""Name → malformed output in which the intended call can't be known."""


class Garbled(Derailing):
    """Every fourth reply is malformed but repairable from the start; most are beyond repair once it has broken down."""

    name = "garbled"
    caught_by = "invalid_burst"

    def reply(self, view: View, seed: int) -> str:
        sound = Reactive.reply(self, view, seed)
        chance = uniform(seed, 1)
        if chance < 0.25:
            return garble(sound, pick(tuple(REPAIRABLE.values()), seed, 2))
        if view.observation.step > HEALTHY_STEPS and chance < 0.9:
            return garble(sound, pick(tuple(HOPELESS.values()), seed, 2))
        return sound

    def derailed(self, view: View, seed: int) -> str:
        return self.reply(view, seed)


def garble(text: str, how: Garble) -> str:
    """A sound completion made malformed."""
    return how(text, json.loads(text))
