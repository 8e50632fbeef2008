"""The controls: policies that answer the prompts of a model in the text of a model.

Each is a pure function of the visible conversation and the request's seed. A class in this folder that derives from
:class:`Control` and has a ``name`` is one; there is no list to add it to.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from vendomini.worlds.vending.controls.control import Control
from vendomini.worlds.vending.controls.derailed import Derailing
from vendomini.worlds.vending.controls.view import View, fold

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def _below(kind: Any) -> Iterator[type[Control]]:
    for derived in kind.__subclasses__():
        if "name" in vars(derived):
            yield derived
        yield from _below(derived)


CONTROLS = {control.name: control for control in sorted(_below(Control), key=lambda control: control.name)}
"""Name → control, as in ``scripted/<name>``."""

POSITIVE = tuple(control for control in CONTROLS.values() if issubclass(control, Derailing))
"""Controls that break down in one way, for one detector to catch."""

__all__ = ["CONTROLS", "POSITIVE", "Control", "View", "fold"]
