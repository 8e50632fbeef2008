"""The upper bound: exact predictions from advertised terms, and good stocking."""

from __future__ import annotations

from vendomini.engines.controls import clerk
from vendomini.engines.controls.control import Control
from vendomini.engines.controls.transcript import Call
from vendomini.engines.controls.view import View


class Oracle(Control):
    """Asks for quotes before it buys, reads its mail, and expects what was advertised. Where suppliers keep their
    word all its predictions come true to the cent and the day."""

    name = "oracle"

    def decide(self, view: View, seed: int) -> Call:  # noqa: ARG002 - it leaves nothing to chance
        return clerk.next_call(view, self.book(view), shop_around=True)
