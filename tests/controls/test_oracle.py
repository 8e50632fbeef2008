"""The oracle and its clerk: exact, thrifty, and honest about what it forgot."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.controls.conversation import config, talk
from vendomini.worlds.vending.controls.notebook import Terms, cheapest, from_text, has_news, to_text


@pytest.mark.parametrize("level", range(5))
def test_every_prediction_comes_true_and_every_call_succeeds(level: int) -> None:
    tools: Counter[str] = Counter()
    resolved: Counter[str] = Counter()
    for turn in talk("oracle", config(simulation__complexity_level=level), seed=7):
        assert turn.outcome.result["ok"], (turn.action, turn.outcome.result)
        assert all(claim["pe"] == 0 for claim in turn.outcome.resolved)
        resolved.update(claim["type"] for claim in turn.outcome.resolved)
        tools[turn.action.tool or ""] += 1
    assert turn.outcome.ending == "survived"
    assert min(resolved[kind] for kind in ("temporal", "quantity", "cost", "causal")) > 20
    assert tools["tool_ship_customer_order"] > 80


@pytest.mark.parametrize("level", [1, 4])
def test_nothing_is_sent_back_for_want_of_space(level: int) -> None:
    deliveries = []
    for turn in talk("oracle", config(simulation__complexity_level=level), seed=3):
        deliveries += [m for m in turn.outcome.result.get("messages", ()) if m["kind"] == "delivery"]
    assert len(deliveries) > 20
    assert not any("sent_back" in delivery for delivery in deliveries)


def test_late_customers_pay_what_the_rules_say() -> None:
    run = config(demand__late_penalty=0.25, simulation__complexity_level=4)
    late = 0
    for turn in talk("oracle", run, seed=1):
        late += bool(turn.outcome.result.get("late"))
        assert all(claim["pe"] == 0 for claim in turn.outcome.resolved)
    assert late > 3


def test_without_a_scratchpad_it_does_without() -> None:
    turns = list(talk("oracle", config(agent__interface__memory_tools="none"), seed=2))
    assert turns[-1].outcome.ending == "survived"
    assert all(turn.outcome.result["ok"] for turn in turns)


def test_it_survives_shocks_of_every_dose() -> None:
    run = config(pe_induction__p_shock=1.0, pe_induction__pe_mag="high", simulation__complexity_level=1)
    assert [turn.outcome.ending for turn in talk("oracle", run, seed=5)][-1] == "survived"


def test_notes_survive_being_written_and_read() -> None:
    book = {
        "SKU01": {"SUP1": Terms(12.5, 3, 0), "SUP2": Terms(9.99, 5, 4)},
        "SKU02": {"SUP3": Terms(40.0, 1, 2)},
        "SKU03": {},
    }
    notes = cheapest(book)
    assert notes == {"SKU01": ("SUP2", Terms(9.99, 5, 4)), "SKU02": ("SUP3", Terms(40.0, 1, 2))}
    assert from_text(to_text(notes)) == notes
    assert from_text("call the supplier; " + to_text(notes)) == notes
    assert not has_news(book, notes, 1)
    assert has_news(book, {"SKU02": ("SUP3", Terms(40.0, 1, 0))}, 1)
    assert not has_news(book, {"SKU02": ("SUP3", Terms(40.0, 1, 0))}, 2)
    assert not has_news(book, {}, 4)
