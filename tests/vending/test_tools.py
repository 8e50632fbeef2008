"""Each tool: what it answers, what it refuses, and that its checks are those of the schema the agent reads."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vending.driver import Environment, begin, call, config, do, end_day, interface, order
from vendomini.measures.cards import CardForm, InvalidCard
from vendomini.worlds.protocol import Action
from vendomini.worlds.tools import Arguments, InvalidArguments
from vendomini.worlds.vending import WORLD
from vendomini.worlds.vending.answers import Letter
from vendomini.worlds.vending.tools import tool_specs

ALL = interface(memory_tools="full", recovery_tools="all")
BASE = ["tool_order", "tool_quote", "tool_check_inbox", "tool_check_storage", "tool_check_budget", "tool_check_orders"]
BASE += ["tool_ship_customer_order", "tool_cancel_order", "tool_end_day"]
BASIC_MEMORY = ["tool_write_scratchpad", "tool_read_scratchpad"]
FULL_MEMORY = [*BASIC_MEMORY, "tool_delete_scratchpad", "tool_list_scratchpad"]
RECOVERY = {
    "none": [],
    "reset": ["tool_reset_beliefs"],
    "audit": ["tool_audit_predictions"],
    "help": ["tool_ask_help"],
    "all": ["tool_reset_beliefs", "tool_audit_predictions", "tool_ask_help"],
}


def code(result: dict[str, Any]) -> str | None:
    return None if result["ok"] else result["error"]["code"]


@pytest.mark.parametrize(("memory", "tools"), [("none", []), ("basic", BASIC_MEMORY), ("full", FULL_MEMORY)])
@pytest.mark.parametrize("recovery", RECOVERY)
@pytest.mark.parametrize("level", [1, 2])
def test_a_run_offers_the_tools_of_its_config(memory: str, tools: list[str], recovery: str, level: int) -> None:
    settings = interface(memory_tools=memory, recovery_tools=recovery)
    specs = tool_specs(config(simulation__complexity_level=level, **settings))
    expedite = ["tool_expedite"] if level >= 2 else []
    assert sorted(spec.name for spec in specs) == sorted(BASE + expedite + tools + RECOVERY[recovery])
    for spec in specs:
        jsonschema.Draft202012Validator.check_schema(spec.parameters)


def test_levels_have_their_skus_suppliers_and_lead_times() -> None:
    sizes = [(5, 2, 5), (10, 3, 6), (15, 4, 7), (20, 5, 8), (25, 6, 9)]
    for level, (skus, suppliers, longest) in enumerate(sizes):
        leads, prices = set(), []
        for seed in range(12):
            market = begin(seed, simulation__complexity_level=level).warehouse.market
            assert (len(market.skus), len(market.suppliers)) == (skus, suppliers)
            terms = [(supplier, sku) for supplier in market.suppliers for sku in market.skus]
            leads |= {market.actual_lead(*pair) for pair in terms}
            prices += [market.actual_price(*pair, 0) for pair in terms]
            assert all(0.01 < lack <= 0.15 for lack in market.unreliability.values())
        assert leads == set(range(1, longest + 1))
        assert min(prices) >= 500
        assert max(prices) <= 5000
        assert 2600 < sum(prices) / len(prices) < 2900


values = st.integers(-3, 30) | st.floats() | st.booleans() | st.none() | st.text(max_size=5)
values |= st.sampled_from(["SUP1", "SKU03", "S1", 3.0, "k" * 101, 10**30]) | st.lists(st.integers(), max_size=2)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_arguments_are_accepted_exactly_if_their_schema_is_satisfied(data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(tool_specs(config(simulation__complexity_level=2, **ALL))))
    names = st.sampled_from([*spec.parameters["properties"], "extra"])
    sound = {"supplier_id": "SUP1", "sku": "SKU01", "quantity": 1, "n": 1, "key": "k", "value": "v", "order_id": "S1"}
    arguments = {name: sound.get(name, "C1") for name in spec.parameters["properties"]}
    arguments |= data.draw(st.dictionaries(names, values, max_size=2))
    for name in data.draw(st.lists(names, max_size=1)):
        arguments.pop(name, None)
    accepted = True
    try:
        Arguments(spec).validate(arguments)
    except InvalidArguments:
        accepted = False
    assert accepted == jsonschema.Draft202012Validator(spec.parameters).is_valid(arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"supplier_id": "SUP1", "sku": "SKU01"}, "needs the argument 'quantity'"),
        ({"supplier_id": "SUP1", "sku": "SKU01", "quantity": True}, "quantity must be an integer from 1"),
        ({"supplier_id": "SUP1", "sku": "SKU01", "quantity": "3"}, "quantity must be an integer from 1"),
        ({"supplier_id": "SUP9", "sku": "SKU01", "quantity": 3}, "supplier_id must be one of SUP1, SUP2, SUP3"),
        ({"supplier_id": "SUP1", "sku": "SKU01", "quantity": 3, "rush": 1}, "has no argument 'rush'"),
        ([1], "arguments must be an object"),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, complaint: str) -> None:
    result = begin().step(Action("ok", "tool_order", arguments)).result
    assert code(result) == "invalid_arguments"
    assert complaint in result["error"]["message"]


def test_an_order_is_paid_arrives_as_promised_and_can_be_shipped() -> None:
    environment = begin(demand__orders_per_day=0.0)
    world = environment.warehouse
    quote = do(environment, "tool_quote", supplier_id="SUP2", sku="SKU04", quantity=7)
    placed = order(environment, "SUP2", "SKU04", 7)
    assert placed == {
        "ok": True,
        "order_id": "S1",
        "eta_day": world.day + quote["lead_days"],
        "cost": round(7 * quote["unit_price"], 2),
    }
    listed = do(environment, "tool_check_orders")["supplier_orders"]
    assert listed == [
        {"order_id": "S1", "supplier_id": "SUP2", "sku": "SKU04", "quantity": 7}
        | {"eta_day": placed["eta_day"], "cost": placed["cost"]}
    ]
    while world.day < placed["eta_day"]:
        assert world.stock["SKU04"] == 10
        end_day(environment)
    assert world.stock["SKU04"] == 17
    assert not world.pending
    delivery = do(environment, "tool_check_inbox")["messages"][-1]
    assert (delivery["kind"], delivery["order_id"], delivery["quantity"]) == ("delivery", "S1", 7)


def test_an_order_may_cost_all_of_the_budget_and_not_a_cent_more() -> None:
    environment = begin()
    price = environment.warehouse.market.actual_price("SUP1", "SKU01", 0)
    environment.warehouse.cents = 3 * price - 1
    assert code(order(environment, quantity=3)) == "insufficient_funds"
    environment.warehouse.cents = 3 * price
    assert order(environment, quantity=3)["ok"]
    assert environment.warehouse.cents == 0


def test_shipping_needs_the_goods_and_pays_less_when_late() -> None:
    environment = begin(demand__orders_per_day=3.0, demand__late_penalty=0.25)
    world = environment.warehouse
    assert code(do(environment, "tool_ship_customer_order", customer_order_id="C999")) == "unknown_id"
    first, second = list(world.customers.values())[:2]
    world.stock[first.sku] = first.quantity - 1
    assert code(do(environment, "tool_ship_customer_order", customer_order_id=first.id)) == "insufficient_stock"
    for customer, day, late, share in ((first, 3, False, 1.0), (second, 4, True, 0.75)):
        while world.day < day:
            end_day(environment)
        world.stock[customer.sku] += customer.quantity
        world.used += customer.quantity
        result = do(environment, "tool_ship_customer_order", customer_order_id=customer.id)
        assert result["late"] is late
        assert result["revenue"] == pytest.approx(share * customer.quantity * customer.unit_price / 100, abs=0.006)
    assert code(do(environment, "tool_ship_customer_order", customer_order_id=first.id)) == "unknown_id"


def test_customers_pay_the_markup_and_leave_after_ten_days() -> None:
    environment = begin(demand__orders_per_day=2.0, demand__sale_markup=1.6)
    world = environment.warehouse
    customer = next(iter(world.customers.values()))
    assert customer.unit_price == round(1.6 * world.market.lowest[customer.sku])
    assert (customer.due, customer.expires) == (3, 10)
    while world.day < 10:
        assert customer.id in world.customers
        end_day(environment)
    assert customer.id in world.customers
    end_day(environment)
    assert customer.id not in world.customers


def test_cancelling_costs_a_tenth() -> None:
    environment = begin()
    placed = order(environment, quantity=10)
    assert do(environment, "tool_cancel_order", order_id="S1")["refund"] == pytest.approx(
        0.9 * placed["cost"], abs=0.005
    )
    assert code(do(environment, "tool_cancel_order", order_id="S1")) == "unknown_id"


def test_expediting_saves_up_to_two_days_once() -> None:
    environment = begin(simulation__complexity_level=4, simulation__actions_per_day=99)
    market = environment.warehouse.market
    leads = {market.actual_lead("SUP1", sku): sku for sku in market.skus}
    for number, (lead, saved) in enumerate([(1, None), (2, 1), (3, 2), (6, 2)], 1):
        placed = order(environment, "SUP1", leads[lead], 4)
        result = do(environment, "tool_expedite", order_id=f"S{number}")
        if saved is None:
            assert code(result) == "too_late"
            continue
        assert placed["eta_day"] - result["eta_day"] == saved
        assert result["cost"] == pytest.approx(placed["cost"] / 2, abs=0.006)
        assert environment.warehouse.pending[f"S{number}"].arrival == result["eta_day"]
        assert code(do(environment, "tool_expedite", order_id=f"S{number}")) == "already_expedited"
    environment.warehouse.cents = 0
    environment.warehouse.pending["S4"].expedited = False
    assert code(do(environment, "tool_expedite", order_id="S4")) == "insufficient_funds"


def test_a_day_has_its_actions_and_may_end_early() -> None:
    environment = begin(simulation__actions_per_day=3)
    left = [(o["day"], o["actions_left_today"]) for o in (_look(environment) for _ in range(4))]
    assert left == [(0, 2), (0, 1), (1, 3), (1, 2)]
    outcome = end_day(environment)
    assert outcome.result == {"ok": True, "day": 2}
    assert (outcome.observation["day"], outcome.observation["actions_left_today"]) == (2, 3)


def _look(environment: Environment) -> dict[str, Any]:
    return environment.step(call("tool_check_storage")).observation


def test_evening_fees() -> None:
    environment = begin(demand__orders_per_day=0.0, simulation__daily_fee=2.0, simulation__storage_fee=0.02)
    before = environment.warehouse.cents
    end_day(environment)
    assert before - environment.warehouse.cents == 200 + 2 * 100


def test_the_inbox_is_read_in_bounded_helpings_and_forgets_the_oldest() -> None:
    environment = begin(demand__orders_per_day=0.0)
    for number in range(130):
        environment.warehouse.inbox.append(Letter(0, "note", str(number)))
    seen = []
    while environment.warehouse.inbox:
        result = do(environment, "tool_check_inbox")
        assert len(result["messages"]) == 20
        seen += [message["text"] for message in result["messages"]]
        assert result["unread"] == 100 - len(seen)
    assert seen == [str(number) for number in range(30, 130)]


def test_the_scratchpad_keeps_lists_and_deletes_within_its_limits() -> None:
    environment = begin(**ALL)
    assert do(environment, "tool_write_scratchpad", key="a", value="one") == {"ok": True, "keys": 1}
    assert do(environment, "tool_write_scratchpad", key="a", value="two\ud800") == {"ok": True, "keys": 1}
    assert do(environment, "tool_read_scratchpad", key="a") == {"ok": True, "value": "two\\ud800"}
    assert do(environment, "tool_list_scratchpad") == {"ok": True, "keys": ["a"]}
    assert code(do(environment, "tool_read_scratchpad", key="b")) == "unknown_id"
    assert code(do(environment, "tool_write_scratchpad", key="b", value="x" * 2001)) == "invalid_arguments"
    for number in range(49):
        assert do(environment, "tool_write_scratchpad", key=f"k{number}", value="v")["ok"]
    assert code(do(environment, "tool_write_scratchpad", key="b", value="v")) == "scratchpad_full"
    assert do(environment, "tool_delete_scratchpad", key="a") == {"ok": True, "keys": 49}
    assert code(do(environment, "tool_delete_scratchpad", key="a")) == "unknown_id"


def test_resetting_beliefs_clears_the_history_and_keeps_the_notes() -> None:
    environment = begin(**ALL)
    assert not environment.step(call("tool_write_scratchpad", key="a", value="v")).history_cleared
    assert environment.step(call("tool_reset_beliefs")).history_cleared
    assert do(environment, "tool_read_scratchpad", key="a")["value"] == "v"
    assert not begin().step(call("tool_reset_beliefs")).history_cleared


def test_hints_fit_the_situation() -> None:
    environment = begin(demand__orders_per_day=0.0, **ALL)
    world = environment.warehouse
    assert "end the day" in do(environment, "tool_ask_help")["hint"]
    world.inbox.append(Letter(0, "note", ""))
    assert "inbox" in do(environment, "tool_ask_help")["hint"]
    do(environment, "tool_cancel_order", order_id="S7")
    assert "unknown_id" in do(environment, "tool_ask_help")["hint"]
    world._welcome()
    world.stock["SKU01"] = world.stock[next(iter(world.customers.values())).sku] = 20
    assert "ship C1" in do(environment, "tool_ask_help")["hint"]


def test_calls_that_are_none_fail_by_name() -> None:
    environment = begin()
    assert code(environment.step(Action("unparsable", error="no JSON")).result) == "unparsable"
    assert code(do(environment, "tool_bribe")) == "unknown_tool"
    assert code(environment.step(Action("ok", None)).result) == "unknown_tool"
    assert code(do(environment, "tool_expedite", order_id="S1")) == "unknown_tool"


# ------------------------------------------------------------------------------------------------ cards

FULL = {
    "expected_success": True,
    "expected_delivery_day": 3,
    "expected_quantity": 4.0,
    "expected_cost": 1.5,
    "expected_storage_after": 9,
    "expected_budget_after": -2.5,
    "confidence": 0.5,
    "uncertain_about": ["a"],
    "based_on": "b",
    "alternatives_considered": [],
    "reasoning": "word " * 200,
}
MODES = ["required", "optional", "required+confidence", "required+uncertainty", "required+full"]


@pytest.mark.parametrize("prediction_format", ["minimal", "structured", "rich"])
@pytest.mark.parametrize("mode", MODES)
def test_a_card_has_the_fields_of_its_format_and_those_its_mode_insists_on(mode: str, prediction_format: str) -> None:
    asked = config(**interface(prediction_mode=mode, prediction_format=prediction_format)).agent.interface
    schema = CardForm(asked, WORLD.expectations).schema()
    extra = {"required+confidence": ["confidence"], "required+uncertainty": ["uncertain_about"]}
    insisted = list(FULL)[6:] if mode == "required+full" else extra.get(mode, [])
    sizes = {"minimal": 2, "structured": 6, "rich": 11}
    assert set(schema["properties"]) == {*list(FULL)[: sizes[prediction_format]], *insisted}
    card = CardForm(asked, WORLD.expectations).validate(FULL)
    assert set(card) == set(schema["properties"])
    jsonschema.validate(card, schema)
    for name in ["expected_success", *insisted]:
        with pytest.raises(InvalidCard, match=name):
            CardForm(asked, WORLD.expectations).validate({**FULL, name: None})
    if "reasoning" in card:
        assert card["reasoning"].split() == ["word"] * 99


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expected_success", 1),
        ("expected_delivery_day", 2.5),
        ("expected_delivery_day", True),
        ("expected_quantity", -1),
        ("expected_cost", "12"),
        ("expected_budget_after", float("nan")),
        ("expected_budget_after", 10**400),
        ("confidence", 1.01),
        ("uncertain_about", [1]),
        ("reasoning", ["a"]),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    validator = CardForm(config(**interface(prediction_format="rich")).agent.interface, WORLD.expectations)
    with pytest.raises(InvalidCard, match=field):
        validator.validate({**FULL, field: value})


def test_a_required_card_is_required_and_an_optional_one_is_not() -> None:
    strict, free = begin(**interface(prediction_mode="required")), begin()
    assert code(do(strict, "tool_check_budget")) == "card_missing"
    assert code(strict.step(call("tool_check_budget", card={"expected_success": "yes"})).result) == "card_invalid"
    assert code(strict.step(call("tool_check_budget", card={"expected_success": True})).result) is None
    assert code(do(free, "tool_check_budget")) is None
    outcome = free.step(call("tool_check_budget", card={"expected_success": "yes"}))
    assert outcome.card is None
    assert "expected_success" in outcome.result["prediction_ignored"]
