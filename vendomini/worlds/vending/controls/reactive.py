"""The plain control: buys from the suppliers it happens to know, and learns their terms as it goes."""

from __future__ import annotations

from vendomini.worlds.vending.controls.clerk import Clerk
from vendomini.worlds.vending.controls.control import Control
from vendomini.worlds.vending.controls.notebook import TermsBook
from vendomini.worlds.vending.controls.transcript import Call
from vendomini.worlds.vending.controls.view import View

_CLERK = Clerk(good_price=1.0, enough_quotes=2)


class Reactive(Control):
    """Asks few suppliers, and expects next time what it was charged and how long it took this time."""

    name = "reactive"

    def decide(self, view: View, seed: int) -> Call:  # noqa: ARG002 - only controls that derail use chance
        return _CLERK.next_call(view, self.book(view))

    def book(self, view: View) -> TermsBook:
        return view.learned
