"""When the Hugging Face engine gathers prompts: against a plain simulation of its loop."""

from __future__ import annotations

import random

import pytest

from vendomini.engines.hf.prefill import PrefillSchedule


def test_nothing_is_gathered_before_anything_is_known() -> None:
    assert PrefillSchedule().feeds(waiting=1, decoding=63)
    assert not PrefillSchedule().feeds(waiting=0, decoding=64)


def test_once_begun_all_that_wait_are_fed() -> None:
    schedule = _schedule(fixed=0.02, step=0.005, length=100)
    assert not schedule.feeds(17, 47)
    assert schedule.feeds(18, 46), "64 * sqrt(2 * 0.02 / (0.005 * 100)) = 18.1"
    assert schedule.feeds(1, 63)
    assert not schedule.feeds(0, 64)
    assert not schedule.feeds(1, 63)
    assert schedule.feeds(1, 0), "nobody is held up"


@pytest.mark.parametrize(("flying", "fixed", "length"), [(64, 4.0, 150), (64, 0.2, 150), (16, 1.0, 50), (8, 8.0, 300)])
def test_the_number_gathered_is_nearly_the_best(flying: int, fixed: float, length: int) -> None:
    rates = {worth: _rate(flying, fixed, length, worth) for worth in range(1, flying + 1)}
    schedule = _schedule(fixed, 1.0, length)
    gathered = next((w for w in range(1, flying) if schedule.feeds(w, flying - w)), flying)
    assert rates[gathered] > 0.95 * max(rates.values())


def test_nothing_is_gathered_where_a_pass_costs_what_its_tokens_cost() -> None:
    """As on a CPU: most of a pass over a prompt is computing it."""
    schedule = _schedule(fixed=0.05, step=0.05, length=150, token=0.003)
    assert schedule.feeds(1, 15)


def test_passes_of_one_size_do_not_tell_what_is_fixed() -> None:
    schedule = PrefillSchedule()
    for _ in range(20):
        schedule.fed(500, 2.0)
        schedule.decoded(0.05)
    schedule.answered(100)
    assert schedule.feeds(1, 15)


def _schedule(fixed: float, step: float, length: int, token: float = 1e-5) -> PrefillSchedule:
    schedule = PrefillSchedule()
    for tokens in (500, 1000, 300, 2000):
        schedule.fed(tokens, fixed + token * tokens)
    schedule.decoded(step)
    schedule.answered(length)
    return schedule


def _rate(flying: int, fixed: float, length: int, worth: int) -> float:
    """Tokens a decode step's time, if ``worth`` prompts are gathered; the first answers end at different times."""
    generator = random.Random(7)
    left = [generator.randint(1, 2 * length) for _ in range(flying)]
    waiting, tokens, clock = 0, 0, 0.0
    while tokens < 400 * length:
        if waiting >= worth or not left:
            clock += fixed
            left += [generator.randint(length // 2, length * 3 // 2) for _ in range(waiting)]
            waiting = 0
        clock += 1
        tokens += len(left)
        left = [n - 1 for n in left if n > 1]
        waiting = flying - len(left)
    return tokens / clock
