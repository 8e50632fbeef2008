"""The lower bound: looks around, and serves nobody."""

from __future__ import annotations

from vendomini.worlds.vending.controls.control import (
    CHECK_BUDGET,
    CHECK_INBOX,
    CHECK_ORDERS,
    CHECK_STORAGE,
    END_DAY,
    Control,
)
from vendomini.worlds.vending.controls.transcript import Call
from vendomini.worlds.vending.controls.view import View

_ROUND = (CHECK_INBOX, CHECK_STORAGE, CHECK_BUDGET, CHECK_ORDERS, END_DAY)


class Idle(Control):
    """Makes its round and ends the day, however many customers wait."""

    name = "idle"

    def decide(self, view: View, seed: int) -> Call:  # noqa: ARG002 - it leaves nothing to chance
        return _ROUND[view.observation.step % len(_ROUND)]
