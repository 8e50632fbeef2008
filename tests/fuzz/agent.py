"""What an agent can say, as text and as tool calls: every step counts, and the world stays possible."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.vending.driver import Environment
from vendomini.agent import parse_completion
from vendomini.agent.parse import COMPLAINTS
from vendomini.measures.cards import LARGEST, CardForm
from vendomini.measures.measured import StepResult
from vendomini.model_info.formats import FAMILIES, PLAIN
from vendomini.worlds.conversation import user_turn
from vendomini.worlds.protocol import Action
from vendomini.worlds.vending import WORLD
from vendomini.worlds.vending.config import VendingConfig
from vendomini.worlds.vending.tools import tool_specs

_EVERYTHING = {"memory_tools": "full", "recovery_tools": "all", "prediction_format": "rich"}
_CONFIG = VendingConfig.model_validate(
    {
        "simulation": {"complexity_level": 2, "storage_capacity": 200},
        "pe_induction": {"p_shock": 0.5, "pe_mag": "high"},
        "agent": {"interface": {**_EVERYTHING, "prediction_mode": "optional"}},
    }
)
_STRICT = _CONFIG.model_copy(
    update={
        "agent": _CONFIG.agent.model_copy(
            update={"interface": _CONFIG.agent.interface.model_copy(update={"prediction_mode": "required+full"})}
        )
    }
)
SPECS = tool_specs(_CONFIG)
TOOLS = {spec.name for spec in SPECS}
FORMS = (PLAIN, *(replace(family, opened=True) for family in FAMILIES))
ARGUMENTS = sorted({name for spec in SPECS for name in spec.parameters["properties"]})
CARD = CardForm(_STRICT.agent.interface, WORLD.expectations).fields

COMPLETION_TOKENS = [
    *('"tool":"', '"arguments":{', '"prediction":{', '"thought":"', '"function":{"name":"', "<think>", "</think>"),
    *(mark for family in FAMILIES for mark in (family.start, family.end, *family.answer)),
    *(
        "<function=",
        "<parameter=",
        "</parameter>",
        "</function>",
        '<invoke name="',
        "</invoke>",
        "<tool_call>",
        "</tool_call>",
    ),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "[tool_order(", "=1)]"),
    *("```json\n", "NaN", "Infinity", "1e999", "\\ud800", "True", "None", "},}", "{'", "'}"),
    *(spec.name for spec in SPECS),
]
TOOL_TOKENS = [
    *(f'"{name}":' for name in (*ARGUMENTS, *CARD, "tool", "arguments", "card", "thought")),
    *(f'"{spec.name}"' for spec in SPECS),
    *('"SUP1"', '"SKU01"', '"S1"', '"C1"', "NaN", "-Infinity", "1e308", "true", "null", "[]", "{}", '"\\ud800"'),
]


class World:
    """An episode that begins again when it ends."""

    def __init__(self, config: VendingConfig) -> None:
        self._environment, self._seed, self._over = Environment(config), 0, True

    def step(self, action: Action) -> StepResult:
        if self._over:
            self._observation, self._result = self._environment.reset(seed=self._seed), None
            self._seed += 1
        turn = user_turn(self._observation, self._result)
        assert turn.count("\n") == (self._result is not None), "a result that breaks out of its line"
        outcome = self._environment.step(action)
        self._check(outcome)
        self._over = outcome.ending is not None
        self._observation, self._result = outcome.observation, outcome.result
        return outcome

    def _check(self, outcome: StepResult) -> None:
        """A log can hold the step, the step was counted, and the world is one that could be."""
        _log([outcome.result, outcome.observation, outcome.card, outcome.shocks, outcome.resolved, outcome.detectors])
        world = self._environment.warehouse
        assert outcome.observation["step"] == self._observation["step"] + 1
        assert min(world.stock.values()) >= 0
        assert sum(world.stock.values()) == world.used <= world.capacity
        assert type(world.cents) is int
        assert math.isfinite(world.net_worth())
        assert all(0 <= error["pe"] < math.inf for error in outcome.resolved)
        assert world.orders_total == world.orders_fulfilled + world.orders_expired + len(world.customers)
        if outcome.ending is not None:
            summary = self._environment.summary()
            _log([summary])
            assert summary["steps"] == sum(summary["parse"].values()) == outcome.observation["step"] - 1


def _log(values: list[Any]) -> None:
    json.dumps(values, allow_nan=False, ensure_ascii=False).encode()


_text_world, _worlds = World(_CONFIG), [World(_CONFIG), World(_STRICT)]


def completion_seeds() -> Iterator[bytes]:
    """The corpus' completions, without the line that says what is expected of them."""
    for file in (Path(__file__).parent.parent / "corpus" / "completion").glob("*.txt"):
        yield file.read_bytes().partition(b"\n")[2]


def check_completion(data: bytes) -> None:
    """Text → parser → world → log."""
    text = data.decode("utf-8", "replace")
    for form in FORMS:
        for how in ("stop", "length", "refused"):
            _check_action(parse_completion(text, TOOLS, form, finish_reason=how))


def _check_action(action: Action) -> None:
    _log([action.tool, action.arguments, action.card, action.thought, action.error])
    outcome = _text_world.step(action)
    if not action.is_call:
        assert action.tool is None
        assert outcome.result["error"]["code"] == action.parse
        assert action.error == COMPLAINTS[action.reason]


def tool_seeds() -> Iterator[bytes]:
    arguments = {"supplier_id": "SUP1", "sku": "SKU01", "quantity": 5, "key": "a", "value": "b", "n": 3}
    arguments |= {"order_id": "S1", "customer_order_id": "C1"}
    card = dict.fromkeys(CARD, 1) | {"expected_success": True, "reasoning": "why"}
    card |= {name: ["it"] for name in ("uncertain_about", "based_on", "alternatives_considered")}
    calls = []
    for spec in SPECS:
        sent = {name: arguments[name] for name in spec.parameters["properties"]}
        calls.append({"tool": spec.name, "arguments": sent, "card": card, "thought": "because"})
        yield json.dumps(calls[-1]).encode()
    yield "\n".join(map(json.dumps, [*calls, *calls])).encode()


def check_tool(data: bytes) -> None:
    """Each line a call, as JSON with ``tool``, ``arguments``, ``card`` and ``thought`` of any kind whatever."""
    for line in data.split(b"\n")[:60]:
        try:
            call = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(call, dict):
            perform(call)


def perform(call: dict[str, Any]) -> None:
    """One call in each world."""
    parse = "unparsable" if call.get("parse") == "unparsable" else "ok"
    action = Action(parse, call.get("tool"), call.get("arguments"), call.get("card"), call.get("thought", ""))
    for world in _worlds:
        outcome = world.step(action)
        assert outcome.result["ok"] or outcome.result["error"]["code"]
        assert not (outcome.result["ok"] and action.tool not in {spec.name for spec in SPECS})
        assert outcome.card is None or all(
            -LARGEST <= value <= LARGEST for value in outcome.card.values() if type(value) in {int, float}
        )
