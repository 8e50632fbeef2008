"""The synthetic agent: broken promises raise its hazard, and nothing else does."""

from __future__ import annotations

from itertools import pairwise

from tests.controls.conversation import config, talk
from vendomini.worlds.vending.controls.fragile import RECOVERY


def _derailed_steps(p_shock: float, seed: int) -> list[bool]:
    run = config(pe_induction__p_shock=p_shock, pe_induction__pe_mag="high", crash_detector__continue_after_crash=999)
    return ["Nothing goes as promised" in turn.action.thought for turn in talk("fragile", run, seed)]


def test_it_derails_more_often_the_more_promises_are_broken() -> None:
    calm, stormy = (sum(any(_derailed_steps(p, seed)) for seed in range(20)) for p in (0.0, 0.6))
    assert calm <= 6
    assert stormy >= 13


def test_it_gets_over_it_at_the_rate_it_says() -> None:
    ends = stays = 0
    for seed in range(20):
        steps = _derailed_steps(0.6, seed)
        for before, now in pairwise(steps):
            ends += before and not now
            stays += before and now
    assert ends + stays > 500
    assert abs(ends / (ends + stays) - RECOVERY) < 0.015
