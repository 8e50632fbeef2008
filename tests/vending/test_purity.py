"""An agent that predicts from what is advertised meets the errors of the shock types in the mix, and no others."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.vending.driver import Environment, begin, call
from vendomini.worlds.protocol import Action


class Believer:
    """Orders, ships and looks at random; its cards are exact if everybody keeps to the advertised terms."""

    def __init__(self, environment: Environment, seed: int) -> None:
        self._world = environment.warehouse
        self._random = random.Random(seed)

    def action(self) -> Action:
        world, pick = self._world, self._random
        ready = [order for order in world.customers.values() if world.stock[order.sku] >= order.quantity]
        if ready and pick.random() < 0.7:
            order = ready[0]
            card = self._card(order.unit_price * order.quantity, -order.quantity)
            return call("tool_ship_customer_order", card, customer_order_id=order.id)
        if pick.random() < 0.4:
            return self._order()
        return call(pick.choice(["tool_check_inbox", "tool_check_orders", "tool_end_day"]), self._card(0, 0))

    def _order(self) -> Action:
        world, pick = self._world, self._random
        supplier, sku, quantity = (
            pick.choice(world.market.suppliers),
            pick.choice(world.market.skus),
            pick.randint(1, 9),
        )
        cost = quantity * world.market.advertised_price(supplier, sku, world.day)
        card = self._card(-cost, 0)
        card["expected_delivery_day"] = world.day + world.market.advertised_lead(supplier, sku)
        card |= {"expected_quantity": quantity, "expected_cost": cost / 100}
        return call("tool_order", card, supplier_id=supplier, sku=sku, quantity=quantity)

    def _card(self, cents: int, units: int) -> dict[str, Any]:
        budget = (self._world.cents + cents) / 100
        storage = self._world.used + units
        return {"expected_success": True, "expected_budget_after": budget, "expected_storage_after": storage}


@pytest.mark.parametrize(
    ("mix", "p_shock", "types"),
    [
        ("uniform", 0.0, set()),
        ("temporal_only", 0.6, {"temporal"}),
        ("rule_only", 0.6, {"temporal"}),
        ("quantity_only", 0.6, {"quantity"}),
        ("causal_only", 0.6, {"causal", "cost"}),
        ("uniform", 0.6, {"temporal", "quantity", "causal", "cost"}),
    ],
)
@pytest.mark.parametrize("observability", ["full", "hidden"])
def test_errors_are_of_the_shocks_types(mix: str, p_shock: float, types: set[str], observability: str) -> None:
    environment = begin(
        2,
        pe_induction__p_shock=p_shock,
        pe_induction__pe_type_mix=mix,
        pe_induction__pe_mag="high",
        pe_induction__observability=observability,
        simulation__initial_budget=1e6,
    )
    believer = Believer(environment, 3)
    for _ in range(1_500):
        environment.step(believer.action())
    means = {kind: series["mean"] for kind, series in environment.summary()["pe"].items() if kind != "all"}
    if observability == "full":
        types = types - {"cost"}  # raised prices are advertised before the next order
    assert {kind for kind, mean in means.items() if mean > 0} == types
    assert environment.summary()["pe"]["temporal"]["n"] > 100
