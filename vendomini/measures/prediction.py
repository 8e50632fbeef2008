"""Prediction errors: claims that cards open, how they resolve, and the accumulators over them.

========  =======================================  ===============================================================
type      resolves                                 value
========  =======================================  ===============================================================
temporal  at delivery; at cancellation: never      abs(expected_day − actual_day) / max(expected_day − order_day, 1)
quantity  at delivery                              abs(expected − delivered) / max(expected, 1)
cost      at once, where a call charged something  abs(expected − charged) / max(expected, 1)
causal    at once                                  1 if success, storage_after or budget_after (± 0.01) differs, else 0
========  =======================================  ===============================================================

What a card left open, and what has no outcome, is missing: no claim, no value, and the accumulators stay as they
were. Delivered is what the supplier brought, before the storage sent any of it back. An agent that expedites an order
changes the outcome of its earlier claim about the day, so that one lapses; the card of the expedite opens its own.

A resolved claim is ``{type, made, expected, actual, pe}`` with ``made`` the step whose card it was, and ``order_id``
where it was about an order. For causal, expected and actual are lists: success, storage_after, budget_after.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from vendomini.measures.cards import Card
from vendomini.worlds.text import clip
from vendomini.worlds.vending.orders import SupplierOrder

TYPES = ("temporal", "quantity", "cost", "causal")
ALPHAS = {"fast": 0.3, "medium": 0.1, "slow": 0.01}
BUDGET_TOLERANCE = 0.01

Resolved = dict[str, Any]

_FAST, _MEDIUM, _SLOW = ALPHAS.values()
_MICRO = 1_000_000
_TOLERANCE = BUDGET_TOLERANCE + 1e-6  # both sides are whole cents in binary fractions


class Series:
    """Accumulators over the resolved errors of one type.

    Exponentially weighted means start at the first value. Window means are over the last ``w`` errors, or as many as
    there are. The errors' running sum is kept in integer millionths, and its past values in a ring: a window's sum is
    the difference of two of them, which neither drifts nor costs anything until it is asked for.
    """

    __slots__ = ("_none_yet", "_ring", "_size", "_windows", "count", "fast", "medium", "slow", "total")

    def __init__(self, windows: tuple[int, ...]) -> None:
        self._windows = tuple((f"w{window}", window) for window in windows)
        self._none_yet = dict.fromkeys((*ALPHAS, *(name for name, _ in self._windows)), 0.0)
        self._size = max(windows) + 1
        self._ring = [0]
        self.count = 0
        self.total = 0
        self.fast = self.medium = self.slow = 0.0

    def add(self, micro: int) -> None:
        """Takes an error, in millionths."""
        value = micro / _MICRO
        if self.count:
            self.fast += _FAST * (value - self.fast)
            self.medium += _MEDIUM * (value - self.medium)
            self.slow += _SLOW * (value - self.slow)
        else:
            self.fast = self.medium = self.slow = value
        self.total += micro
        self.count = count = self.count + 1
        if count < self._size:
            self._ring.append(self.total)
        else:
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
            n = window if window < count else count
            state[name] = ((total - ring[(count - n) % size]) / n + 0.5) // 1 / _MICRO
        return state

    def summary(self) -> dict[str, float] | None:
        """The state with ``n`` and the mean over all; None where nothing ever resolved."""
        if not self.count:
            return None
        return {"n": self.count, "mean": round(self.total / (_MICRO * self.count), 6), **self.state()}


class Claim:
    """What a card expects of a delivery; None where it says nothing."""

    __slots__ = ("audit", "day", "expected_day", "expected_quantity", "made")

    def __init__(self, made: int, day: int, card: Card, quantity: int | None, audit: dict[str, Any] | None) -> None:
        self.made = made
        self.day = day
        self.expected_day: int | None = card["expected_delivery_day"]
        self.expected_quantity = quantity
        self.audit = audit


class Predictions:
    """The claims and errors of one episode.

    Args:
        windows: of the window means, in resolved errors.
        remembered: predictions kept for ``tool_audit_predictions``; 0 where it isn't offered.
    """

    def __init__(self, windows: tuple[int, ...], remembered: int) -> None:
        self._series = {kind: Series(windows) for kind in (*TYPES, "all")}
        self._all = self._series["all"]
        self._state: dict[str, dict[str, float] | None] = dict.fromkeys(self._series)
        self._stale: set[str] = set()
        self._audit: deque[dict[str, Any]] = deque(maxlen=remembered)

    # ----------------------------------------------------------------------------------------- claims

    def judge(
        self,
        step: int,
        day: int,
        tool: str,
        card: Card,
        succeeded: bool,
        charged: int | None,
        order: SupplierOrder | None,
        storage: int,
        cents: int,
    ) -> list[Resolved]:
        """Right after a call: settles what can be settled at once, and opens claims about the delivery.

        Args:
            day: on which the call was made.
            charged: by the call, in cents; None if it charged nothing.
            order: that the call placed or expedited.
            storage: units in storage after the call's own effect.
            cents: budget after the call's own effect.
        """
        audit = self._remember(step, tool, card)
        get, budget = card.get, cents / 100
        success, expected_storage = get("expected_success"), get("expected_storage_after")
        expected_budget = get("expected_budget_after")
        differs = (
            success is not succeeded
            or (expected_storage is not None and expected_storage != storage)
            or (expected_budget is not None and not -_TOLERANCE <= expected_budget - budget <= _TOLERANCE)
        )
        expected_effect, effect = [success, expected_storage, expected_budget], [succeeded, storage, budget]
        resolved = [self._resolve("causal", step, expected_effect, effect, 1 if differs else 0, audit)]
        if charged is not None:
            expected = get("expected_cost")
            if expected is not None:
                pe = abs(expected - charged / 100) / max(expected, 1)
                resolved.append(self._resolve("cost", step, expected, charged / 100, pe, audit))
        if order is not None:
            self._open(step, day, tool, card, order, audit)
        return resolved

    def _open(
        self, step: int, day: int, tool: str, card: Card, order: SupplierOrder, audit: dict[str, Any] | None
    ) -> None:
        quantity = None if tool == "tool_expedite" else card.get("expected_quantity")
        if card["expected_delivery_day"] is not None or quantity is not None:
            order.claims.append(Claim(step, day, card, quantity, audit))

    def expedited(self, order: SupplierOrder) -> None:
        """The agent moved the day itself: what it expected before lapses."""
        for claim in order.claims:
            claim.expected_day = None

    def delivered(self, orders: list[SupplierOrder], day: int) -> list[Resolved]:
        """Settles the claims about orders that arrived on this day."""
        resolved = []
        for order in orders:
            for claim in order.claims:
                if claim.expected_day is not None:
                    pe = abs(claim.expected_day - day) / max(claim.expected_day - claim.day, 1)
                    resolved.append(self._resolve("temporal", claim.made, claim.expected_day, day, pe, claim.audit))
                    resolved[-1]["order_id"] = order.id
                if claim.expected_quantity is not None:
                    pe = abs(claim.expected_quantity - order.arriving) / max(claim.expected_quantity, 1)
                    expected = claim.expected_quantity
                    resolved.append(self._resolve("quantity", claim.made, expected, order.arriving, pe, claim.audit))
                    resolved[-1]["order_id"] = order.id
        return resolved

    def _resolve(
        self, kind: str, made: int, expected: Any, actual: Any, pe: float, audit: dict[str, Any] | None
    ) -> Resolved:
        micro = int(pe * _MICRO + 0.5)
        self._series[kind].add(micro)
        self._all.add(micro)
        self._stale.add(kind)
        pe = micro / _MICRO
        if audit is not None:
            audit["actual"][kind] = actual
            audit["pe"][kind] = pe
        return {"type": kind, "made": made, "expected": expected, "actual": actual, "pe": pe}

    # ---------------------------------------------------------------------------------------- audit

    def _remember(self, step: int, tool: str, card: Card) -> dict[str, Any] | None:
        if not self._audit.maxlen:
            return None
        entry = {"step": step, "tool": clip(tool), "expected": card, "actual": {}, "pe": {}}
        self._audit.append(entry)
        return entry

    def audit(self, n: int) -> list[dict[str, Any]]:
        """The last n cards, oldest first, with what came of them so far."""
        entries = list(self._audit)[-n:]
        return [{**entry, "actual": dict(entry["actual"]), "pe": dict(entry["pe"])} for entry in entries]

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

    def summary(self) -> dict[str, Any]:
        return {kind: series.summary() for kind, series in self._series.items()}
