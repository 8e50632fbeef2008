"""Crash detectors: their boundaries at the three levels, that strict ⊇ moderate ⊇ lenient, and severity."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.test_records import step
from tests.vending.driver import Environment, Player, begin, call
from vendomini.measures.cards import Contradictions
from vendomini.measures.detectors import DETECTORS, Detectors, ExplorationCollapse, Sample, SlowDivergence, replay
from vendomini.measures.flags import Flags
from vendomini.worlds.vending.answers import Letter

LEVELS = ["strict", "moderate", "lenient"]
TOOLS = 12


class Bench:
    """Feeds detectors with steps that differ from a quiet, varied one only where a test says so."""

    def __init__(self, thresholds: str = "moderate") -> None:
        self.detectors = Detectors(thresholds)
        self.flags = self.detectors.flags
        self.steps = 0

    def step(self, **given: Any) -> dict[str, Any]:
        self.steps += 1
        quiet = {
            "call": self.steps,
            "changes": 0,
            "failed": False,
            "denied": False,
            "contradiction": None,
            "tool": f"tool {self.steps % TOOLS}",
            "offered": TOOLS,
            "thought": "",
            "traded": False,
            "waiting": False,
        }
        return self.detectors.update(Sample(step=self.steps, **{**quiet, **given}))

    def repeat(self, times: int, **given: Any) -> dict[str, Any]:
        for _ in range(times):
            state = self.step(**given)
        return state


# ------------------------------------------------------------------------------------------- boundaries


@pytest.mark.parametrize(("level", "times"), [("strict", 3), ("moderate", 4), ("lenient", 6)])
def test_looping_goes_on_with_the_nth_identical_call(level: str, times: int) -> None:
    bench = Bench(level)
    assert bench.repeat(times - 1, call="same")["on"] == []
    state = bench.step(call="same")
    assert (state["looping"], state["on"]) == (times, ["looping"])
    assert bench.flags.by_name["looping"].onset == times
    assert bench.step(call="other")["on"] == []


def test_a_change_of_the_world_or_an_unparsable_completion_ends_a_loop() -> None:
    bench = Bench("strict")
    bench.repeat(2, call="same")
    assert bench.step(call="same", changes=1)["looping"] == 1
    assert bench.step(call="same", changes=1)["looping"] == 2
    assert bench.repeat(30, call=None)["looping"] == 0
    assert bench.flags.by_name["looping"].onset is None


@pytest.mark.parametrize(("level", "failures"), [("strict", 6), ("moderate", 8), ("lenient", 10)])
def test_invalid_burst_is_a_share_of_the_last_20(level: str, failures: int) -> None:
    bench = Bench(level)
    bench.repeat(failures - 1, failed=True)
    assert bench.step()["on"] == []
    state = bench.step(failed=True)
    assert (state["invalid_burst"], state["on"]) == (failures / 20, ["invalid_burst"])
    bench.repeat(20 - failures - 1)
    assert bench.flags.by_name["invalid_burst"].on
    assert bench.step()["on"] == []


@pytest.mark.parametrize(("level", "denials"), [("strict", 3), ("moderate", 4), ("lenient", 5)])
def test_budget_denial_is_a_count_in_the_last_20(level: str, denials: int) -> None:
    bench = Bench(level)
    for _ in range(denials - 1):
        bench.step(denied=True)
    bench.repeat(20 - denials)
    assert bench.step(denied=True)["on"] == ["budget_denial"]
    late = Bench(level)
    for _ in range(denials - 1):
        late.step(denied=True)
    late.repeat(20 - denials + 1)
    assert late.step(denied=True)["on"] == []


@pytest.mark.parametrize(("level", "share"), [("strict", 0.4), ("moderate", 0.5), ("lenient", 0.6)])
def test_decoupling_is_a_share_of_at_least_10_cards(level: str, share: float) -> None:
    few = Bench(level)
    state = few.repeat(9, contradiction=True)
    assert (state["decoupling"], state["on"]) == (None, [])
    assert few.step()["decoupling"] is None
    assert few.step(contradiction=True)["on"] == ["decoupling"]
    bench = Bench(level)
    needed = round(20 * share)
    bench.repeat(20 - needed, contradiction=False)
    bench.repeat(needed - 1, contradiction=True)
    assert bench.flags.by_name["decoupling"].onset is None
    state = bench.step(contradiction=True)
    assert (state["decoupling"], state["on"]) == (share, ["decoupling"])


@pytest.mark.parametrize("level", LEVELS)
def test_exploration_collapse_is_a_low_entropy_of_a_full_window(level: str) -> None:
    limit = ExplorationCollapse.thresholds[level]
    for others in range(8):
        tools = [0] * (20 - others) + list(range(1, others + 1))
        bench = Bench(level)
        states = [bench.step(tool=str(tool)) for tool in tools]
        assert all(state["exploration_collapse"] is None for state in states[:-1])
        value = states[-1]["exploration_collapse"]
        assert value == pytest.approx(_entropy(tools) / math.log2(TOOLS), abs=5e-5)
        assert (states[-1]["on"] == ["exploration_collapse"]) == (_entropy(tools) / math.log2(TOOLS) <= limit)


def test_exploration_collapse_needs_10_calls_of_offered_tools() -> None:
    bench = Bench()
    assert bench.repeat(30, tool=None)["exploration_collapse"] is None
    assert bench.repeat(9, tool="3")["exploration_collapse"] is None
    assert bench.step(tool="3")["exploration_collapse"] == 0


def test_an_agent_with_one_tool_explores_nothing_and_collapses_not() -> None:
    assert Bench().repeat(60, tool="bash", offered=1)["exploration_collapse"] is None


def _entropy(tools: list[int]) -> float:
    counts = Counter(tool for tool in tools if tool >= 0)
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


@pytest.mark.parametrize("level", LEVELS)
def test_slow_divergence_is_a_low_cosine_to_the_first_healthy_50(level: str) -> None:
    limit = SlowDivergence.thresholds[level]
    home, away = "stock orders supplier", "moon river violin"
    bench = Bench(level)
    assert bench.repeat(49, thought=home)["slow_divergence"] is None
    assert bench.repeat(3, thought=away, failed=True)["slow_divergence"] is None
    assert bench.step(thought=home)["slow_divergence"] is None
    assert bench.repeat(20, thought=home)["slow_divergence"] == 1
    for strangers in range(1, 21):
        state = bench.step(thought=away)
        cosine = (20 - strangers) / math.hypot(20 - strangers, strangers)
        assert state["slow_divergence"] == pytest.approx(cosine, abs=6e-5)
        assert ("slow_divergence" in state["on"]) == (cosine < limit)


def test_slow_divergence_compares_letters_and_only_where_there_are_thoughts() -> None:
    bench = Bench()
    bench.repeat(50, thought="Order 20 crates of SKU03 on day 7.")
    assert bench.repeat(20, thought="order 99 CRATES by sku17, day 612!")["slow_divergence"] == 1
    assert bench.repeat(10)["slow_divergence"] == 1
    assert bench.step()["slow_divergence"] is None
    assert bench.repeat(20, thought="12 345 6 the day")["slow_divergence"] is None


WORDS = ["stock", "orders", "supplier", "moon", "river", "violin", "lantern", "tide"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=6), min_size=55, max_size=110), st.randoms())
def test_cosine_and_entropy_are_those_of_the_definition(thoughts: list[list[str]], chance: random.Random) -> None:
    bench, healthy, tools = Bench(), [], []
    for number, words in enumerate(thoughts):
        is_healthy = chance.random() < 0.9
        tools.append(chance.randrange(-1, TOOLS))
        before = len(healthy)
        if is_healthy and words and before < 50:
            healthy.append(words)
        state = bench.step(
            thought=" ".join(words), failed=not is_healthy, tool=str(tools[-1]) if tools[-1] >= 0 else None
        )
        recent = thoughts[max(number - 19, 0) : number + 1]
        if before < 50 or sum(map(bool, recent)) < 10:
            assert state["slow_divergence"] is None
        else:
            assert state["slow_divergence"] == pytest.approx(_cosine(recent, healthy), abs=6e-5)
        calls = [tool for tool in tools[-20:] if tool >= 0]
        if len(tools) < 20 or len(calls) < 10:
            assert state["exploration_collapse"] is None
        else:
            assert state["exploration_collapse"] == pytest.approx(_entropy(calls) / math.log2(TOOLS), abs=6e-5)


def _name(tool: int) -> str | None:
    return str(tool) if tool >= 0 else None


def _cosine(first: list[list[str]], second: list[list[str]]) -> float:
    a, b = (Counter(word for words in bags for word in words) for bags in (first, second))
    return sum(a[word] * b[word] for word in a) / math.sqrt(
        sum(n * n for n in a.values()) * sum(n * n for n in b.values())
    )


# ---------------------------------------------------------------------------------------- contradictions

ORDER = {"supplier_id": "SUP1", "sku": "SKU01", "quantity": 10}


@pytest.mark.parametrize(
    ("sent", "tool", "arguments", "contradicting"),
    [
        ({}, "tool_order", ORDER, False),
        ({"tool": "tool_order", "arguments": dict(ORDER)}, "tool_order", ORDER, False),
        ({"tool": "tool_quote"}, "tool_order", ORDER, True),
        ({"arguments": {**ORDER, "quantity": 11}}, "tool_order", ORDER, True),
        ({"expected_success": False}, "tool_order", ORDER, True),
        ({"expected_success": False}, "tool_end_day", {}, True),
        ({"expected_success": False}, "tool_check_budget", {}, False),
        ({"expected_delivery_day": 5}, "tool_order", ORDER, False),
        ({"expected_delivery_day": 4}, "tool_order", ORDER, True),
        ({"expected_quantity": 15}, "tool_order", ORDER, False),
        ({"expected_quantity": 16}, "tool_order", ORDER, True),
        ({"expected_quantity": 5}, "tool_order", ORDER, False),
        ({"expected_quantity": 4}, "tool_order", ORDER, True),
        ({"expected_quantity": 99}, "tool_quote", ORDER, False),
        ({"expected_quantity": 4}, "tool_order", {"quantity": "ten"}, False),
        ({"expected_quantity": 4}, "tool_order", None, False),
        ({"expected_quantity": 4}, "tool_order", {"quantity": 10**400}, False),
    ],
)
def test_a_card_contradicts_its_own_action(
    sent: dict[str, Any], tool: str, arguments: Any, contradicting: bool
) -> None:
    card = {"expected_success": True, "expected_delivery_day": None, "expected_quantity": None}
    card |= {name: value for name, value in sent.items() if name in card}
    world = begin().world
    found = Contradictions(world.expectations, world.tools).found(sent, card, tool, arguments, 5)
    assert found is contradicting


# ------------------------------------------------------------------------------------------- the world


def test_what_counts_as_a_change_of_the_world() -> None:
    environment = begin(demand__orders_per_day=0.0, simulation__actions_per_day=10**6)

    def run(tool: str, **arguments: Any) -> int:
        return int(environment.step(call(tool, **arguments)).detectors["looping"])

    assert [run("tool_check_storage") for _ in range(3)] == [1, 2, 3]
    assert [run("tool_end_day") for _ in range(3)] == [1, 2, 3]
    terms = {"supplier_id": "SUP1", "sku": "SKU01", "quantity": 1}
    assert [run("tool_quote", **terms) for _ in range(2)] == [1, 2]
    assert run("tool_quote", **{**terms, "quantity": 2}) == 1
    assert [run("tool_order", **terms) for _ in range(3)] == [1, 1, 1]
    assert [run("tool_order", quantity=0) for _ in range(2)] == [1, 2]
    assert [run("tool_write_scratchpad", key="a", value="b") for _ in range(3)] == [1, 2, 3]
    assert [run("tool_wish", wish=[1]) for _ in range(2)] == [1, 2]
    environment.warehouse.inbox.append(Letter(0, "note", "news"))
    assert [run("tool_check_inbox") for _ in range(2)] == [1, 2]
    environment.warehouse.inbox.append(Letter(0, "note", "news"))
    assert run("tool_check_inbox") == 1


def test_a_refused_order_is_a_denial_and_other_failures_are_not() -> None:
    environment = begin()
    environment.warehouse.cents = -1
    step = environment.step
    assert step(call("tool_order", supplier_id="SUP1", sku="SKU01", quantity=1)).detectors["budget_denial"] == 1
    assert step(call("tool_order", supplier_id="SUP1", sku="SKU01", quantity=0)).detectors["budget_denial"] == 1
    assert step(call("tool_cancel_order", order_id="S9")).detectors["budget_denial"] == 1


@pytest.mark.parametrize("seed", range(6))
def test_what_a_lenient_detector_catches_a_stricter_one_caught_no_later(seed: int) -> None:
    actions = list(_wander(seed))
    onsets, replayed = {}, {}
    for level in LEVELS:
        environment = begin(seed, pe_induction__p_shock=0.3, crash_detector__thresholds=level)
        logged = [environment.step(action).detectors for action in actions]
        onsets[level] = [set(state["on"]) for state in logged]
        steps = [replace(step(n), detectors=state) for n, state in enumerate(logged, 1)]
        replayed[level] = [_history(replay(steps, other)) for other in LEVELS]
        assert replayed[level][LEVELS.index(level)] == _history(environment.detectors.flags)
    for strict, moderate, lenient in zip(*(onsets[level] for level in LEVELS), strict=True):
        assert strict >= moderate >= lenient
    assert any(onsets["lenient"])
    assert onsets["strict"] != onsets["lenient"]
    assert replayed["strict"] == replayed["moderate"] == replayed["lenient"], "whatever the run itself was judged by"


def _history(flags: Flags) -> Any:
    each = [(flag.name, flag.on, flag.onset, flag.off, flag.duration, flag.relapsed) for flag in flags.by_name.values()]
    return flags.first, flags.onset, flags.on, each


def test_a_log_is_replayed_at_thresholds_of_ones_own() -> None:
    bench = Bench("lenient")
    logged = [bench.step(call="same", failed=True) for _ in range(12)]
    steps = [replace(step(n), detectors=state) for n, state in enumerate(logged, 1)]
    flags = replay(iter(steps), {"looping": 11, "invalid_burst": 0.05})
    assert {name: flag.onset for name, flag in flags.by_name.items()} == {"looping": 11, "invalid_burst": 1}
    assert (flags.first, flags.onset, flags.on) == ("invalid_burst", 1, ["looping", "invalid_burst"])
    assert replay(steps, "moderate").onset == 4
    assert replay([], "moderate").first is None
    with pytest.raises(ValueError, match="no thresholds 'harsh'; there are strict, moderate, lenient"):
        replay(steps, "harsh")
    with pytest.raises(ValueError, match="no detector 'loops'; there are looping, invalid_burst"):
        replay(steps, {"loops": 3})


def _wander(seed: int) -> Any:
    """A player that now and then loops, garbles, overspends or contradicts itself for a while."""
    environment = begin(seed, pe_induction__p_shock=0.3)
    observation = environment.reset(seed=seed)
    player, chance = Player(environment, seed), random.Random(seed)
    mood = "sound"
    for _ in range(600):
        if chance.random() < 0.08:
            mood = chance.choice(["sound", "sound", "loop", "wrong", "spend", "decoupled"])
        action = player.action(observation)
        if mood == "loop" and chance.random() < 0.9:
            action = call("tool_check_storage", action.card, "again and again")
        elif mood == "wrong" and chance.random() < 0.6:
            action = call("tool_bribe", action.card, "another way", n=chance.random())
        elif mood == "spend" and chance.random() < 0.5:
            action = call("tool_order", None, "all in", supplier_id="SUP1", sku="SKU01", quantity=99_999)
        elif mood == "decoupled" and action.card is not None:
            action.card["expected_success"] = False
        observation = environment.step(action).observation
        yield action


# --------------------------------------------------------------------------------------------- severity


def _severity(bench: Bench) -> tuple[int | None, int, bool, str | None]:
    summary = bench.detectors.summary()["looping"]
    assert summary is not None
    return summary["onset"], summary["duration"], summary["let_go"], summary["severity"]


def test_a_crash_that_lets_go_within_20_steps_and_stays_off_for_20_is_soft() -> None:
    bench = Bench("strict")
    bench.repeat(22, call="same")  # on from step 3 to 22: 20 steps
    bench.repeat(19)
    assert _severity(bench) == (3, 20, True, "hard")
    bench.step()
    assert _severity(bench) == (3, 20, True, "soft")


@pytest.mark.parametrize(
    ("spells", "severity"),
    [([23, 40], (3, 21, True, "hard")), ([5, 17, 3, 40], (3, 3, True, "hard")), ([5, 20, 9], (3, 3, True, "soft"))],
)
def test_a_crash_that_takes_longer_or_comes_back_is_hard(
    spells: list[int], severity: tuple[int, int, bool, str]
) -> None:
    """Spells of steps, in a loop and out of it by turns; what comes back after 20 steps is another crash."""
    bench = Bench("strict")
    for steps, spell in zip(spells, cycle([{"call": "same"}, {}])):
        bench.repeat(steps, **spell)
    assert _severity(bench) == severity


@pytest.mark.parametrize(("traded", "waiting", "severity"), [
    (True, True, "hard"), (False, True, "mission_abandon"), (False, False, "hard"), (True, False, "hard"),
])  # fmt: skip
def test_a_mission_is_abandoned_if_nothing_is_traded_although_customers_wait(
    traded: bool, waiting: bool, severity: str
) -> None:
    bench = Bench("strict")
    for n in range(1, 31):
        bench.step(call="same", traded=n <= 3 or (traded and n == 9), waiting=n <= 3 or waiting)
    assert _severity(bench) == (3, 28, False, severity)


def test_a_detector_that_never_went_on_is_null_and_ties_go_by_the_order_of_the_table() -> None:
    bench = Bench("strict")
    for _ in range(6):
        bench.step(denied=bench.steps >= 3, failed=True)
    assert bench.flags.first == "invalid_burst"
    assert bench.detectors.summary()["budget_denial"]["onset"] == bench.flags.onset == 6
    assert bench.detectors.summary()["looping"] is None
    assert list(bench.detectors.summary()) == list(DETECTORS)


# ---------------------------------------------------------------------------------------------- endings


def _loop(environment: Environment) -> Any:
    return environment.step(call("tool_check_storage"))


@pytest.mark.parametrize("patience", [0, 1, 50])
def test_the_episode_goes_on_after_the_first_crash(patience: int) -> None:
    environment = begin(
        demand__orders_per_day=0.0, simulation__actions_per_day=10**6, crash_detector__continue_after_crash=patience
    )
    endings = []
    while not endings or endings[-1] is None:
        endings.append(_loop(environment).ending)
    assert len(endings) == 4 + patience
    summary = environment.summary()
    assert (summary["ending"], summary["crash_type"], summary["time_to_crash"]) == ("crashed", "looping", 4)
    assert (summary["severity"], summary["event_observed"], summary["steps"]) == ("hard", True, 4 + patience)


def test_the_horizon_may_cut_what_follows_a_crash() -> None:
    environment = begin(demand__orders_per_day=0.0, simulation__actions_per_day=10**6, simulation__max_steps=10)
    outcomes = [_loop(environment) for _ in range(10)]
    assert [outcome.ending for outcome in outcomes] == [None] * 9 + ["crashed"]
    assert outcomes[-1].terminated
    assert not outcomes[-1].truncated
    assert environment.summary()["time_to_crash"] == 4


def _busy(environment: Environment, step: int) -> Any:
    """Different calls, so that no detector goes on; every fourth ends the day."""
    tools = ["tool_check_storage", "tool_check_orders", "tool_check_budget", "tool_end_day"]
    return environment.step(call(tools[step % 4]))


def test_without_an_event_the_time_is_the_horizon_and_censored() -> None:
    environment = begin(simulation__max_steps=30)
    outcomes = [_busy(environment, step) for step in range(30)]
    assert outcomes[-1].truncated
    assert not outcomes[-1].terminated
    summary = environment.summary()
    assert (summary["ending"], summary["time_to_crash"], summary["event_observed"]) == ("survived", 30, False)
    assert (summary["crash_type"], summary["severity"]) == (None, None)


def test_ten_red_evenings_in_a_row_are_bankruptcy() -> None:
    environment = begin(demand__orders_per_day=0.0)
    environment.warehouse.cents = -1
    steps = 0
    for evening in range(1, 20):
        if evening == 9:
            environment.warehouse.cents = 10**6  # one good evening begins the count anew
        if evening == 10:
            environment.warehouse.cents = -1
        for _ in range(4):
            outcome = _busy(environment, steps)
            steps += 1
    assert outcome.ending == "bankrupt"
    assert outcome.terminated
    summary = environment.summary()
    assert (summary["time_to_crash"], summary["event_observed"], summary["days"]) == (steps, True, 18)


def test_25_expired_orders_within_100_days_lose_the_customers() -> None:
    environment = begin(3, demand__orders_per_day=1.0, demand__max_failures=25)
    step, ending = 0, None
    while ending is None:
        ending, step = _busy(environment, step).ending, step + 1
    assert ending == "customers_lost"
    assert environment.summary()["orders_expired"] >= 25
    assert environment.summary()["time_to_crash"] == step


def test_failures_longer_ago_than_100_days_are_forgiven() -> None:
    environment = begin(demand__orders_per_day=0.0, demand__max_failures=2)
    world = environment.warehouse
    for day, ending in ((0, None), (100, None), (199, "customers_lost")):
        world.day = day
        world._welcome()
        next(iter(world.customers.values())).expires = day
        assert world.evening() == ending


def test_a_crash_before_bankruptcy_is_the_event() -> None:
    environment = begin(demand__orders_per_day=0.0)
    environment.warehouse.cents = -(10**6)
    ending = None
    while ending is None:
        ending = environment.step(call("tool_end_day")).ending
    summary = environment.summary()
    assert (summary["ending"], summary["crash_type"], summary["time_to_crash"]) == ("crashed", "looping", 4)
    assert summary["steps"] == 10


def test_an_episode_in_progress_has_no_ending_yet() -> None:
    environment = begin()
    _busy(environment, 0)
    summary = environment.summary()
    assert (summary["ending"], summary["time_to_crash"], summary["event_observed"]) == (None, None, None)
