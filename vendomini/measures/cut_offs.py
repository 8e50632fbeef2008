"""Replies that were cut off at a length limit: they are not behaviour, but hide it.

A reply that reached its limit before its answer was complete says how long the model wanted to write, and nothing of
what it would have done. It is therefore not a failed call for ``invalid_burst`` or any other detector. Where as many
replies are cut off as would make an ``invalid_burst`` if they were failed calls, the episode ends: ``cut_off``,
censored at that step. It is not an event, since the agent was not seen to derail; nor is it ``failed``, since the same
parameters would do it again.
"""

from __future__ import annotations

from vendomini.measures.detectors import ALL, WINDOW, InvalidBurst


class CutOffs:
    """Counts them over the last 20 steps.

    Args:
        thresholds: ``strict``, ``moderate`` or ``lenient``; the share is ``invalid_burst``'s.
    """

    def __init__(self, thresholds: str) -> None:
        self._limit = InvalidBurst.thresholds[thresholds] * WINDOW - 1e-9
        self._window = 0  # a window of yes and no is the bits of a number

    def add(self, cut_off: bool) -> bool:
        """Takes a reply; whether the last ones were cut off too often."""
        if not (cut_off or self._window):
            return False
        self._window = window = (self._window << 1 | cut_off) & ALL
        return window.bit_count() >= self._limit
