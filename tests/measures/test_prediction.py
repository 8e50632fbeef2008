"""Prediction errors: formulas, when they resolve, that what is missing is null and never 0, and the accumulators."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vending.driver import Environment, Player, begin, call, end_day, interface
from vendomini.measures.measured import StepResult
from vendomini.measures.prediction import Series

TERMS = {"supplier_id": "SUP1", "sku": "SKU01", "quantity": 10}


def world(**settings: Any) -> Environment:
    return begin(demand__orders_per_day=0.0, **settings)


def place(environment: Environment, **card: Any) -> StepResult:
    return environment.step(call("tool_order", {"expected_success": True, **card}, **TERMS))


def until_delivery(environment: Environment) -> tuple[int, list[dict[str, Any]]]:
    """The day on which the pending order arrives, and what resolved then."""
    while True:
        outcome = end_day(environment)
        if not environment.warehouse.pending:
            return environment.warehouse.day, outcome.resolved
        assert not outcome.resolved


@pytest.mark.parametrize("off", [-2, 0, 5])
def test_the_temporal_error_is_relative_to_the_expected_wait(off: int) -> None:
    environment = world()
    end_day(environment)
    end_day(environment)
    order_day, arrival = 2, 2 + environment.warehouse.market.actual_lead("SUP1", "SKU01")
    expected = arrival + off
    placed = place(environment, expected_delivery_day=expected)
    assert placed.pe["temporal"] is None
    day, resolved = until_delivery(environment)
    assert day == arrival
    (claim,) = resolved
    assert claim["pe"] == pytest.approx(abs(off) / max(expected - order_day, 1), abs=1e-6)
    assert claim | {"pe": 0} == {
        "type": "temporal",
        "made": 3,
        "expected": expected,
        "actual": arrival,
        "pe": 0,
        "order_id": "S1",
    }


@pytest.mark.parametrize(("expected", "delivered", "pe"), [(10, 10, 0), (8, 12, 0.5), (0, 3, 3), (20, 15, 0.25)])
def test_the_quantity_error(expected: int, delivered: int, pe: float) -> None:
    environment = world()
    place(environment, expected_quantity=expected)
    environment.warehouse.pending["S1"].arriving = delivered
    _, (claim,) = until_delivery(environment)
    assert (claim["type"], claim["expected"], claim["actual"], claim["pe"]) == ("quantity", expected, delivered, pe)


def test_delivered_is_what_was_brought_not_what_fitted() -> None:
    environment = world(simulation__storage_capacity=100)
    place(environment, expected_quantity=10)
    _, (claim,) = until_delivery(environment)
    assert environment.warehouse.used == 100
    assert claim["pe"] == 0


@pytest.mark.parametrize(("factor", "pe"), [(1.0, 0.0), (0.5, 1.0), (2.0, 0.5)])
def test_the_cost_error(factor: float, pe: float) -> None:
    environment = world()
    cost = environment.warehouse.market.actual_price("SUP1", "SKU01", 0) / 10
    (causal, claim) = place(environment, expected_cost=cost * factor).resolved
    assert (claim["type"], claim["actual"], causal["type"]) == ("cost", pytest.approx(cost), "causal")
    assert claim["pe"] == pytest.approx(pe, abs=1e-6)


def test_an_expectation_of_less_than_one_counts_as_one_below() -> None:
    (_, claim) = place(world(), expected_cost=0).resolved
    assert claim["pe"] == claim["actual"]


@pytest.mark.parametrize(
    ("card", "pe"),
    [
        ({}, 0),
        ({"expected_success": False}, 1),
        ({"expected_storage_after": 100}, 0),
        ({"expected_storage_after": 101}, 1),
        ({"expected_budget_after": 0.0}, 0),
        ({"expected_budget_after": 0.01}, 0),
        ({"expected_budget_after": -0.01}, 0),
        ({"expected_budget_after": 0.02}, 1),
        ({"expected_budget_after": -0.011}, 1),
    ],
)
def test_the_causal_error_is_all_or_nothing(card: dict[str, Any], pe: int) -> None:
    environment = world()
    cost = environment.warehouse.market.actual_price("SUP1", "SKU01", 0) / 10
    if "expected_budget_after" in card:
        card = {"expected_budget_after": card["expected_budget_after"] + round(1e5 - cost, 2)}
    (claim,) = place(environment, **card).resolved
    assert (claim["type"], claim["pe"]) == ("causal", pe)
    assert claim["actual"] == [True, 100, pytest.approx(1e5 - cost)]


def test_outcomes_are_judged_right_after_the_call_and_before_the_evening() -> None:
    environment = world()
    outcome = environment.step(
        call("tool_end_day", {"expected_success": True, "expected_storage_after": 100, "expected_budget_after": 1e5})
    )
    assert outcome.resolved[0]["pe"] == 0
    assert outcome.observation["budget"] < 1e5


def test_a_failed_call_that_was_expected_to_succeed_is_a_causal_error_and_opens_nothing() -> None:
    environment = world()
    environment.warehouse.cents = 0
    outcome = place(environment, expected_cost=5, expected_delivery_day=3, expected_quantity=10)
    assert [(claim["type"], claim["pe"]) for claim in outcome.resolved] == [("causal", 1)]
    for _ in range(9):
        assert not end_day(environment).resolved


def test_missing_is_null_and_never_0() -> None:
    environment = world()
    outcome = environment.step(call("tool_order", None, **TERMS))
    assert outcome.resolved == []
    assert outcome.pe == dict.fromkeys(("temporal", "quantity", "cost", "causal", "all"))
    assert until_delivery(environment)[1] == []
    outcome = place(environment)
    assert outcome.pe["causal"] == dict.fromkeys(("fast", "medium", "slow", "w10", "w100", "w500"), 0)
    assert [outcome.pe[kind] for kind in ("temporal", "quantity", "cost")] == [None] * 3
    assert environment.summary()["pe"]["cost"] is None
    assert environment.summary()["pe"]["causal"]["n"] == 1


def test_a_cancelled_order_resolves_nothing() -> None:
    environment = world()
    place(environment, expected_delivery_day=9, expected_quantity=9)
    environment.step(call("tool_cancel_order", order_id="S1"))
    for _ in range(12):
        assert end_day(environment).resolved == []


def test_expediting_supersedes_the_claim_about_the_day_and_keeps_the_one_about_the_quantity() -> None:
    environment = world(simulation__complexity_level=4)
    market = environment.warehouse.market
    sku = next(sku for sku in market.skus if market.actual_lead("SUP1", sku) == 5)
    card = {"expected_success": True, "expected_delivery_day": 5, "expected_quantity": 8}
    environment.step(call("tool_order", card, supplier_id="SUP1", sku=sku, quantity=8))
    environment.step(call("tool_expedite", {**card, "expected_delivery_day": 4}, order_id="S1"))
    day, resolved = until_delivery(environment)
    assert day == 3
    assert [(claim["type"], claim["made"], claim["pe"]) for claim in resolved] == [
        ("quantity", 1, 0),
        ("temporal", 2, 0.25),
    ]


def test_the_audit_shows_what_was_expected_and_what_came() -> None:
    environment = world(**interface(recovery_tools="audit"))
    arrival = environment.warehouse.market.actual_lead("SUP1", "SKU01")
    place(environment, expected_delivery_day=arrival + 1, expected_quantity=10)
    place(environment, expected_success=False)
    environment.step(call("tool_cancel_order", None, order_id="S2"))
    until_delivery(environment)
    shown = environment.step(call("tool_audit_predictions", None, n=5)).result["predictions"]
    assert [entry["step"] for entry in shown] == [1, 2]
    assert shown[0]["expected"]["expected_delivery_day"] == arrival + 1
    assert (shown[0]["actual"]["temporal"], shown[0]["actual"]["quantity"]) == (arrival, 10)
    assert shown[0]["pe"] == {"causal": 0, "quantity": 0, "temporal": pytest.approx(1 / (arrival + 1), abs=1e-6)}
    assert shown[1]["pe"] == {"causal": 1}
    newest = environment.step(call("tool_audit_predictions", None, n=1)).result["predictions"]
    assert [entry["step"] for entry in newest] == [2]


# ------------------------------------------------------------------------------------------ accumulators


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 50) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=80),
    st.lists(st.integers(1, 30), min_size=1, max_size=4, unique=True),
)
def test_accumulators_are_those_of_the_definition(values: list[float], windows: list[int]) -> None:
    series = Series(tuple(windows))
    seen: list[float] = []
    means = {}
    for value in values:
        micro = int(value * 1e6 + 0.5)
        series.add(micro)
        seen.append(micro / 1e6)
        for name, alpha in (("fast", 0.3), ("medium", 0.1), ("slow", 0.01)):
            means[name] = alpha * seen[-1] + (1 - alpha) * means[name] if len(seen) > 1 else seen[-1]
        expected = dict(means)
        for window in windows:
            expected[f"w{window}"] = sum(seen[-window:]) / len(seen[-window:])
        assert series.state() == pytest.approx(expected, abs=1.1e-6)
    summary = series.summary()
    assert summary is not None
    assert (summary["n"], summary["mean"]) == (len(seen), pytest.approx(sum(seen) / len(seen), abs=1e-6))


def test_a_window_forgets_exactly_what_left_it() -> None:
    series = Series((10,))
    for _ in range(7):
        series.add(123_457)
    for _ in range(10):
        series.add(0)
    assert series.state()["w10"] == 0.0


def test_only_resolved_values_move_the_accumulators_and_the_rest_is_the_same_object() -> None:
    environment = world()
    first = place(environment, expected_cost=3).pe
    again = environment.step(call("tool_check_budget")).pe
    assert again is first
    later = environment.step(call("tool_check_budget", {"expected_success": False})).pe
    assert later["cost"] is first["cost"]
    assert later["causal"] != first["causal"]
    assert later["all"] != first["all"]


@pytest.mark.parametrize("seed", range(3))
def test_accumulators_follow_from_the_logged_claims(seed: int) -> None:
    environment = begin(seed, pe_induction__p_shock=0.5)
    observation = environment.reset(seed=seed)
    player = Player(environment, seed)
    replayed = {kind: Series((10, 100, 500)) for kind in ("temporal", "quantity", "cost", "causal")}
    made: set[tuple[str, int]] = set()
    for step in range(1, 1_201):
        outcome = environment.step(player.action(observation))
        observation = outcome.observation
        for claim in outcome.resolved:
            replayed[claim["type"]].add(round(claim["pe"] * 1e6))
            assert 1 <= claim["made"] <= step
            assert (claim["type"], claim["made"]) not in made
            made.add((claim["type"], claim["made"]))
        for kind, series in replayed.items():
            assert outcome.pe[kind] == (series.state() if series.count else None)
    assert min(series.count for series in replayed.values()) > 50
