"""Conservation, checked by a bookkeeper who sees only what an agent sees: results, observations and the inbox."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vending.driver import Player, begin, interface

FEE, STORAGE_FEE = 200, 2  # cents a day, cents a unit


class Bookkeeper:
    """Units: at start + delivered = stock + shipped. Money, in cents: start + in − out = budget, lags settled."""

    def __init__(self, observation: dict[str, Any]) -> None:
        self.cents = round(observation["budget"] * 100)
        self.units = observation["storage_used"]
        self.ordered: dict[str, int] = {}
        self.arrived: dict[str, int] = {}
        self.cancelled: set[str] = set()

    def book(self, tool: str, arguments: dict[str, Any], result: dict[str, Any], customers: dict[str, int]) -> None:
        self.cents -= round(result.get("cost", 0) * 100)
        self.cents += round((result.get("refund", 0) + result.get("revenue", 0)) * 100)
        if tool == "tool_order":
            self.ordered[result["order_id"]] = arguments["quantity"]
        elif tool == "tool_cancel_order":
            self.cancelled.add(arguments["order_id"])
        elif tool == "tool_ship_customer_order":
            self.units -= customers[arguments["customer_order_id"]]

    def night(self, stored: int, messages: list[dict[str, Any]]) -> None:
        self.cents -= FEE + STORAGE_FEE * stored
        for message in messages:
            if message["kind"] == "delivery":
                assert message["order_id"] not in self.arrived
                self.arrived[message["order_id"]] = message["quantity"]
                self.units += message["quantity"] - message.get("sent_back", 0)
                self.cents += round(message.get("refund", 0) * 100)


@pytest.mark.parametrize("mix", ["realistic", "causal_only", "quantity_only"])
@pytest.mark.parametrize("seed", range(4))
def test_units_and_money_are_conserved(mix: str, seed: int) -> None:
    environment = begin(
        seed,
        simulation__complexity_level=2,
        simulation__initial_budget=1e6,
        pe_induction__p_shock=0.6,
        pe_induction__pe_mag="high",
        pe_induction__pe_type_mix=mix,
        **interface(memory_tools="none"),
    )
    observation = environment.reset(seed=seed)
    world = environment.warehouse
    books, player = Bookkeeper(observation), Player(environment, seed)
    sent_back = 0
    for _ in range(1_500):
        world.inbox.clear()
        customers = {order.id: order.quantity for order in world.customers.values()}
        stored_before, day = world.used, world.day
        action = player.action(observation)
        outcome = environment.step(action)
        observation = outcome.observation
        if outcome.result["ok"]:
            books.book(action.tool, action.arguments, outcome.result, customers)
        if observation["day"] > day:
            shipped = action.tool == "tool_ship_customer_order" and outcome.result["ok"]
            stored = stored_before - (customers[action.arguments["customer_order_id"]] if shipped else 0)
            books.night(stored, environment.mail)
            sent_back += sum(message.get("sent_back", 0) for message in environment.mail)
        lagged = sum(lag.amount for lag in world.lagged)
        assert world.cents + lagged == books.cents
        assert observation["budget"] == world.cents / 100
        assert world.used == sum(world.stock.values()) == books.units
        assert min(world.stock.values()) >= 0
        assert world.used <= world.capacity
        assert books.ordered.keys() == books.arrived.keys() | books.cancelled | world.pending.keys()
    assert len(books.arrived) > 50
    assert sent_back > 0
    if mix == "causal_only":
        assert all(books.ordered[order] == units for order, units in books.arrived.items())


def test_what_does_not_fit_is_sent_back_and_refunded_but_never_more_than_was_paid() -> None:
    environment = begin(simulation__storage_capacity=60, simulation__initial_storage_per_sku=5)
    world = environment.warehouse
    short, long = world.place("SUP1", "SKU01", 15), world.place("SUP1", "SKU01", 15)
    short.arriving, long.arriving = 12, 30
    for arriving, kept, refunded in ((short, 60 - 50, 2), (long, 0, 15)):
        cents, used = world.cents, world.used
        world._deliver(arriving)
        assert world.used - used == min(kept, 60 - used)
        assert world.cents - cents == refunded * arriving.unit_price
    assert environment.mail[-1]["sent_back"] == 30


def test_orders_are_fulfilled_expired_or_open() -> None:
    environment = begin(simulation__complexity_level=1)
    observation = environment.reset(seed=5)
    player = Player(environment, 5)
    for _ in range(800):
        observation = environment.step(player.action(observation)).observation
    summary = environment.summary()
    assert summary["orders_fulfilled"] > 0
    assert summary["orders_expired"] > 0
    open_orders = observation["open_customer_orders"]
    assert summary["orders_total"] == summary["orders_fulfilled"] + summary["orders_expired"] + open_orders
