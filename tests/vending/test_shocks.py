"""Shocks: each type's effect and dose, what is told of it, that nothing compounds, and common random numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vending.driver import Environment, Player, begin, call, do, end_day, order
from vendomini.measures.measured import StepResult
from vendomini.worlds.vending.shocks import DELAY_DAYS, LAG_DAYS, LEAD_FACTOR, MULTIPLIER, RISE_PERCENT

MAGNITUDES = ["low", "medium", "high"]


def struck(mix: str, *, p: float = 1.0, seed: int = 0, **settings: Any) -> Environment:
    induction = {"pe_induction__p_shock": p, "pe_induction__pe_type_mix": mix}
    return begin(seed, demand__orders_per_day=0.0, **{**induction, **settings})


def play(environment: Environment, steps: int, seed: int = 0) -> Iterator[StepResult]:
    player, observation = Player(environment, seed), {"day": 0, "budget": 0.0}
    for _ in range(steps):
        outcome = environment.step(player.action(observation))
        observation = outcome.observation
        yield outcome


def look(environment: Environment) -> StepResult:
    return environment.step(call("tool_check_budget"))


def notices(environment: Environment) -> list[dict[str, Any]]:
    return [message for message in environment.mail if message["kind"] == "notice"]


# -------------------------------------------------------------------------------------------- the types


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_a_delay_moves_the_arrival_once(magnitude: str) -> None:
    seen = set()
    for seed in range(12):
        environment = struck("temporal_only", seed=seed, pe_induction__pe_mag=magnitude)
        order(environment)
        pending = environment.warehouse.pending["S1"]
        promised = pending.arrival
        (shock,) = look(environment).shocks
        assert (shock["type"], shock["kind"], shock["status"], shock["target"]) == (
            "temporal",
            "delay",
            "realised",
            "S1",
        )
        assert pending.arrival - promised == shock["nominal"] == shock["realised"]
        seen.add(shock["realised"])
        (again,) = look(environment).shocks
        assert again["status"] == "void"
        assert pending.arrival - promised == shock["realised"]
    low, high = DELAY_DAYS[magnitude]
    assert seen == set(range(low, high + 1))


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_a_miscount_changes_what_arrives_and_not_what_was_paid(magnitude: str) -> None:
    low, high = MULTIPLIER[magnitude]
    for seed in range(20):
        environment = struck("quantity_only", seed=seed, pe_induction__pe_mag=magnitude)
        quantity = 1 + seed * 2
        placed = order(environment, quantity=quantity)
        budget = environment.warehouse.cents
        pending = environment.warehouse.pending["S1"]
        (shock,) = look(environment).shocks
        assert pending.arriving >= 1
        assert math.floor(low * quantity) <= pending.arriving <= math.ceil(high * quantity)
        assert shock["realised"] == pytest.approx(abs(pending.arriving - quantity) / quantity, abs=1e-6)
        assert abs(shock["nominal"] - shock["realised"]) <= 0.5 / quantity + 1e-6
        assert (environment.warehouse.cents, pending.cost / 100) == (budget, placed["cost"])
        assert look(environment).shocks[0]["status"] == "void"


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_a_regime_shift_scales_lead_times_and_the_next_one_takes_it_back(magnitude: str) -> None:
    environment = struck("rule_only", pe_induction__pe_mag=magnitude, simulation__complexity_level=0)
    market, factor = environment.warehouse.market, LEAD_FACTOR[magnitude]
    original = {(s, k): market.actual_lead(s, k) for s in market.suppliers for k in market.skus}
    shifted = dict.fromkeys(market.suppliers, False)
    for _ in range(40):
        (shock,) = look(environment).shocks
        shifted[shock["target"]] = not shifted[shock["target"]]
        assert shock["nominal"] == factor - 1
        assert shock["realised"] > 0
        for (supplier, sku), lead in original.items():
            expected = math.ceil(lead * factor) if shifted[supplier] else lead
            assert market.actual_lead(supplier, sku) == expected


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_a_posting_lag_books_the_next_charge_later(magnitude: str) -> None:
    environment = _armed("posting_lag", pe_induction__pe_mag=magnitude)
    world, days = environment.warehouse, LAG_DAYS[magnitude]
    budget, day = world.cents, world.day
    world.day, environment.world._actions_left = day, 99
    environment.world.shocks._p = 0.0
    outcome = environment.step(call("tool_order", supplier_id="SUP1", sku="SKU01", quantity=2))
    cost = round(outcome.result["cost"] * 100)
    (shock,) = (shock for shock in outcome.shocks if shock["kind"] == "posting_lag")
    assert (shock["status"], shock["nominal"], shock["realised"]) == ("realised", days, days)
    assert shock["struck"] < outcome.observation["step"] - 1
    assert world.cents == budget
    assert do(environment, "tool_check_budget")["pending_charges"] == cost / 100
    fees = 0
    for _ in range(days + 1):
        assert world.cents == budget - fees
        fees += 200 + 2 * world.used
        end_day(environment)
    assert world.cents == budget - fees - cost


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_interference_raises_the_price_elsewhere_for_ten_days(magnitude: str) -> None:
    environment = _armed("interference", pe_induction__pe_mag=magnitude)
    environment.world.shocks._p = 0.0
    market, percent = environment.warehouse.market, RISE_PERCENT[magnitude]
    original = {supplier: market.actual_price(supplier, "SKU03", 0) for supplier in market.suppliers}
    outcome = environment.step(call("tool_order", supplier_id="SUP2", sku="SKU03", quantity=1))
    shock = next(shock for shock in outcome.shocks if shock["kind"] == "interference")
    assert (shock["status"], shock["target"], shock["nominal"]) == ("realised", "SKU03", percent / 100)
    assert shock["realised"] == percent / 100
    assert outcome.result["cost"] == original["SUP2"] / 100
    day = environment.warehouse.day
    for supplier, price in original.items():
        raised = price if supplier == "SUP2" else (price * (100 + percent) + 50) // 100
        assert [market.actual_price(supplier, "SKU03", day + d) for d in (0, 9, 10)] == [raised, raised, price]


def _armed(kind: str, **settings: Any) -> Environment:
    """A world in which only this kind of causal shock is armed."""
    environment = struck("causal_only", **settings)
    while True:
        look(environment)
        world = environment.warehouse
        if kind == "posting_lag" and world.lag is not None:
            world.interference = None
            return environment
        if kind == "interference" and world.interference is not None:
            world.lag = None
            return environment


# ------------------------------------------------------------------------------------------- compounding


@pytest.mark.parametrize("mix", ["realistic", "uniform", "temporal_only", "quantity_only", "causal_only", "rule_only"])
def test_at_p_shock_1_everything_still_arrives_and_terms_stay_within_one_factor(mix: str) -> None:
    environment = struck(mix, pe_induction__pe_mag="high", simulation__complexity_level=1)
    world, market = environment.warehouse, environment.warehouse.market
    original = {
        (s, k): (market.actual_price(s, k, 0), market.actual_lead(s, k)) for s in market.suppliers for k in market.skus
    }
    longest = 0
    for _ in play(environment, 800):
        for (supplier, sku), (price, lead) in original.items():
            assert market.actual_lead(supplier, sku) in {lead, 2 * lead}
            assert market.actual_price(supplier, sku, world.day) in {price, (price * 130 + 50) // 100}
        longest = max([longest, *(pending.arrival - world.day for pending in world.pending.values())])
    assert longest <= 2 * 6 + 4
    assert sum(shock["n"] for shock in environment.world.shocks.summary()["kinds"].values()) > 50


def test_a_type_without_a_target_gives_way_to_one_that_has_and_else_is_void() -> None:
    environment = struck("realistic")
    kinds = {shock["type"] for _ in range(30) for shock in look(environment).shocks}
    assert kinds == {"causal", "rule"}
    assert environment.world.shocks.summary()["void"] == 0
    void = struck("temporal_only")
    (shock,) = look(void).shocks
    assert shock == {
        "struck": 1,
        "type": "temporal",
        "kind": None,
        "status": "void",
        "target": None,
        "nominal": None,
        "realised": None,
    }
    assert void.summary()["shocks"] == {"realised": 0, "armed": 0, "void": 1, "kinds": {"delay": {"n": 0}}}


def test_types_strike_as_often_as_the_mix_says() -> None:
    environment = struck("realistic", p=0.5)
    counts = dict.fromkeys(("temporal", "quantity", "causal", "rule"), 0)
    for step in range(1, 6_001):
        environment.warehouse.pending.clear()
        for _ in range(3):
            environment.warehouse.cents = 10**6
            environment.warehouse.place("SUP1", "SKU01", 9)
        environment.warehouse.lag = environment.warehouse.interference = None
        for shock in environment.strike(step):
            counts[shock["type"]] += 1
    total = sum(counts.values())
    assert 0.48 < total / 6_000 < 0.52
    shares = {kind: count / total for kind, count in counts.items()}
    assert shares == pytest.approx({"temporal": 0.4, "quantity": 0.3, "causal": 0.2, "rule": 0.1}, abs=0.03)


def test_an_unreliable_supplier_is_struck_more_often() -> None:
    environment = struck("rule_only", simulation__complexity_level=2)
    lack = environment.warehouse.market.unreliability
    hits = dict.fromkeys(lack, 0)
    for step in range(1, 8_001):
        (shock,) = environment.strike(step)
        hits[shock["target"]] += 1
    total = sum(lack.values())
    assert {s: n / 8_000 for s, n in hits.items()} == pytest.approx({s: x / total for s, x in lack.items()}, abs=0.02)


# -------------------------------------------------------------------------------------- what is told of it


def test_full_observability_tells_at_once_and_advertises_what_holds() -> None:
    environment = struck("realistic", p=0.7, pe_induction__pe_mag="high", simulation__complexity_level=2)
    world, market = environment.warehouse, environment.warehouse.market
    told = 0
    for outcome in play(environment, 1_000):
        for supplier in market.suppliers:
            for sku in market.skus:
                assert market.advertised_lead(supplier, sku) == market.actual_lead(supplier, sku)
                actual = market.actual_price(supplier, sku, world.day)
                assert market.advertised_price(supplier, sku, world.day) == actual
        for pending in world.pending.values():
            assert (pending.promised, pending.announced) == (pending.arrival, pending.arriving)
        told += any(shock["status"] == "realised" for shock in outcome.shocks)
    assert told > 300


def test_hidden_shocks_are_never_told_and_promises_stay() -> None:
    environment = struck("uniform", p=0.7, pe_induction__observability="hidden", pe_induction__pe_mag="high")
    market = environment.warehouse.market
    advertised = {
        (s, k): (market.advertised_price(s, k, 0), market.advertised_lead(s, k))
        for s in market.suppliers
        for k in market.skus
    }
    apart = 0
    for outcome in play(environment, 600):
        messages = outcome.result.get("messages", []) if outcome.result["ok"] else []
        assert not [m for m in [*messages, *environment.mail] if m["kind"] == "notice"]
        day = environment.warehouse.day
        for (supplier, sku), terms in advertised.items():
            assert (market.advertised_price(supplier, sku, day), market.advertised_lead(supplier, sku)) == terms
            apart += terms != (market.actual_price(supplier, sku, day), market.actual_lead(supplier, sku))
    assert apart > 0


def test_a_delayed_notice_comes_after_its_days() -> None:
    environment = struck("rule_only", p=1.0, pe_induction__observability="delayed", pe_induction__notice_delay_days=2)
    (shock,) = look(environment).shocks
    environment.world.shocks._p = 0.0
    market, supplier = environment.warehouse.market, shock["target"]
    for day in range(3):
        assert (environment.warehouse.day, len(notices(environment))) == (day, 1 if day == 2 else 0)
        assert market.advertised_factor[supplier] == (market.actual_factor[supplier] if day == 2 else 1.0)
        end_day(environment)
    (notice,) = notices(environment)
    assert (notice["supplier_id"], notice["factor"]) == (supplier, 1.5)


def test_a_delay_of_no_days_tells_at_once() -> None:
    environment = struck("rule_only", pe_induction__observability="delayed", pe_induction__notice_delay_days=0)
    look(environment)
    assert len(notices(environment)) == 1


AMOUNTS = {"days", "eta_day", "quantity", "percent", "last_day", "factor"}


@pytest.mark.parametrize("mix", ["temporal_only", "quantity_only", "causal_only", "rule_only"])
def test_partial_tells_of_every_other_shock_without_the_amount_but_the_terms_show_it(mix: str) -> None:
    told = total = 0
    for seed in range(60):
        environment = struck(mix, seed=seed, pe_induction__observability="partial", pe_induction__pe_mag="high")
        order(environment, quantity=20)
        environment.warehouse.inbox.clear()
        environment.warehouse.lag = environment.warehouse.interference = None
        for pending in environment.warehouse.pending.values():
            pending.delayed = pending.miscounted = False
            pending.promised, pending.announced = pending.arrival, pending.arriving
        environment.warehouse.market.advertised_factor |= environment.warehouse.market.actual_factor
        shocks = environment.strike(2)
        environment.world.shocks._p = 0.0
        order(environment)
        total += any(shock["status"] != "void" for shock in shocks)
        for notice in notices(environment):
            told += 1
            assert not AMOUNTS & notice.keys()
            assert not re.search(r"\d", re.sub(r"\b(SUP|SKU|S)\d+", "", notice["text"]))
            if notice["shock"] == "regime_shift":
                market = environment.warehouse.market
                assert market.advertised_factor == market.actual_factor
            if notice["shock"] == "delay":
                assert environment.warehouse.pending["S1"].promised == environment.warehouse.pending["S1"].arrival
    assert total == 60
    assert 18 <= told <= 42


def test_what_lags_unannounced_does_not_show() -> None:
    environment = _armed("posting_lag", pe_induction__observability="hidden")
    environment.world.shocks._p = 0.0
    order(environment)
    assert environment.warehouse.lagged
    assert do(environment, "tool_check_budget")["pending_charges"] == 0


# ------------------------------------------------------------------------------------ common random numbers

VARIED = [
    {"pe_induction__p_shock": 0.0},
    {"pe_induction__p_shock": 0.3},
    {"pe_induction__p_shock": 1.0, "pe_induction__pe_mag": "high"},
    {"pe_induction__p_shock": 0.6, "pe_induction__observability": "partial"},
    {"pe_induction__p_shock": 0.6, "pe_induction__pe_type_mix": "rule_only"},
]


@pytest.mark.parametrize("settings", VARIED[1:])
def test_runs_that_differ_in_their_shocks_meet_the_same_terms_and_customers(settings: dict[str, Any]) -> None:
    assert _fate(settings, player=1) == _fate(VARIED[0], player=2)


def _fate(settings: dict[str, Any], player: int) -> Any:
    """The terms at the start, and the customers of the first 60 days."""
    environment = begin(11, **settings)
    market = environment.warehouse.market
    terms = [(market.actual_price(s, k, 0), market.actual_lead(s, k)) for s in market.suppliers for k in market.skus]
    customers: dict[str, Any] = {}
    for _ in play(environment, 400, player):
        open_orders = environment.warehouse.customers.values()
        customers |= {o.id: (o.sku, o.quantity, o.unit_price, o.due) for o in open_orders if o.id not in customers}
    assert environment.warehouse.day >= 60
    return terms, market.unreliability, {id_: fate for id_, fate in customers.items() if fate[3] < 60}


def test_the_shocks_at_a_lower_probability_are_among_those_at_a_higher() -> None:
    def strikes(p: float) -> dict[int, tuple[str, Any]]:
        environment = begin(4, pe_induction__p_shock=p, pe_induction__pe_type_mix="rule_only")
        outcomes = (look(environment) for _ in range(500))
        return {shock["struck"]: shock["target"] for outcome in outcomes for shock in outcome.shocks}

    low, high = strikes(0.3), strikes(0.4)
    assert low.items() <= high.items()
    assert 110 < len(low) < len(high) < 240
