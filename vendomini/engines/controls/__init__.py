"""The controls: policies that answer the prompts of a model in the text of a model.

Each is a pure function of the visible conversation and the request's seed.
"""

from vendomini.engines.controls.control import Control
from vendomini.engines.controls.idle import Idle
from vendomini.engines.controls.oracle import Oracle
from vendomini.engines.controls.reactive import Reactive
from vendomini.engines.controls.view import View, fold

CONTROLS: dict[str, type[Control]] = {control.name: control for control in (Oracle, Reactive, Idle)}
"""Name → control, as in ``scripted/<name>``."""

__all__ = ["CONTROLS", "Control", "View", "fold"]
