"""Cost and memory stay with what is open, however long an episode."""

from __future__ import annotations

import tracemalloc

import msgspec

from tests.vending.driver import Environment, Player, begin, interface


def _advance(environment: Environment, player: Player, steps: int) -> None:
    observation = msgspec.to_builtins(environment.world._observe())
    for _ in range(steps):
        observation = environment.step(player.action(observation)).observation


def test_memory_does_not_grow_with_the_episode() -> None:
    environment = begin(
        simulation__complexity_level=2,
        simulation__initial_budget=1e9,
        pe_induction__p_shock=0.5,
        pe_induction__observability="delayed",
        measurement__pe_windows=[10, 100],
        **interface(memory_tools="full", recovery_tools="all"),
    )
    player = Player(environment, 0)
    _advance(environment, player, 3_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _advance(environment, player, 6_000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert environment.warehouse.orders_total > 1_000
    assert grown < 200_000


def test_a_step_does_as_much_late_in_an_episode_as_early() -> None:
    """Counted in calls of functions, which a busy machine doesn't change."""
    import sys

    environment = begin(simulation__initial_budget=1e9, pe_induction__p_shock=0.3)
    player = Player(environment, 0)
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    per_stretch = []
    _advance(environment, player, 500)
    for _ in range(3):
        calls = 0
        sys.setprofile(count)
        _advance(environment, player, 2_000)
        sys.setprofile(None)
        per_stretch.append(calls)
    assert max(per_stretch) < 1.1 * min(per_stretch)
