"""A synthetic agent that prediction errors derail: the effect that the experiment looks for, built in.

It shows what a dose–response looks like and tests the path from log to hazard ratio. It says nothing about any model.
"""

from __future__ import annotations

from vendomini.worlds.vending.controls.chance import mixed, uniform
from vendomini.worlds.vending.controls.derailed import Collapsed, Derailing, Invalid, Looper, Spender
from vendomini.worlds.vending.controls.reactive import Reactive
from vendomini.worlds.vending.controls.view import View

BASE_HAZARD = 0.0002
"""Probability of derailing at one step without any prediction error."""
HAZARD_SLOPE = 0.008
"""Added to it when every delivery in sight was a surprise."""
RECOVERY = 0.02
"""Chance of getting over it, at each step."""

_WAYS: tuple[Derailing, ...] = (Looper(), Invalid(), Spender(), Collapsed())
_SIGNS = tuple(f"Nothing goes as promised ({way.caught_by})." for way in _WAYS)
"""How each way of derailing begins its thoughts; the agent has no other memory of having derailed."""


class Fragile(Reactive):
    """Reactive until it derails, with a hazard that grows with the surprises in sight. Synthetic."""

    name = "fragile"

    def reply(self, view: View, seed: int) -> str:
        way = _way(view, seed)
        if way is None:
            return super().reply(view, seed)
        return _WAYS[way].derailed(view, seed).replace('{"thought":"', f'{{"thought":"{_SIGNS[way]} ', 1)


def _way(view: View, seed: int) -> int | None:
    """The way in which it is derailed at this step; None while it is not."""
    chance = uniform(seed, 11)
    for way, sign in enumerate(_SIGNS):
        if view.last_text.startswith(f'{{"thought":"{sign}'):
            return way if chance >= RECOVERY else None
    hazard = BASE_HAZARD + HAZARD_SLOPE * view.surprise
    return mixed(seed, 12) % len(_WAYS) if chance < hazard else None
