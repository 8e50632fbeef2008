"""Good stocking within a few calls a day: look when something changed, ship what is there, then buy what is short.

Stock is bought for customers who wait first, then up to an equal share of the storage for each SKU; never more than
fits when everything under way has arrived, and never more than the budget allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from vendomini.worlds.vending.answers import CustomerLine
from vendomini.worlds.vending.controls.control import (
    CHECK_BUDGET,
    CHECK_INBOX,
    CHECK_ORDERS,
    CHECK_STORAGE,
    END_DAY,
    READ_NOTES,
    order,
    quote,
    ship,
    write_notes,
)
from vendomini.worlds.vending.controls.notebook import Terms, TermsBook, cheapest, has_news
from vendomini.worlds.vending.controls.transcript import Call
from vendomini.worlds.vending.controls.view import View

_SHARE = 0.9
"""Share of the storage that is planned for; the rest is for customers who want more than their SKU's share."""
_MOST_PER_SKU = 30
"""Units that a SKU is filled up to where its share is larger."""
_REORDER_AT = 0.6
"""A SKU is bought again when stock and what is under way fall below this share of its target."""
_RESERVE = 60.0
"""Money kept for fees when a customer waits for the goods."""
_STOCKING_RESERVE = 500.0
"""Money kept for such customers when none is waiting."""
_STAKE = 0.25
"""Share of the money above the reserve that one order may take for stock that no customer waits for."""
_NEWS = 8
"""SKUs with news at which the notes are rewritten."""
_FIRST_NEWS = 3
"""News that make up the first notes: few, since a call that looks for notes that were never made fails."""
_COMFORT = 1500.0
"""If there is more money than this, the price does not matter."""
_MANY = 3
"""Customers waiting, at which mail is read in batches of :data:`_BATCH`."""
_BATCH = 12
_SOONEST = 3
"""Fewest days in which goods can be quoted, ordered, delivered and shipped; customers who leave sooner are let go."""
_AGES = 10_000
"""Days: longer than any episode."""


class Need(NamedTuple):
    """A SKU that is short. ``at_least`` units are missing for customers who wait; ``by_day`` is the last useful day."""

    sku: str
    at_least: int
    up_to: int
    by_day: int | None


@dataclass(frozen=True, slots=True)
class Clerk:
    """How a clerk buys.

    Attributes:
        good_price: share of the customer's price at which no further quote is asked for.
        enough_quotes: with so many, the best of them will do if it is not dearer than what customers pay, or if money
            is plentiful.
        fresh_days: terms older than this are asked for again before an order relies on them.
    """

    good_price: float
    enough_quotes: int
    fresh_days: int = _AGES

    def next_call(self, view: View, book: TermsBook) -> Call:
        """What is done next, going by the terms in the book."""
        if _has_mail(view):
            return CHECK_INBOX
        if not view.stock_current:
            return CHECK_STORAGE
        if not view.pending_current:
            return CHECK_ORDERS
        ready = shippable(view)
        if ready is not None:
            return CHECK_ORDERS if ready.unit_price is None else ship(ready.customer_order_id)
        if not view.customers_current:
            return CHECK_ORDERS
        return keep_notes(view, book) or self._buy(view, book) or pass_time(view)

    def _buy(self, view: View, book: TermsBook) -> Call | None:
        now = view.observation
        under_way = sum(pending.quantity for pending in view.pending.values())
        space = now.storage_capacity - now.storage_used - under_way
        if space <= 0 or now.budget <= _RESERVE:
            return None
        for need in _needs(view):
            call = self._procure(view, need, space, book.get(need.sku, {}))
            if call is not None:
                return call
        return None

    def _procure(self, view: View, need: Need, space: int, known: dict[str, Terms]) -> Call | None:
        """The order that meets a need, or the quote to ask for first; None if it can't be paid for or stored."""
        if need.by_day is not None and need.sku not in view.sale_prices:
            return CHECK_ORDERS
        supplier = self._choose(view, need, known)
        if supplier is None:
            unknown = [name for name in view.catalogue.suppliers if name not in known]
            return quote(unknown[view.observation.step % len(unknown)], need.sku, need.up_to)
        if view.observation.day - known[supplier].day > self.fresh_days:
            return quote(supplier, need.sku, need.up_to)
        reserve = _RESERVE if need.by_day is not None else _STOCKING_RESERVE
        affordable = int((view.observation.budget - reserve) / known[supplier].unit_price)
        quantity = min(need.up_to, space, max(int(affordable * _STAKE), need.at_least))
        return order(supplier, need.sku, quantity) if need.at_least <= min(quantity, affordable) else None

    def _choose(self, view: View, need: Need, known: dict[str, Terms]) -> str | None:
        """The cheapest known supplier, of those in time if there are any; None if it is better to ask another one."""
        days = _AGES if need.by_day is None else need.by_day - view.observation.day
        in_time = [name for name, terms in known.items() if terms.lead_days <= days]
        best = min(in_time or known, key=known.__getitem__, default=None)
        if best is None or len(known) == len(view.catalogue.suppliers):
            return best
        price, paid = known[best].unit_price, view.sale_prices.get(need.sku, 0.0)
        enough = len(known) >= self.enough_quotes and (price <= paid or view.observation.budget > _COMFORT)
        return best if enough or price <= self.good_price * paid else None


def keep_notes(view: View, book: TermsBook) -> Call | None:
    """Reads the notes when they are no longer visible, writes them when there is enough to add."""
    if READ_NOTES.tool not in view.catalogue.tools:
        return None
    if view.noted is None:
        return READ_NOTES
    enough = _NEWS if view.noted else _FIRST_NEWS
    return write_notes(cheapest(book)) if has_news(book, view.noted, enough) else None


def _has_mail(view: View) -> bool:
    """Whether to read the mail now: immediately, but in batches while many customers wait."""
    now = view.observation
    batch = 1 if now.open_customer_orders < _MANY else _BATCH
    return now.inbox_unread >= batch and view.last_call != CHECK_INBOX


def shippable(view: View) -> CustomerLine | None:
    """The customer who will leave first of those for whom there is enough in stock."""
    stock = view.stock
    for customer in view.customers.values():
        if customer.quantity <= stock.get(customer.sku, 0):
            return customer
    return None


def pass_time(view: View) -> Call:
    """Ends the day; every other time, keeps up with the market instead."""
    if view.last_call is None or view.last_call.tool != END_DAY.tool:
        return END_DAY
    step, skus, suppliers = view.observation.step, view.catalogue.skus, view.catalogue.suppliers
    if step % 5 == 0:
        return CHECK_BUDGET
    return quote(suppliers[step // len(skus) % len(suppliers)], skus[step % len(skus)], 10)


def _needs(view: View) -> Iterator[Need]:
    """What is short: what customers wait for, those who leave first at the front; then the emptiest shelves."""
    position = dict(view.stock)
    for pending in view.pending.values():
        position[pending.sku] += pending.quantity
    last_chance = view.observation.day + _SOONEST
    waiting = [customer for customer in view.customers.values() if customer.expires_day >= last_chance]
    for customer in waiting:
        position[customer.sku] -= customer.quantity
    target = min(_MOST_PER_SKU, int(_SHARE * view.observation.storage_capacity / len(position)))
    for customer in waiting:
        if position[customer.sku] < 0:
            yield Need(customer.sku, -position[customer.sku], target - position[customer.sku], customer.expires_day)
    if view.observation.budget > _STOCKING_RESERVE:
        for sku, units in sorted(position.items(), key=itemgetter(1)):
            if 0 <= units < _REORDER_AT * target:
                yield Need(sku, 1, target - units, None)
