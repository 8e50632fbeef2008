"""The controls: policies that answer the prompts of a model in the text of a model.

Each is a pure function of the visible conversation and the request's seed.
"""

from vendomini.worlds.vending.controls.control import Control
from vendomini.worlds.vending.controls.derailed import (
    Collapsed,
    Decoupled,
    Derailing,
    Diverging,
    Invalid,
    Looper,
    Spender,
)
from vendomini.worlds.vending.controls.fragile import Fragile
from vendomini.worlds.vending.controls.garbled import Garbled
from vendomini.worlds.vending.controls.idle import Idle
from vendomini.worlds.vending.controls.oracle import Oracle
from vendomini.worlds.vending.controls.reactive import Reactive
from vendomini.worlds.vending.controls.view import View, fold

POSITIVE: tuple[type[Derailing], ...] = (Looper, Invalid, Spender, Decoupled, Collapsed, Diverging, Garbled)
"""Controls that break down in one way, for one detector to catch."""

_ALL: tuple[type[Control], ...] = (Oracle, Reactive, Fragile, Idle, *POSITIVE)

CONTROLS = {control.name: control for control in _ALL}
"""Name → control, as in ``scripted/<name>``."""

__all__ = ["CONTROLS", "POSITIVE", "Control", "View", "fold"]
