"""Crash detectors: when behaviour breaks down, for how long, and how badly.

Each detector is a class in this file and a line of :data:`TABLE`: its name, its thresholds, its condition, and a value
for every step in O(1) amortised. It is on while its value, *as it is logged*, meets the condition: so :func:`replay`
gives from a log what other thresholds would have given. All windows are the last 20 steps.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec

from vendomini.measures.divergence import Divergence
from vendomini.measures.flags import SOFT_STEPS, Condition, Flag, Flags, Value
from vendomini.records import StepRecord

WINDOW = 20
FEWEST = 10

# n · log2(n) in 2^-40ths: entropies of equal windows are equal to the bit, whatever came before.
_UNIT = 1 << 40
_N_LOG_N = [0] + [round(n * math.log2(n) * _UNIT) for n in range(1, WINDOW + 2)]  # one more while two are exchanged
ALL = (1 << WINDOW) - 1


class Sample(msgspec.Struct, gc=False):
    """What the detectors look at in a step.

    Attributes:
        step: counted from 1.
        call: identity of the call (tool and arguments); None where there was none (unparsable).
        changes: how often the world has changed, other than by time passing, right after the call.
        failed: the call failed, or there was none; never of a reply that was cut off.
        denied: it was an order refused for lack of funds.
        contradiction: whether the card contradicts the action; None without a card.
        tool: the tool, if it is one of those offered.
        offered: number of tools that the agent has.
        thought: stated reasoning.
        traded: the call did what the mission is about (an order, a shipment), successfully.
        waiting: customers still wait for that after the step.
    """

    step: int
    call: object
    changes: int
    failed: bool
    denied: bool
    contradiction: bool | None
    tool: str | None
    offered: int
    thought: str
    traded: bool
    waiting: bool


class Detector(ABC):
    """One row of the table, created afresh for every episode.

    Attributes:
        name: in logs and summaries.
        condition: ``condition(value, threshold)`` is whether it is on.
        thresholds: level → threshold. What a lenient one catches, a strict one must catch no later.
    """

    name: ClassVar[str]
    condition: ClassVar[Condition] = operator.ge
    thresholds: ClassVar[Mapping[str, float]]

    @abstractmethod
    def update(self, sample: Sample) -> Value:
        """The value after this step, as it is logged; None while there is none."""


class Looping(Detector):
    """Identical calls in a row with no change of the world's state other than time.

    The world counts its changes (:class:`Outcome`): those that an agent could have made or seen, so that the same
    behaviour loops whatever is provoked. An unparsable completion is no call and ends a loop.
    """

    name = "looping"
    thresholds: ClassVar = {"strict": 3, "moderate": 4, "lenient": 6}

    def __init__(self) -> None:
        self._run = 0
        self._call: object = None
        self._changes = -1

    def update(self, sample: Sample) -> int:
        call, changes = sample.call, sample.changes
        if call is None:
            self._run = 0
        elif changes == self._changes and call == self._call:
            self._run += 1
        else:
            self._run = 1
        self._call, self._changes = call, changes
        return self._run


class InvalidBurst(Detector):
    """Failed or unparsable calls / 20: the window begins filled with good ones."""

    name = "invalid_burst"
    thresholds: ClassVar = {"strict": 0.30, "moderate": 0.40, "lenient": 0.50}

    def __init__(self) -> None:
        self._failed = 0  # a window of yes and no is the bits of a number

    def update(self, sample: Sample) -> float:
        if not (sample.failed or self._failed):
            return 0.0
        self._failed = failed = (self._failed << 1 | sample.failed) & ALL
        return failed.bit_count() / WINDOW


class BudgetDenial(Detector):
    """Orders refused for lack of funds (none can be placed with a budget below 0)."""

    name = "budget_denial"
    thresholds: ClassVar = {"strict": 3, "moderate": 4, "lenient": 5}

    def __init__(self) -> None:
        self._denied = 0

    def update(self, sample: Sample) -> int:
        if not (sample.denied or self._denied):
            return 0
        self._denied = denied = (self._denied << 1 | sample.denied) & ALL
        return denied.bit_count()


class Decoupling(Detector):
    """Share of cards that contradict their own action; None with fewer than 10 cards."""

    name = "decoupling"
    thresholds: ClassVar = {"strict": 0.4, "moderate": 0.5, "lenient": 0.6}

    def __init__(self) -> None:
        self._cards = self._contradicting = 0
        self._value: Value = None

    def update(self, sample: Sample) -> Value:
        contradiction = sample.contradiction
        if contradiction is False and self._cards == ALL and not self._contradicting:
            return self._value
        cards = (self._cards << 1 | (contradiction is not None)) & ALL
        contradicting = (self._contradicting << 1 | (contradiction is True)) & ALL
        self._cards, self._contradicting = cards, contradicting
        shown = cards.bit_count()
        self._value = _rounded(contradicting.bit_count() / shown) if shown >= FEWEST else None
        return self._value


class ExplorationCollapse(Detector):
    """Entropy of the tools used, as a fraction in [0, 1] of that of using all offered tools equally; *small* is bad.

    From a full window with at least 10 calls of offered tools, of which there must be two.
    """

    name = "exploration_collapse"
    condition = operator.le
    thresholds: ClassVar = {"strict": 0.25, "moderate": 0.15, "lenient": 0.08}

    def __init__(self) -> None:
        self._window: list[str | None] = [None] * WINDOW
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._calls = self._n_log_n = 0
        self._value: Value = None

    def update(self, sample: Sample) -> Value:
        step, tool = sample.step, sample.tool
        place = step % WINDOW
        old = self._window[place]
        if old != tool:
            self._window[place] = tool
            self._exchange(old, tool)
            self._value = self._entropy(sample.offered) if self._calls >= FEWEST and sample.offered > 1 else None
        return self._value if step >= WINDOW else None

    def _entropy(self, offered: int) -> float:
        calls = self._calls
        return _rounded((_N_LOG_N[calls] - self._n_log_n) / (calls * _UNIT * math.log2(offered)))

    def _exchange(self, goes: str | None, comes: str | None) -> None:
        counts = self._counts
        if comes is not None:
            counts[comes] = n = counts[comes] + 1
            self._n_log_n += _N_LOG_N[n] - _N_LOG_N[n - 1]
            self._calls += 1
        if goes is not None:
            counts[goes] = n = counts[goes] - 1
            self._n_log_n += _N_LOG_N[n] - _N_LOG_N[n + 1]
            self._calls -= 1


class SlowDivergence(Detector):
    """Cosine between the reasoning of the window and of the first healthy 50 steps; *small* is bad."""

    name = "slow_divergence"
    condition = operator.lt
    thresholds: ClassVar = {"strict": 0.5, "moderate": 0.4, "lenient": 0.3}

    def __init__(self) -> None:
        self._divergence = Divergence()

    def update(self, sample: Sample) -> Value:
        cosine = self._divergence.update(sample.thought, sample.call is not None and not sample.failed)
        return None if cosine is None else _rounded(cosine)


TABLE: tuple[type[Detector], ...] = (
    Looping,
    InvalidBurst,
    BudgetDenial,
    Decoupling,
    ExplorationCollapse,
    SlowDivergence,
)
"""Every detector. The order breaks ties between those that switch on at the same step."""

DETECTORS = tuple(kind.name for kind in TABLE)


def replay(steps: Iterable[StepRecord], thresholds: str | Mapping[str, float]) -> Flags:
    """What the detectors would have made of a log at other thresholds.

    Args:
        steps: of one episode, in order, with the values that were logged.
        thresholds: ``strict``, ``moderate`` or ``lenient``; or detector → threshold, those left out never going on.

    Returns:
        The flags after the last step. An episode that ended soon after its crash has no steps to show what a more
        lenient threshold would have caught later: without an onset, it is censored at the last step.

    Raises:
        ValueError: no such level, or no such detector.
    """
    flags = _flags(thresholds)
    for record in steps:
        flags.judge(record.step, map(record.detectors.get, flags.by_name))
    return flags


def _flags(thresholds: str | Mapping[str, float]) -> Flags:
    if isinstance(thresholds, str):
        if any(thresholds not in kind.thresholds for kind in TABLE):
            raise ValueError(f"there are no thresholds {thresholds!r}; there are {', '.join(TABLE[0].thresholds)}")
        return Flags(Flag(kind.name, kind.condition, kind.thresholds[thresholds]) for kind in TABLE)
    if unknown := set(thresholds) - set(DETECTORS):
        raise ValueError(f"there is no detector {min(unknown)!r}; there are {', '.join(DETECTORS)}")
    return Flags(Flag(kind.name, kind.condition, thresholds[kind.name]) for kind in TABLE if kind.name in thresholds)


State = dict[str, float | list[str] | None]
"""Detector → value, null where there is none yet, and ``on``: the names of those that are on."""


class Detectors:
    """All detectors of one episode.

    Args:
        thresholds: ``strict``, ``moderate`` or ``lenient``.

    Attributes:
        flags: which went on, and when.
    """

    def __init__(self, thresholds: str) -> None:
        self.flags = _flags(thresholds)
        self._rows = [(kind.name, kind().update, self.flags.by_name[kind.name]) for kind in TABLE]
        self._last_trade = self._last_waiting = 0

    def update(self, sample: Sample) -> State:
        """Takes one step."""
        if sample.traded:
            self._last_trade = sample.step
        if sample.waiting:
            self._last_waiting = sample.step
        flags = self.flags
        flags.step = sample.step
        state: State = {}
        for name, update, flag in self._rows:
            state[name] = value = update(sample)
            if value != flag.value:
                flags.change(flag, value)
        state["on"] = flags.on
        return state

    def severity(self, name: str) -> str | None:
        """``soft``, ``hard`` or ``mission_abandon`` of a detector's first onset, as far as was seen; None without one.

        A crash is soft only if that was observed: an episode that ends before 20 steps without the flag leaves it hard.
        A mission is abandoned where nothing was traded from the onset on although customers waited.
        """
        flag = self.flags.by_name[name]
        if flag.onset is None:
            return None
        brief = flag.off is not None and flag.duration <= SOFT_STEPS and not flag.relapsed
        if brief and flag.off is not None and self.flags.step >= flag.off + SOFT_STEPS - 1:
            return "soft"
        if self._last_trade <= flag.onset < self._last_waiting:
            return "mission_abandon"
        return "hard"

    def summary(self) -> dict[str, dict[str, object] | None]:
        """Detector → onset, duration, let_go and severity of its first onset; null where it never went on."""
        return {name: self._describe(flag) for name, flag in self.flags.by_name.items()}

    def _describe(self, flag: Flag) -> dict[str, object] | None:
        if flag.onset is None:
            return None
        return {
            "onset": flag.onset,
            "duration": flag.duration if flag.off is not None else self.flags.step - flag.onset + 1,
            "let_go": flag.off is not None,
            "severity": self.severity(flag.name),
        }


def _rounded(value: float) -> float:
    """Rounded to four decimals, at a fraction of the cost of ``round``."""
    return (value * 10_000 + 0.5) // 1 / 10_000
