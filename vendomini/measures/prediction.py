"""Prediction errors: claims that cards open, how they resolve, and the accumulators over them.

The world's expectations say what is scored, and how (:class:`vendomini.worlds.protocol.Expectation`). Exact ones and
``expected_success`` make one claim, ``causal``, which settles right after the call; the others settle when their actual
value is known: at once, or when the outcome of what the call set going is known.

What a card left open, and what has no outcome, is missing: no claim, no value, and the accumulators stay as they were.
An agent that changes what it set going changes the outcome of its earlier claims about it, so those lapse; the card of
the change opens its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, cast

import msgspec

from vendomini.worlds.protocol import SUCCESS, Audited, Card, Expectation, Outcome, Promise, Settlement
from vendomini.worlds.text import clip

STATE = "causal"
"""The type of the claim about success and the state right after a call."""

ALPHAS = {"fast": 0.3, "medium": 0.1, "slow": 0.01}

_FAST, _MEDIUM, _SLOW = ALPHAS.values()
_MICRO = 1_000_000
_ROUNDING = 1e-6
"""Added to a tolerance: both sides are decimal amounts in binary fractions."""


def error_types(expectations: Sequence[Expectation]) -> tuple[str, ...]:
    """The types of prediction error that there can be, in the order of the expectations."""
    return tuple(dict.fromkeys([*(one.error for one in expectations), STATE]))


class Resolved(msgspec.Struct, frozen=True, gc=False):
    """A claim that was settled.

    Attributes:
        type: of the error.
        made: the step whose card it was.
        expected, actual: values; for ``causal`` lists of them: success, then the exact expectations.
        pe: the prediction error, at least 0.
    """

    type: str
    made: int
    expected: object
    actual: object
    pe: float


@cache
def _resolved_about(name: str) -> Callable[..., Resolved]:
    """A resolved claim with the key of what it was about, under the name that the world gives it."""
    fields = [("about", str)]
    made: object = msgspec.defstruct("ResolvedAbout", fields, bases=(Resolved,), rename={"about": name}, frozen=True)
    return cast("Callable[..., Resolved]", made)


class Series:
    """Accumulators over the resolved errors of one type.

    Exponentially weighted means start at the first value. Window means are over the last ``w`` errors, or as many as
    there are. The errors' running sum is kept in integer millionths, and its past values in a ring: a window's sum is
    the difference of two of them, which neither drifts nor costs anything until it is read.
    """

    __slots__ = ("_none_yet", "_ring", "_size", "_windows", "count", "fast", "medium", "slow", "total")

    def __init__(self, windows: tuple[int, ...]) -> None:
        self._windows = tuple((f"w{window}", window) for window in windows)
        self._none_yet = dict.fromkeys((*ALPHAS, *(name for name, _ in self._windows)), 0.0)
        self._size = max(windows) + 1
        self._ring = [0] * self._size
        self.count = 0
        self.total = 0
        self.fast = self.medium = self.slow = 0.0

    def add(self, micro: int) -> None:
        """Takes an error, in millionths."""
        self.count = count = self.count + 1
        if not micro and not self.total:  # all means stay 0
            return
        value = micro / _MICRO
        if count > 1:
            self.fast += _FAST * (value - self.fast)
            self.medium += _MEDIUM * (value - self.medium)
            self.slow += _SLOW * (value - self.slow)
        else:
            self.fast = self.medium = self.slow = value
        self.total += micro
        self._ring[count % self._size] = self.total

    def state(self) -> dict[str, float]:
        """Name → value, rounded to millionths. Only for a series that has values."""
        count, total, ring, size = self.count, self.total, self._ring, self._size
        if not total:
            return self._none_yet
        # Errors are never negative, so this is half-up. round() would cost more than all other measures of a step.
        state = {
            "fast": (self.fast * _MICRO + 0.5) // 1 / _MICRO,
            "medium": (self.medium * _MICRO + 0.5) // 1 / _MICRO,
            "slow": (self.slow * _MICRO + 0.5) // 1 / _MICRO,
        }
        for name, window in self._windows:
            if window > count:
                window = count
            state[name] = ((total - ring[(count - window) % size]) / window + 0.5) // 1 / _MICRO
        return state

    def summary(self) -> dict[str, float] | None:
        """The state with ``n`` and the mean over all; None where nothing ever resolved."""
        if not self.count:
            return None
        return {"n": self.count, "mean": round(self.total / (_MICRO * self.count), 6), **self.state()}


class Claim(msgspec.Struct, gc=False):
    """What a card expects of something that was set going: field → value."""

    made: int
    now: int
    expected: Card
    audit: Audited | None


class Predictions:
    """The claims and errors of one episode.

    Args:
        windows: of the window means, in resolved errors.
        remembered: predictions kept for an audit; 0 where it isn't offered.
        expectations: of the world.
        promise_name: see :class:`World`.
    """

    def __init__(
        self, windows: tuple[int, ...], remembered: int, expectations: Sequence[Expectation], promise_name: str
    ) -> None:
        self._exact = {one.field: one.tolerance and one.tolerance + _ROUNDING for one in expectations if _exact(one)}
        self._scored = [(one.field, one) for one in expectations if not _exact(one)]
        self._expectations = expectations
        self._about = _resolved_about(promise_name)
        self._series = {kind: Series(windows) for kind in (*error_types(expectations), "all")}
        self._all = self._series["all"]
        self._state: dict[str, dict[str, float] | None] = dict.fromkeys(self._series)
        self._stale: set[str] = set()
        self._audit: deque[Audited] = deque(maxlen=remembered)
        self._open: dict[str, list[Claim]] = {}

    # ----------------------------------------------------------------------------------------- claims

    def judge(self, step: int, tool: str, card: Card | None, outcome: Outcome) -> list[Resolved]:
        """Right after a call: settles what can be settled at once, and opens claims about what it set going."""
        promise = outcome.promise
        if promise is not None and promise.lapses:
            self._lapse(promise)
        if card is None:
            return []
        audit = self._remember(step, tool, card) if self._audit.maxlen else None
        resolved = [self._judge_state(step, card, outcome, audit)]
        for field, one in self._scored:
            expected = card.get(field)
            if expected is not None and field in outcome.values:
                actual = outcome.values[field]
                pe = _error(one, expected, actual, outcome.now)
                resolved.append(self._resolve(one.error, step, expected, actual, pe, audit))
        if promise is not None and promise.opens:
            expectations = {field: card[field] for field in promise.opens if card.get(field) is not None}
            if expectations:
                self._open.setdefault(promise.key, []).append(Claim(step, outcome.now, expectations, audit))
        return resolved

    def _judge_state(self, step: int, card: Card, outcome: Outcome, audit: Audited | None) -> Resolved:
        expected: list[Any] = [card[SUCCESS], *map(card.get, self._exact)]
        actual: list[Any] = [outcome.result.ok, *map(outcome.values.get, self._exact)]
        wrong = expected != actual and self._differ(expected, actual)
        return self._resolve(STATE, step, expected, actual, 1 if wrong else 0, audit)

    def _differ(self, expected: list[Any], actual: list[Any]) -> bool:
        if expected[0] is not actual[0]:
            return True
        known = zip(expected[1:], actual[1:], self._exact.values(), strict=True)
        return any(a is not None and b is not None and not -off <= a - b <= off for a, b, off in known)

    def _lapse(self, promise: Promise) -> None:
        """The agent changed it itself, so earlier expectations about it no longer count."""
        claims = self._open.get(promise.key, [])
        for claim in claims:
            for field in promise.lapses:
                claim.expected.pop(field, None)
        if not any(claim.expected for claim in claims):
            self._open.pop(promise.key, None)

    def settle(self, settlements: Sequence[Settlement]) -> list[Resolved]:
        """Settles the claims about something whose outcome is known."""
        return [
            resolved
            for settlement in settlements
            for claim in self._open.pop(settlement.key, ())
            for resolved in self._settle(claim, settlement)
        ]

    def _settle(self, claim: Claim, settlement: Settlement) -> Iterator[Resolved]:
        for one in self._expectations:
            if one.field in claim.expected and one.field in settlement.values:
                expected, actual = claim.expected[one.field], settlement.values[one.field]
                pe = _error(one, expected, actual, claim.now)
                yield self._resolve(one.error, claim.made, expected, actual, pe, claim.audit, settlement.key)

    def _resolve(
        self,
        kind: str,
        made: int,
        expected: object,
        actual: object,
        pe: float,
        audit: Audited | None,
        about: str | None = None,
    ) -> Resolved:
        micro = int(pe * _MICRO + 0.5) if pe else 0
        self._series[kind].add(micro)
        self._all.add(micro)
        if self._all.total or self._state[kind] is None:  # otherwise all means are 0 as before
            self._stale.add(kind)
        pe = micro / _MICRO
        if audit is not None:
            audit.actual[kind] = actual
            audit.pe[kind] = pe
        if about is None:
            return Resolved(kind, made, expected, actual, pe)
        return self._about(kind, made, expected, actual, pe, about)

    # ---------------------------------------------------------------------------------------- audit

    def _remember(self, step: int, tool: str, card: Card) -> Audited:
        entry = Audited(step, clip(tool), card, {}, {})
        self._audit.append(entry)
        return entry

    def audit(self, n: int) -> list[Audited]:
        """The last n cards, oldest first, with what came of them so far."""
        return [Audited(a.step, a.tool, a.expected, dict(a.actual), dict(a.pe)) for a in list(self._audit)[-n:]]

    # ---------------------------------------------------------------------------------- accumulators

    def state(self) -> dict[str, dict[str, float] | None]:
        """Type (and ``all``) → accumulators, null while nothing resolved.

        The same object as long as nothing new did, and never changed once it was returned.
        """
        if self._stale:
            self._state = state = self._state.copy()
            for kind in self._stale:
                state[kind] = self._series[kind].state()
            state["all"] = self._all.state()
            self._stale.clear()
        return self._state

    def summary(self) -> dict[str, dict[str, float] | None]:
        """The accumulators over the whole episode."""
        return {kind: series.summary() for kind, series in self._series.items()}


def _exact(expectation: Expectation) -> bool:
    return expectation.score == "exact"


def _error(one: Expectation, expected: Any, actual: Any, now: int) -> float:
    """See :class:`Expectation`."""
    if one.score == "exact":
        return float(abs(expected - actual) > one.tolerance + _ROUNDING)
    scale = expected - now if one.score == "wait" else expected
    return float(abs(expected - actual) / max(scale, 1))
