"""Replies that were cut off are no behaviour: they end an episode of their own kind, and trip no detector."""

from __future__ import annotations

import pytest

from tests.vending.driver import Environment
from vendomini.worlds.protocol import Action
from vendomini.worlds.vending.config import VendingConfig

CUT = Action("cut_off", error="cut", reason="cut_off")
DAY = Action("ok", "tool_end_day", {})


def episode(*, thresholds: str = "moderate", steps: int = 60) -> Environment:
    data = {
        "simulation": {"max_steps": steps},
        "agent": {"interface": {"prediction_mode": "optional"}},
        "crash_detector": {"thresholds": thresholds},
    }
    environment = Environment(VendingConfig.model_validate(data))
    environment.reset(seed=1)
    return environment


@pytest.mark.parametrize(("thresholds", "last"), [("strict", 6), ("moderate", 8), ("lenient", 10)])
def test_so_many_as_would_be_an_invalid_burst_end_the_episode_censored(thresholds: str, last: int) -> None:
    environment = episode(thresholds=thresholds)
    for step in range(1, last + 1):
        outcome = environment.step(CUT)
        assert outcome.ending == ("cut_off" if step == last else None)
        assert outcome.result["error"]["code"] == "cut_off"
        assert outcome.detectors["invalid_burst"] == 0
        assert outcome.detectors["on"] == []
    assert (outcome.truncated, outcome.terminated) == (True, False)
    summary = environment.summary()
    ending = {key: summary[key] for key in ("ending", "event_observed", "time_to_crash", "crash_type", "steps")}
    assert ending == {
        "ending": "cut_off", "event_observed": False, "time_to_crash": last, "crash_type": None, "steps": last
    }  # fmt: skip
    assert summary["parse"] == {"ok": 0, "repaired": 0, "unparsable": 0, "cut_off": last}


def test_a_few_among_good_calls_end_nothing() -> None:
    environment = episode(steps=60)
    for step in range(60):
        outcome = environment.step(CUT if step % 4 == 0 else DAY)
    assert outcome.ending in {"survived", "crashed", "customers_lost"}
    assert environment.summary()["parse"]["cut_off"] == 15


def test_an_event_that_was_seen_before_stays_the_event() -> None:
    environment = episode(steps=200)
    for _ in range(8):
        outcome = environment.step(Action("unparsable", error="no"))
    assert outcome.detectors["on"] == ["invalid_burst"]
    while outcome.ending is None:
        outcome = environment.step(CUT)
    assert outcome.ending == "crashed"
    assert environment.summary()["time_to_crash"] == 8
