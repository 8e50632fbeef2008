"""When to stop decoding for a pass over new prompts."""

from __future__ import annotations

import math

STEADY = 0.9
"""Weight of the past in a running mean."""


class Pace:
    """Prompts that come in while others are decoded are gathered: a pass over a few costs little more than over one.

    A prompt that waits leaves its share of each decode step unused, and each pass over prompts holds up everybody for
    ``fixed`` seconds at least. With ``n`` conversations in flight, answers of ``length`` tokens and ``step`` seconds a
    decode step, ``n / length`` prompts arrive in each; so gathering ``w`` of them costs least, for each prompt,
    at ``w = n * sqrt(2 * fixed / (step * length))``: the economic order quantity (F. W. Harris, 1913).
    """

    def __init__(self) -> None:
        self._fixed = math.inf
        self._step = self._length = 0.0
        self._feeding = False

    def fed(self, seconds: float) -> None:
        """A pass over prompts took so long. Of all passes the shortest is the one with the least to compute."""
        self._fixed = min(self._fixed, seconds)

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

    def _worth(self, flying: int) -> float:
        if not (self._step and self._length and math.isfinite(self._fixed)):
            return 1
        return math.floor(flying * math.sqrt(2 * self._fixed / (self._step * self._length)))


def _mean(past: float, new: float) -> float:
    return STEADY * past + (1 - STEADY) * new if past else new
