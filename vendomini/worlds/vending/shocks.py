"""Shocks: what makes outcomes differ from what was promised, and what the agent is told of it.

A shock is logged when it strikes, and a causal one again when it takes effect, as
``{struck, type, kind, status, target, nominal, realised}``:

==========  ============  ==============  ==============================================================
type        kind          nominal         realised
==========  ============  ==============  ==============================================================
temporal    delay         days            days
quantity    miscount      |m − 1|         |delivered − ordered| / ordered
causal      posting_lag   days            days
causal      interference  rise of price   mean rise over the other suppliers (0 where it was high already)
rule        regime_shift  |f − 1|         mean relative change of the supplier's lead times
==========  ============  ==============  ==============================================================

``status`` is ``realised``; ``armed`` for a causal shock that waits for the next booking or order (its ``realised`` is
null, and a second entry with the same ``struck`` follows when it takes effect); or ``void``: no type of the mix had a
target, and ``kind`` is null.

Nothing compounds: an order is late once and miscounted once, one lag and one interference are armed at a time, and
terms change by a factor on the original ones. A supplier alternates between its two regimes: the shift that strikes a
shifted supplier takes it back. Only what a tool books can lag; fees and refunds of what is sent back come on their day.

Which shock shows as which prediction error: a delay or a regime shift as temporal, a miscount as quantity, a posting
lag as causal (the budget is not what it should be; the cost is). Interference changes what is charged, so the one order
that meets it shows it twice, as cost and as causal: they are two views of one surprise, and both are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from vendomini.worlds.protocol import ShockRecord
from vendomini.worlds.randomness import integer, uniforms, weighted
from vendomini.worlds.vending.config import PEInduction
from vendomini.worlds.vending.notices import RISE_DAYS, Notices
from vendomini.worlds.vending.orders import Interference, PostingLag, SupplierOrder
from vendomini.worlds.vending.warehouse import Warehouse

MIXES = {
    "realistic": {"temporal": 0.4, "quantity": 0.3, "causal": 0.2, "rule": 0.1},
    "uniform": {"temporal": 0.25, "quantity": 0.25, "causal": 0.25, "rule": 0.25},
    "temporal_only": {"temporal": 1.0},
    "quantity_only": {"quantity": 1.0},
    "causal_only": {"causal": 1.0},
    "rule_only": {"rule": 1.0},
}
DELAY_DAYS = {"low": (1, 1), "medium": (2, 2), "high": (2, 4)}
MULTIPLIER = {"low": (0.9, 1.1), "medium": (0.7, 1.3), "high": (0.5, 2.0)}
LAG_DAYS = {"low": 1, "medium": 2, "high": 3}
RISE_PERCENT = {"low": 5, "medium": 15, "high": 30}
LEAD_FACTOR = {"low": 1.25, "medium": 1.5, "high": 2.0}

KINDS = {
    "temporal": ("delay",),
    "quantity": ("miscount",),
    "causal": ("posting_lag", "interference"),
    "rule": ("regime_shift",),
}
"""type → the kinds of shock it has."""

Status = Literal["realised", "armed", "void"]


class Shocks:
    """Applies shocks to the world and has the agent told, or not.

    Every step takes five variates of the stream ``shocks`` and one of ``notices``, used or not: with one seed, the
    shocks at p_shock 0.3 are among those at 0.4, at the same steps.
    """

    def __init__(self, induction: PEInduction, warehouse: Warehouse, seed: int) -> None:
        self._warehouse = warehouse
        self._p = induction.p_shock
        self._mix = MIXES[induction.pe_type_mix]
        self._magnitude = induction.pe_mag
        self._rise = RISE_PERCENT[induction.pe_mag] / 100
        draws = uniforms(seed, "shocks")
        self._draw = zip(draws, draws, draws, draws, draws, uniforms(seed, "notices"), strict=False).__next__
        self.notices = Notices(induction, warehouse)
        self._step = 0
        self._types: dict[str, tuple[Callable[[], list[Any]], Callable[[list[Any], float, float], ShockRecord]]] = {
            "temporal": (self._on_time, self._delay),
            "quantity": (self._well_counted, self._miscount),
            "causal": (self._unarmed, self._arm),
            "rule": (lambda: warehouse.market.suppliers, self._shift_regime),
        }
        self._counts = {"realised": 0, "armed": 0, "void": 0}
        self._doses = {kind: [0, 0.0, 0.0] for type_ in self._mix for kind in KINDS[type_]}

    def strike(self, step: int) -> list[ShockRecord]:
        """Before the tool of this step runs: maybe one shock."""
        strike, type_u, redraw_u, target_u, size_u, notice_u = self._draw()
        if strike >= self._p:
            return []
        self._step = step
        self.notices.lucky = notice_u < 0.5
        type_ = list(self._mix)[weighted(self._mix.values(), type_u)]
        find, hit = self._types[type_]
        targets = find()
        if not targets:
            possible = {other: weight for other, weight in self._mix.items() if self._types[other][0]()}
            if not possible:
                return [self._record(type_, None, "void", None, None, None)]
            type_ = list(possible)[weighted(possible.values(), redraw_u)]
            find, hit = self._types[type_]
            targets = find()
        return [hit(targets, target_u, size_u)]

    def settle(self) -> list[ShockRecord]:
        """After the tool has run: applies the armed shocks that it triggered."""
        effects, self._warehouse.effects = self._warehouse.effects, []
        return [self._lag(it) if isinstance(it, PostingLag) else self._interfere(it) for it in effects]

    def summary(self) -> dict[str, Any]:
        """Log entries by status, and kind → number of realised shocks with their mean nominal and realised dose."""
        kinds = {
            kind: {"n": n, "nominal": round(nominal / n, 6), "realised": round(realised / n, 6)} if n else {"n": 0}
            for kind, (n, nominal, realised) in self._doses.items()
        }
        return {**self._counts, "kinds": kinds}

    # ---------------------------------------------------------------------------------------- targets

    def _on_time(self) -> list[SupplierOrder]:
        return [order for order in self._warehouse.pending.values() if not order.delayed]

    def _well_counted(self) -> list[SupplierOrder]:
        return [order for order in self._warehouse.pending.values() if not order.miscounted]

    def _unarmed(self) -> list[str]:
        world = self._warehouse
        armed = {"posting_lag": world.lag, "interference": world.interference}
        return [kind for kind, shock in armed.items() if shock is None]

    def _pick(self, orders: list[SupplierOrder], u: float) -> SupplierOrder:
        """One of them, the likelier the less reliable its supplier."""
        unreliability = self._warehouse.market.unreliability
        return orders[weighted([unreliability[order.supplier] for order in orders], u)]

    # ---------------------------------------------------------------------------------------- effects

    def _delay(self, orders: list[SupplierOrder], target_u: float, size_u: float) -> ShockRecord:
        order = self._pick(orders, target_u)
        days = integer(size_u, *DELAY_DAYS[self._magnitude])
        order.delayed = True
        order.arrival += days
        self.notices.of_delay(order, days)
        return self._record("temporal", "delay", "realised", order.id, days, days)

    def _miscount(self, orders: list[SupplierOrder], target_u: float, size_u: float) -> ShockRecord:
        order = self._pick(orders, target_u)
        low, high = MULTIPLIER[self._magnitude]
        multiplier = low + size_u * (high - low)
        order.miscounted = True
        order.arriving = max(1, int(order.quantity * multiplier + 0.5))
        self.notices.of_miscount(order)
        realised = abs(order.arriving - order.quantity) / order.quantity
        return self._record("quantity", "miscount", "realised", order.id, abs(multiplier - 1), realised)

    def _arm(self, kinds: list[str], target_u: float, _size_u: float) -> ShockRecord:
        kind = kinds[int(target_u * len(kinds))]
        if kind == "posting_lag":
            lag = self._warehouse.lag = PostingLag(LAG_DAYS[self._magnitude], self._step)
            self.notices.of_lag(lag)
            return self._record("causal", kind, "armed", None, lag.days, None)
        self._warehouse.interference = Interference(self._step, self.notices.lucky)
        return self._record("causal", kind, "armed", None, self._rise, None)

    def _lag(self, lag: PostingLag) -> ShockRecord:
        return self._record("causal", "posting_lag", "realised", None, lag.days, lag.days, lag.struck)

    def _interfere(self, interference: Interference) -> ShockRecord:
        market, order, day = self._warehouse.market, interference.order, self._warehouse.day
        assert order is not None
        raised = market.raise_prices(order.sku, order.supplier, day, day + RISE_DAYS)
        self.notices.lucky = interference.lucky
        self.notices.of_rise(order)
        return self._record(
            "causal", "interference", "realised", order.sku, self._rise, self._rise * raised, interference.struck
        )

    def _shift_regime(self, suppliers: list[str], target_u: float, _size_u: float) -> ShockRecord:
        market = self._warehouse.market
        supplier = suppliers[weighted(market.unreliability.values(), target_u)]
        factor = LEAD_FACTOR[self._magnitude]
        change = market.shift_leads(supplier, 1.0 if market.actual_factor[supplier] != 1.0 else factor)
        self.notices.of_shift(supplier)
        return self._record("rule", "regime_shift", "realised", supplier, factor - 1, change)

    def _record(
        self,
        type_: str,
        kind: str | None,
        status: Status,
        target: str | None,
        nominal: float | None,
        realised: float | None,
        struck: int | None = None,
    ) -> ShockRecord:
        self._counts[status] += 1
        if kind is not None and nominal is not None and realised is not None:
            nominal, realised = round(nominal, 6), round(realised, 6)
            dose = self._doses[kind]
            dose[0] += 1
            dose[1] += nominal
            dose[2] += realised
        struck = self._step if struck is None else struck
        return ShockRecord(struck, type_, kind, status, target, nominal, realised)
