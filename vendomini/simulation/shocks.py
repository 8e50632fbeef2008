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
target. Nothing compounds: an order is late once and miscounted once, one lag and one interference are armed at a time,
and terms change by a factor on the original ones. A supplier alternates between its two regimes: the shift that strikes
a shifted supplier takes it back.

What shows as which prediction error: a delay or a regime shift as temporal, a miscount as quantity, a posting lag as
causal (the budget is not what it should be; the cost is). Interference changes what is charged, so the one order that
meets it shows it twice, as cost and as causal: they are two views of one surprise, and both are kept.

Notices: a notice copies actual to advertised, so quotes and order lists are right from then on; ``partial`` only leaves
the amount out of the message. A posting lag is announced when it is armed, an interference when it takes effect.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from vendomini.config.schema import PEInduction
from vendomini.simulation.randomness import integer, uniforms
from vendomini.simulation.world import Interference, PostingLag, SupplierOrder, World

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
RISE_DAYS = 10
LEAD_FACTOR = {"low": 1.25, "medium": 1.5, "high": 2.0}

KINDS = {
    "temporal": ("delay",),
    "quantity": ("miscount",),
    "causal": ("posting_lag", "interference"),
    "rule": ("regime_shift",),
}
"""type → the kinds of shock it has."""

ShockRecord = dict[str, Any]


class Shocks:
    """Strikes the world and tells the agent, or not.

    Every step takes five variates of the stream ``shocks`` and one of ``notices``, used or not: with one seed, the
    shocks at p_shock 0.3 are among those at 0.4, at the same steps.

    Attributes:
        counts: status → number of log entries.
        doses: kind → [number, sum of nominal, sum of realised] of the realised ones.
    """

    def __init__(self, induction: PEInduction, world: World, seed: int) -> None:
        self._world = world
        self._p = induction.p_shock
        self._mix = MIXES[induction.pe_type_mix]
        self._magnitude = induction.pe_mag
        self._observability = induction.observability
        self._notice_delay = induction.notice_delay_days
        draws = uniforms(seed, "shocks")
        self._draws = zip(draws, draws, draws, draws, draws, uniforms(seed, "notices"), strict=False).__next__
        self._notices: deque[tuple[int, Callable[[Any, bool], None], Any]] = deque()
        self._step = 0
        self._told_partially = False
        self._strikes: dict[str, Callable[[float, float], ShockRecord]] = {
            "temporal": self._delay,
            "quantity": self._miscount,
            "causal": self._interfere,
            "rule": self._shift_regime,
        }
        self.counts: Counter[str] = Counter()
        self.doses: dict[str, list[float]] = {kind: [0, 0.0, 0.0] for type_ in self._mix for kind in KINDS[type_]}

    def strike(self, step: int) -> list[ShockRecord]:
        """Before the tool of this step runs: maybe one shock."""
        strike, kind_u, redraw_u, target_u, size_u, notice_u = self._draws()
        if strike >= self._p:
            return []
        self._step = step
        self._told_partially = notice_u < 0.5
        kind = _choose(self._mix, kind_u)
        if not self._has_target(kind):
            possible = {other: weight for other, weight in self._mix.items() if self._has_target(other)}
            if not possible:
                return [self._record(kind, "none", "void", None, None, None)]
            kind = _choose(possible, redraw_u)
        return [self._strikes[kind](target_u, size_u)]

    def settle(self) -> list[ShockRecord]:
        """After the tool ran: what armed shocks it set off."""
        records = []
        for effect in self._world.effects:
            if isinstance(effect, PostingLag):
                records.append(self._realise_lag(effect))
            else:
                records.append(self._realise_interference(effect))
        self._world.effects.clear()
        return records

    def morning(self) -> None:
        """Notices that fell due go to the inbox."""
        notices, day = self._notices, self._world.day
        while notices and notices[0][0] <= day:
            _, tell, subject = notices.popleft()
            tell(subject, True)

    def summary(self) -> dict[str, Any]:
        """Counts by status, and for each kind of the mix the realised shocks with their mean nominal and realised dose."""
        doses = {
            kind: {"n": n, "nominal": round(nominal / n, 6), "realised": round(realised / n, 6)} if n else {"n": 0}
            for kind, (n, nominal, realised) in self.doses.items()
        }
        counts = {status: self.counts[status] for status in ("realised", "armed", "void")}
        return counts | {"kinds": doses}

    # ---------------------------------------------------------------------------------------- targets

    def _has_target(self, kind: str) -> bool:
        world = self._world
        if kind == "temporal":
            return any(not order.delayed for order in world.pending.values())
        if kind == "quantity":
            return any(not order.miscounted for order in world.pending.values())
        if kind == "causal":
            return world.lag is None or world.interference is None
        return True

    def _pick(self, orders: list[SupplierOrder], u: float) -> SupplierOrder:
        """One of them, the likelier the less reliable its supplier."""
        reliability = self._world.market.reliability
        return orders[_weighted([1.0 - reliability[order.supplier] for order in orders], u)]

    # ---------------------------------------------------------------------------------------- effects

    def _delay(self, target_u: float, size_u: float) -> ShockRecord:
        order = self._pick([order for order in self._world.pending.values() if not order.delayed], target_u)
        days = integer(size_u, *DELAY_DAYS[self._magnitude])
        order.delayed = True
        order.arrival += days
        self._notify(self._tell_delay, (order, days), self._told_partially)
        return self._record("temporal", "delay", "realised", order.id, days, days)

    def _miscount(self, target_u: float, size_u: float) -> ShockRecord:
        order = self._pick([order for order in self._world.pending.values() if not order.miscounted], target_u)
        low, high = MULTIPLIER[self._magnitude]
        multiplier = low + size_u * (high - low)
        order.miscounted = True
        order.arriving = max(1, int(order.quantity * multiplier + 0.5))
        self._notify(self._tell_miscount, order, self._told_partially)
        realised = abs(order.arriving - order.quantity) / order.quantity
        return self._record("quantity", "miscount", "realised", order.id, abs(multiplier - 1), realised)

    def _interfere(self, _target_u: float, size_u: float) -> ShockRecord:
        """Half the causal shocks are lags, half interferences, as far as not armed already."""
        world = self._world
        origin = (self._step, self._told_partially)
        if world.lag is None and (size_u < 0.5 or world.interference is not None):
            world.lag = PostingLag(LAG_DAYS[self._magnitude], origin)
            self._notify(self._tell_lag, world.lag, self._told_partially)
            return self._record("causal", "posting_lag", "armed", None, world.lag.days, None)
        world.interference = Interference(origin)
        return self._record("causal", "interference", "armed", None, RISE_PERCENT[self._magnitude] / 100, None)

    def _realise_lag(self, lag: PostingLag) -> ShockRecord:
        return self._record("causal", "posting_lag", "realised", None, lag.days, lag.days, struck=lag.origin[0])

    def _realise_interference(self, effect: Interference) -> ShockRecord:
        market, order, day = self._world.market, effect.order, self._world.day
        assert order is not None
        others = [supplier for supplier in market.suppliers if supplier != order.supplier]
        fresh = sum(market.actual_until[supplier][order.sku] <= day for supplier in others)
        market.raise_prices(order.sku, order.supplier, day + RISE_DAYS)
        struck, told_partially = effect.origin
        self._notify(self._tell_rise, order, told_partially)
        rise = RISE_PERCENT[self._magnitude] / 100
        return self._record(
            "causal", "interference", "realised", order.sku, rise, rise * fresh / len(others), struck=struck
        )

    def _shift_regime(self, target_u: float, _size_u: float) -> ShockRecord:
        market = self._world.market
        supplier = market.suppliers[_weighted([1.0 - market.reliability[name] for name in market.suppliers], target_u)]
        factor = LEAD_FACTOR[self._magnitude]
        before = [market.actual_lead(supplier, sku) for sku in market.skus]
        market.actual_factor[supplier] = factor if market.actual_factor[supplier] == 1.0 else 1.0
        after = [market.actual_lead(supplier, sku) for sku in market.skus]
        self._notify(self._tell_shift, supplier, self._told_partially)
        change = sum(abs(new / old - 1) for old, new in zip(before, after, strict=True)) / len(before)
        return self._record("rule", "regime_shift", "realised", supplier, factor - 1, change)

    def _record(
        self,
        type_: str,
        kind: str,
        status: str,
        target: str | None,
        nominal: float | None,
        realised: float | None,
        struck: int | None = None,
    ) -> ShockRecord:
        self.counts[status] += 1
        if nominal is not None and realised is not None:
            nominal, realised = round(nominal, 6), round(realised, 6)
            dose = self.doses[kind]
            dose[0] += 1
            dose[1] += nominal
            dose[2] += realised
        return {
            "struck": self._step if struck is None else struck,
            "type": type_,
            "kind": kind,
            "status": status,
            "target": target,
            "nominal": nominal,
            "realised": realised,
        }

    # ---------------------------------------------------------------------------------------- notices

    def _notify(self, tell: Callable[[Any, bool], None], subject: Any, told_partially: bool) -> None:
        """Tells at once, later, by half, or never. ``tell(subject, exact)`` copies actual to advertised and posts."""
        if self._observability == "full" or (self._observability == "delayed" and self._notice_delay == 0):
            tell(subject, True)
        elif self._observability == "delayed":
            self._notices.append((self._world.day + self._notice_delay, tell, subject))
        elif self._observability == "partial" and told_partially:
            tell(subject, False)

    def _tell_delay(self, subject: tuple[SupplierOrder, int], exact: bool) -> None:
        order, days = subject
        order.promised = order.arrival
        if exact:
            text = f"Order {order.id} is late by {days} days: it arrives on day {order.arrival}."
            self._post("delay", text, order_id=order.id, days=days, eta_day=order.arrival)
        else:
            self._post("delay", f"Order {order.id} is late.", order_id=order.id)

    def _tell_miscount(self, order: SupplierOrder, exact: bool) -> None:
        order.announced = order.arriving
        if exact:
            text = f"Order {order.id} will bring {order.arriving} units instead of {order.quantity}."
            self._post("miscount", text, order_id=order.id, quantity=order.arriving)
        else:
            self._post("miscount", f"Order {order.id} will not bring the quantity ordered.", order_id=order.id)

    def _tell_lag(self, lag: PostingLag, exact: bool) -> None:
        lag.announced = True
        what = "The next charge or revenue" if lag.due < 0 else "A charge or revenue"
        if exact:
            self._post("posting_lag", f"{what} is booked {lag.days} days late.", days=lag.days)
        else:
            self._post("posting_lag", f"{what} is booked late.")

    def _tell_rise(self, order: SupplierOrder, exact: bool) -> None:
        market = self._world.market
        market.advertise_prices(order.sku)
        text = f"Your order {order.id} raised the price of {order.sku} at the suppliers other than {order.supplier}"
        details = {"sku": order.sku, "spared_supplier_id": order.supplier}
        if exact:
            percent = market.rise_percent
            text += f" by {percent} % for {RISE_DAYS} days"
            self._post("interference", text + ".", **details, percent=percent, days=RISE_DAYS)
        else:
            self._post("interference", text + ".", **details)

    def _tell_shift(self, supplier: str, exact: bool) -> None:
        market = self._world.market
        market.advertise_leads(supplier)
        factor = market.actual_factor[supplier]
        if exact:
            text = f"Lead times of {supplier} are now {factor:g} times its original ones."
            self._post("regime_shift", text, supplier_id=supplier, factor=factor)
        else:
            self._post("regime_shift", f"Lead times of {supplier} have changed.", supplier_id=supplier)

    def _post(self, shock: str, text: str, **details: Any) -> None:
        self._world.post("notice", text, shock=shock, **details)


def _choose(weights: dict[str, float], u: float) -> str:
    return list(weights)[_weighted(list(weights.values()), u)]


def _weighted(weights: Sequence[float], u: float) -> int:
    """The index that ``u`` in [0, 1) falls on when the weights are laid end to end."""
    rest = u * sum(weights)
    for index, weight in enumerate(weights):
        rest -= weight
        if rest < 0:
            return index
    return len(weights) - 1
