"""What the tests of the simulation share: configs, calls, and a player that keeps a shop at random."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec

from vendomini.measures.measured import MeasuredWorld, StepResult
from vendomini.worlds.protocol import Action
from vendomini.worlds.vending import WORLD
from vendomini.worlds.vending.config import VendingConfig
from vendomini.worlds.vending.warehouse import Warehouse

FOREVER = 10**9


def config(**settings: Any) -> VendingConfig:
    """A config from ``section__key=value``; rich, and without an end unless a test says otherwise."""
    tree: dict[str, Any] = {
        "simulation": {"max_steps": FOREVER, "initial_budget": 1e5},
        "demand": {"max_failures": FOREVER},
        "crash_detector": {"continue_after_crash": FOREVER},
        "agent": {"interface": {"prediction_mode": "optional"}},
    }
    for path, value in settings.items():
        node, (*parents, key) = tree, path.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return VendingConfig.model_validate(tree)


class Environment(MeasuredWorld):
    """The warehouse and its measures. What an agent sees comes as the plain objects that it reads."""

    def __init__(self, config: VendingConfig) -> None:
        super().__init__(WORLD(config), config, config.simulation.max_steps)

    @property
    def warehouse(self) -> Warehouse:
        return self.world.warehouse

    def reset(self, *, seed: int) -> dict[str, Any]:
        return msgspec.to_builtins(super().reset(seed=seed))

    def step(self, action: Action) -> StepResult:
        outcome = super().step(action)
        for name in ("result", "observation", "shocks", "resolved"):
            setattr(outcome, name, msgspec.to_builtins(getattr(outcome, name)))
        return outcome

    @property
    def mail(self) -> list[dict[str, Any]]:
        """The inbox, unread."""
        return msgspec.to_builtins(list(self.warehouse.inbox))

    def strike(self, step: int) -> list[dict[str, Any]]:
        """A shock, if one strikes, without a call."""
        return msgspec.to_builtins(self.world.shocks.strike(step))

    def summary(self) -> dict[str, Any]:
        """With the world's own figures beside the others."""
        summary = super().summary()
        return summary | summary.pop("world")


def interface(**settings: Any) -> dict[str, Any]:
    return {f"agent__interface__{key}": value for key, value in settings.items()}


def begin(seed: int = 0, **settings: Any) -> Environment:
    environment = Environment(config(**settings))
    environment.reset(seed=seed)
    return environment


def call(tool: str, card: Any = None, thought: str = "", **arguments: Any) -> Action:
    return Action("ok", tool, arguments, card, thought)


def do(environment: Environment, tool: str, **arguments: Any) -> dict[str, Any]:
    """The result of one call without a card."""
    return environment.step(call(tool, **arguments)).result


def order(environment: Environment, supplier: str = "SUP1", sku: str = "SKU01", quantity: int = 1) -> dict[str, Any]:
    return do(environment, "tool_order", supplier_id=supplier, sku=sku, quantity=quantity)


def end_day(environment: Environment) -> StepResult:
    return environment.step(call("tool_end_day"))


def dump(value: Any) -> str:
    """As JSON, strictly: raises on what a log can't carry."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8").decode()


class Player:
    """Makes sensible calls at random, and predicts what it may: quotes, orders, ships, looks, ends days."""

    def __init__(self, environment: Environment, seed: int) -> None:
        self._world = environment.warehouse
        self._tools = [spec.name for spec in environment.world.tools]
        self._random = random.Random(seed)

    def action(self, observation: dict[str, Any]) -> Action:
        pick = self._random
        tool = pick.choice([*self._tools, "tool_order", "tool_ship_customer_order", "tool_end_day"])
        arguments: dict[str, Any] = {}
        if tool in {"tool_order", "tool_quote"}:
            market = self._world.market
            arguments = {"supplier_id": pick.choice(market.suppliers), "sku": pick.choice(market.skus)}
            arguments["quantity"] = pick.randint(1, 30)
        elif tool == "tool_ship_customer_order":
            arguments = {"customer_order_id": pick.choice([*self._world.customers, "C0"])}
        elif tool in {"tool_cancel_order", "tool_expedite"}:
            arguments = {"order_id": pick.choice([*self._world.pending, "S0"])}
        elif tool.endswith("scratchpad") and tool != "tool_list_scratchpad":
            arguments = {"key": pick.choice("abc")}
            if tool == "tool_write_scratchpad":
                arguments["value"] = str(observation["day"])
        elif tool == "tool_audit_predictions":
            arguments = {"n": pick.randint(1, 20)}
        return Action("ok", tool, arguments, self._card(tool, arguments, observation), f"On to {tool} now.")

    def _card(self, tool: str, arguments: dict[str, Any], observation: dict[str, Any]) -> dict[str, Any] | None:
        if self._random.random() < 0.1:
            return None
        card: dict[str, Any] = {"expected_success": True, "expected_budget_after": observation["budget"]}
        if tool == "tool_order":
            card["expected_delivery_day"] = observation["day"] + self._random.randint(1, 6)
            card["expected_quantity"] = arguments["quantity"]
            card["expected_cost"] = 20.0 * arguments["quantity"]
        return card
