"""The upper bound: exact predictions from advertised terms, and good stocking."""

from __future__ import annotations

from vendomini.worlds.vending.controls.clerk import Clerk
from vendomini.worlds.vending.controls.control import Control
from vendomini.worlds.vending.controls.transcript import Call
from vendomini.worlds.vending.controls.view import View

_CLERK = Clerk(good_price=0.85, enough_quotes=3, fresh_days=12)


class Oracle(Control):
    """Asks for quotes before it buys, reads its mail, and expects what was advertised. Where suppliers keep their word,
    all its predictions come true to the cent and the day."""

    name = "oracle"

    def decide(self, view: View, seed: int) -> Call:  # noqa: ARG002 - it leaves nothing to chance
        return _CLERK.next_call(view, self.book(view))
