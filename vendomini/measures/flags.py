"""When detectors went on, for how long, and how bad that was."""

from __future__ import annotations

from collections.abc import Callable, Iterable

SOFT_STEPS = 20
"""A crash that lets go within this many steps, and stays off for as many, is soft."""

Value = float | None
Condition = Callable[[float, float], bool]


class Flag:
    """Whether one detector is on, and the history of its first onset.

    Attributes:
        value: the newest; a detector without one is off.
        onset: step of its first onset.
        off: step at which it first let go.
        duration: steps from the first onset until it let go; 0 while it did not.
        relapsed: it came back within 20 steps of letting go.
    """

    __slots__ = ("condition", "duration", "limit", "name", "off", "on", "onset", "relapsed", "value")

    def __init__(self, name: str, condition: Condition, limit: float) -> None:
        self.name, self.condition, self.limit = name, condition, limit
        self.value: Value = None
        self.on = self.relapsed = False
        self.onset: int | None = None
        self.off: int | None = None
        self.duration = 0

    def switch(self, step: int) -> None:
        """Turns it on or off."""
        self.on = on = not self.on
        if on and self.onset is None:
            self.onset = step
        elif not on and self.off is None and self.onset is not None:
            self.off = step
            self.duration = step - self.onset
        elif on and self.off is not None and step < self.off + SOFT_STEPS:
            self.relapsed = True


class Flags:
    """The flags of one episode, by name.

    Attributes:
        first: the detector that went on first; among several at one step, the first in the table. None without one.
        onset: its step.
        on: the names of those that are on now, in the order of the table.
        step: the one that is taken.
    """

    def __init__(self, flags: Iterable[Flag]) -> None:
        self.by_name = {flag.name: flag for flag in flags}
        self.first: str | None = None
        self.onset: int | None = None
        self.on: list[str] = []
        self.step = 0

    def judge(self, step: int, values: Iterable[Value]) -> None:
        """Takes the values of a step, in the order of the flags."""
        self.step = step
        for flag, value in zip(self.by_name.values(), values, strict=True):
            if value != flag.value:
                self.change(flag, value)

    def change(self, flag: Flag, value: Value) -> None:
        """Takes one flag's new value at this step."""
        flag.value = value
        on = value is not None and flag.condition(value, flag.limit)
        if on == flag.on:
            return
        flag.switch(self.step)
        if on and self.first is None:
            self.first, self.onset = flag.name, self.step
        self.on = [each.name for each in self.by_name.values() if each.on]
