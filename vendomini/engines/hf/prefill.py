"""When to stop decoding for a pass over new prompts."""

from __future__ import annotations

import math

STEADY = 0.95
"""Weight of the past in a running mean."""


class PrefillSchedule:
    """Prompts that come in while others are decoded are gathered, where a pass over a few costs little more than one
    over one.

    A prompt that waits leaves its share of each decode step unused, and each pass over prompts holds up everybody for
    ``fixed`` seconds, however few tokens it has. With ``n`` conversations in flight, answers of ``length`` tokens and
    ``step`` seconds a decode step, ``n / length`` prompts arrive in each; so it costs least, for each prompt, to gather
    ``w = n * sqrt(2 * fixed / (step * length))`` of them: the economic order quantity (F. W. Harris, 1913).
    """

    def __init__(self) -> None:
        self._passes = _Line()
        self._step = self._length = 0.0
        self._feeding = False

    def fed(self, tokens: int, seconds: float) -> None:
        """A pass over so many tokens of prompts, padding included, took so long."""
        self._passes.add(tokens, seconds)

    def decoded(self, seconds: float) -> None:
        self._step = _mean(self._step, seconds)

    def answered(self, tokens: int) -> None:
        self._length = _mean(self._length, tokens)

    def feeds(self, waiting: int, decoding: int) -> bool:
        """Whether the next pass is over prompts. Once begun, all that wait are fed."""
        if not waiting:
            self._feeding = False
        elif not self._feeding:
            self._feeding = not decoding or waiting >= self._worth(waiting + decoding)
        return self._feeding

    def _worth(self, flying: int) -> int:
        if not (self._step and self._length):
            return 1
        return math.floor(flying * math.sqrt(2 * self._passes.intercept / (self._step * self._length)))


class _Line:
    """Least squares of y on x, over what was added lately."""

    def __init__(self) -> None:
        self._x = self._y = self._xx = self._xy = 0.0

    def add(self, x: float, y: float) -> None:
        self._x, self._y = _mean(self._x, x), _mean(self._y, y)
        self._xx, self._xy = _mean(self._xx, x * x), _mean(self._xy, x * y)

    @property
    def intercept(self) -> float:
        """Between 0 and the mean of y; 0 where x hardly varies, so that nothing can be said."""
        spread = self._xx - self._x**2
        if spread <= 0.01 * self._x**2:
            return 0.0
        slope = (self._xy - self._x * self._y) / spread
        return min(max(self._y - slope * self._x, 0.0), self._y)


def _mean(past: float, new: float) -> float:
    return STEADY * past + (1 - STEADY) * new if past else new
