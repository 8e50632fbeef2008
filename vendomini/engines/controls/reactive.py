"""The plain one: buys from whom it happens to know, and learns terms as it goes."""

from __future__ import annotations

from vendomini.engines.controls import clerk
from vendomini.engines.controls.control import Control
from vendomini.engines.controls.transcript import Call
from vendomini.engines.controls.view import TermsBook, View


class Reactive(Control):
    """Asks one supplier and stays with it; what it was charged and when goods came is what it expects next time."""

    name = "reactive"

    def decide(self, view: View, seed: int) -> Call:  # noqa: ARG002 - chance is for those who derail
        return clerk.next_call(view, self.book(view), shop_around=False)

    def book(self, view: View) -> TermsBook:
        return view.learned
