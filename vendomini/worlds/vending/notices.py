"""Notices: what the agent is told of shocks, and when.

``full`` tells at once, ``delayed`` some days later, ``partial`` of every other shock and without the amount, ``hidden``
never. A notice copies actual to advertised terms, so quotes and order lists are right from then on; ``partial`` leaves
the amount out of the message, for the agent to find there. A posting lag is announced when it is armed, an interference
when it takes effect: when there is something for the agent to act on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from vendomini.worlds.vending.answers import Letter
from vendomini.worlds.vending.config import PEInduction
from vendomini.worlds.vending.orders import PostingLag, SupplierOrder
from vendomini.worlds.vending.warehouse import Warehouse

RISE_DAYS = 10
"""Days for which interference raises prices."""

_Tell = Callable[[bool], None]


class Notices:
    """Tells one agent of shocks, according to its run's observability.

    Attributes:
        lucky: whether ``partial`` observability tells of the current shock; the shock's own variate decides.
    """

    def __init__(self, induction: PEInduction, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._observability = induction.observability
        delayed = induction.observability == "delayed"
        self._delay_days = induction.notice_delay_days if delayed else 0
        self._due: deque[tuple[int, _Tell]] = deque()
        self.lucky = False

    def morning(self) -> None:
        """Sends the notices that are due. All wait equally long, so they come due in order."""
        while self._due and self._due[0][0] <= self._warehouse.day:
            self._due.popleft()[1](True)

    def _notify(self, tell: _Tell) -> None:
        """``tell(exact)`` copies actual to advertised and posts the message, with the amount if exact."""
        if self._observability == "hidden":
            return
        if self._observability == "partial":
            if self.lucky:
                tell(False)
        elif self._delay_days:
            self._due.append((self._warehouse.day + self._delay_days, tell))
        else:
            tell(True)

    def of_delay(self, order: SupplierOrder, days: int) -> None:
        def tell(exact: bool) -> None:
            order.promised = order.arrival
            letter = self._letter("delay", f"Order {order.id} is late.", order_id=order.id)
            if exact:
                text = f"Order {order.id} is late by {days} days: its day is {order.arrival}."
                letter = replace(letter, text=text, days=days, eta_day=order.arrival)
            self._warehouse.inbox.append(letter)

        self._notify(tell)

    def of_miscount(self, order: SupplierOrder) -> None:
        def tell(exact: bool) -> None:
            order.announced = order.arriving
            text = f"Order {order.id} does not bring the quantity ordered."
            letter = self._letter("miscount", text, order_id=order.id)
            if exact:
                text = f"Order {order.id} brings {order.arriving} units instead of {order.quantity}."
                letter = replace(letter, text=text, quantity=order.arriving)
            self._warehouse.inbox.append(letter)

        self._notify(tell)

    def of_lag(self, lag: PostingLag) -> None:
        def tell(exact: bool) -> None:
            lag.announced = True
            what = "The next charge or revenue" if lag.due is None else "A charge or revenue"
            letter = self._letter("posting_lag", f"{what} is booked late.")
            if exact:
                letter = replace(letter, text=f"{what} is booked {lag.days} days late.", days=lag.days)
            self._warehouse.inbox.append(letter)

        self._notify(tell)

    def of_rise(self, order: SupplierOrder) -> None:
        market = self._warehouse.market
        last_day = self._warehouse.day + RISE_DAYS - 1

        def tell(exact: bool) -> None:
            market.advertise_prices(order.sku)
            text = f"Your order {order.id} raised the price of {order.sku} at all suppliers but {order.supplier}."
            letter = replace(self._letter("interference", text), sku=order.sku, spared_supplier_id=order.supplier)
            if exact:
                text = f"{text[:-1]} by {market.rise_percent} % up to day {last_day}."
                letter = replace(letter, text=text, percent=market.rise_percent, last_day=last_day)
            self._warehouse.inbox.append(letter)

        self._notify(tell)

    def of_shift(self, supplier: str) -> None:
        market = self._warehouse.market

        def tell(exact: bool) -> None:
            market.advertise_leads(supplier)
            letter = replace(
                self._letter("regime_shift", f"Lead times of {supplier} have changed."), supplier_id=supplier
            )
            if exact:
                factor = market.actual_factor[supplier]
                text = f"Lead times of {supplier} are now {factor:g} times its original ones, rounded up."
                letter = replace(letter, text=text, factor=factor)
            self._warehouse.inbox.append(letter)

        self._notify(tell)

    def _letter(self, shock: str, text: str, order_id: str = "") -> Letter:
        return Letter(self._warehouse.day, "notice", text, shock, order_id=order_id)
