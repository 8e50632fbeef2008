"""Crash detectors: when behaviour breaks down, for how long, and how badly.

Six detectors look at every step, each on its own, in O(1) amortised. All windows are the last 20 steps.

===================  ==============================================================================================
detector             value; it is on when that reaches its threshold
===================  ==============================================================================================
looping              identical (tool, arguments) in a row with no change of world state other than time
invalid_burst        failed or unparsable calls / 20: the window begins filled with good ones
budget_denial        orders refused for lack of funds (none can be placed with a budget below 0)
decoupling           share of cards that contradict their own action; null with fewer than 10 cards
exploration_collapse entropy of tools used / log2(tools offered), from a full window with at least 10 calls of offered
                     tools; *small* is bad
slow_divergence      cosine between the reasoning of the window and of the first healthy 50 steps; *small* is bad
===================  ==============================================================================================

Looping counts a change of stock, bookings, orders, customers, read messages or notes. Fees are part of time. The
arrival of notices and the change of hidden terms don't count either: if they did, the same behaviour would loop at
p_shock 0 and not at 1. An unparsable completion is no call and ends a loop.
"""

from __future__ import annotations

import math
from typing import Any

from vendomini.measures.divergence import Divergence

WINDOW = 20
FEWEST = 10
SOFT_STEPS = 20
"""A crash that lets go within so many steps, and stays off for as many, is soft."""

THRESHOLDS: dict[str, dict[str, float]] = {
    "looping": {"strict": 3, "moderate": 4, "lenient": 6},
    "invalid_burst": {"strict": 0.30, "moderate": 0.40, "lenient": 0.50},
    "budget_denial": {"strict": 3, "moderate": 4, "lenient": 5},
    "decoupling": {"strict": 0.4, "moderate": 0.5, "lenient": 0.6},
    "exploration_collapse": {"strict": 0.25, "moderate": 0.15, "lenient": 0.08},
    "slow_divergence": {"strict": 0.5, "moderate": 0.4, "lenient": 0.3},
}
"""The one place of all thresholds; the order breaks ties between detectors that go on at one step."""

DETECTORS = tuple(THRESHOLDS)

# n · log2(n) in 2^-40ths: entropies of equal windows are equal to the bit, whatever came before.
_UNIT = 1 << 40
_N_LOG_N = [0] + [round(n * math.log2(n) * _UNIT) for n in range(1, WINDOW + 2)]  # one more while two change places

_Sample = tuple[bool, bool, bool | None, int]
_QUIET: _Sample = (False, False, None, -1)


def _rounded(value: float) -> float:
    """To four decimals; a fraction of the price of ``round``."""
    return (value * 10_000 + 0.5) // 1 / 10_000


class Flag:
    """The history of one detector.

    Attributes:
        onset: step of its first onset.
        off: step at which it first let go.
        duration: steps from the first onset until it let go, or until now.
        relapsed: it came back within 20 steps of letting go.
    """

    __slots__ = ("duration", "off", "on", "onset", "relapsed")

    def __init__(self) -> None:
        self.on = self.relapsed = False
        self.onset: int | None = None
        self.off: int | None = None
        self.duration = 0

    def switch(self, step: int, on: bool) -> None:
        self.on = on
        if on and self.onset is None:
            self.onset = step
        elif not on and self.off is None and self.onset is not None:
            self.off = step
            self.duration = step - self.onset
        elif on and self.off is not None and step < self.off + SOFT_STEPS:
            self.relapsed = True


class Detectors:
    """The six detectors of one episode.

    Args:
        thresholds: ``strict``, ``moderate`` or ``lenient``.
        tools_offered: number of tools the agent has.

    Attributes:
        first: the name of the detector that went on first, if any.
        onset: its step.
    """

    def __init__(self, thresholds: str, tools_offered: int) -> None:
        limits = {name: levels[thresholds] for name, levels in THRESHOLDS.items()}
        self._longest_run = limits["looping"]
        self._most_failed = limits["invalid_burst"] - 1e-9
        self._most_denied = limits["budget_denial"]
        self._most_contradicting = limits["decoupling"] - 1e-9
        self._least_entropy = limits["exploration_collapse"] + 1e-9
        self._least_cosine = limits["slow_divergence"]
        self._full_entropy = math.log2(tools_offered)
        self._tools = [0] * tools_offered
        self._samples: list[_Sample] = [_QUIET] * WINDOW
        self._failed = self._denied = self._cards = self._contradicting = self._calls = self._n_log_n = 0
        self._run = 0
        self._key: Any = None
        self._changes = -1
        self._divergence = Divergence()
        self._on: tuple[bool, ...] = (False,) * len(DETECTORS)
        self._names_on: list[str] = []
        self.flags = {name: Flag() for name in DETECTORS}
        self.first: str | None = None
        self.onset: int | None = None
        self._step = self._last_trade = self._last_waiting = 0

    def update(
        self,
        step: int,
        key: Any,
        changes: int,
        failed: bool,
        denied: bool,
        contradiction: bool | None,
        tool: int,
        thought: str,
        healthy: bool,
    ) -> dict[str, Any]:
        """Takes one step.

        Args:
            key: identity of the call; None where there was none (unparsable).
            changes: :attr:`World.changes` right after the call.
            failed: the call failed, or there was none.
            denied: it was an order refused for lack of funds.
            contradiction: whether the card contradicts the action; None without a card.
            tool: place of the tool among those offered; −1 for none of them.
            thought: stated reasoning.
            healthy: parsed and succeeded.

        Returns:
            Detector → value (null where there is none yet), and ``on``: the names of those that are on.
        """
        self._step = step
        if key is None:
            run = 0
        elif changes == self._changes and key == self._key:
            run = self._run + 1
        else:
            run = 1
        self._run, self._key, self._changes = run, key, changes
        self._slide(step, (failed, denied, contradiction, tool))
        share_failed = self._failed / WINDOW
        contradicting = self._contradicting / self._cards if self._cards >= FEWEST else None
        entropy = self._entropy() if step >= WINDOW and self._calls >= FEWEST else None
        cosine = self._divergence.update(thought, healthy)
        on = (
            run >= self._longest_run,
            share_failed >= self._most_failed,
            self._denied >= self._most_denied,
            contradicting is not None and contradicting >= self._most_contradicting,
            entropy is not None and entropy <= self._least_entropy,
            cosine is not None and cosine < self._least_cosine,
        )
        if on != self._on:
            self._switch(step, on)
        return {
            "looping": run,
            "invalid_burst": share_failed,
            "budget_denial": self._denied,
            "decoupling": None if contradicting is None else _rounded(contradicting),
            "exploration_collapse": None if entropy is None else _rounded(entropy),
            "slow_divergence": None if cosine is None else _rounded(cosine),
            "on": self._names_on,
        }

    def _slide(self, step: int, sample: _Sample) -> None:
        """Moves the window on by one step, in all its counts."""
        place = step % WINDOW
        old = self._samples[place]
        if old == sample:
            return
        self._samples[place] = sample
        failed, denied, contradiction, tool = sample
        old_failed, old_denied, old_contradiction, old_tool = old
        self._failed += failed - old_failed
        self._denied += denied - old_denied
        self._cards += (contradiction is not None) - (old_contradiction is not None)
        self._contradicting += (contradiction is True) - (old_contradiction is True)
        tools = self._tools
        if tool >= 0:
            tools[tool] = n = tools[tool] + 1
            self._n_log_n += _N_LOG_N[n] - _N_LOG_N[n - 1]
            self._calls += 1
        if old_tool >= 0:
            tools[old_tool] = n = tools[old_tool] - 1
            self._n_log_n += _N_LOG_N[n] - _N_LOG_N[n + 1]
            self._calls -= 1

    def _entropy(self) -> float:
        """Shannon entropy of the tools in the window, in [0, 1] of what all tools alike would have."""
        calls = self._calls
        return (_N_LOG_N[calls] - self._n_log_n) / (calls * _UNIT * self._full_entropy)

    def _switch(self, step: int, on: tuple[bool, ...]) -> None:
        for name, before, now in zip(DETECTORS, self._on, on, strict=True):
            if before != now:
                self.flags[name].switch(step, now)
                if now and self.first is None:
                    self.first, self.onset = name, step
        self._on = on
        self._names_on = [name for name, now in zip(DETECTORS, on, strict=True) if now]

    # --------------------------------------------------------------------------------------- severity

    def note_business(self, step: int, traded: bool, waiting: bool) -> None:
        """Takes whether an order or a shipment succeeded at this step, and whether customers wait after it."""
        if traded:
            self._last_trade = step
        if waiting:
            self._last_waiting = step

    def severity(self, name: str) -> str | None:
        """``soft``, ``hard`` or ``mission_abandon`` of a detector's first onset, as far as was seen; None without one.

        Soft needs to be seen: an episode that ends before 20 steps without the flag leaves it hard.
        """
        flag = self.flags[name]
        if flag.onset is None:
            return None
        brief = flag.off is not None and flag.duration <= SOFT_STEPS and not flag.relapsed
        if brief and flag.off is not None and self._step >= flag.off + SOFT_STEPS - 1:
            return "soft"
        if self._last_trade <= flag.onset < self._last_waiting:
            return "mission_abandon"
        return "hard"

    def summary(self) -> dict[str, dict[str, Any] | None]:
        """Detector → onset, duration, let_go and severity of its first onset; null where it never went on."""
        return {name: self._describe(name, flag) for name, flag in self.flags.items()}

    def _describe(self, name: str, flag: Flag) -> dict[str, Any] | None:
        if flag.onset is None:
            return None
        duration = flag.duration if flag.off is not None else self._step - flag.onset + 1
        return {
            "onset": flag.onset,
            "duration": duration,
            "let_go": flag.off is not None,
            "severity": self.severity(name),
        }
