"""Good stocking within a few calls a day: look when something changed, ship what is there, then buy what is short.

Stock is bought for customers who wait first, then up to an equal share of the storage for each SKU; never more than
fits when everything under way has arrived, and never more than the budget bears.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vendomini.engines.controls.control import (
    CHECK_BUDGET,
    CHECK_INBOX,
    CHECK_ORDERS,
    CHECK_STORAGE,
    END_DAY,
    order,
    quote,
    ship,
)
from vendomini.engines.controls.transcript import Call, CustomerOrder
from vendomini.engines.controls.view import Terms, TermsBook, View

_SHARE = 0.9
"""Of the storage that is planned for; the rest is for customers who want more than their SKU's share."""
_MOST_PER_SKU = 30
_REORDER_AT = 0.6
"""A SKU is bought again when stock and what is under way fall below this share of its target."""
_RESERVE = 60.0
"""Money kept for fees when a customer waits for the goods."""
_STOCKING_RESERVE = 500.0
"""Money kept for such customers when nobody waits."""
_GOOD_PRICE = 0.85
"""Share of the customer's price at which no further quote is asked for."""


class Need(NamedTuple):
    """A SKU that is short. ``at_least`` units are missing for customers who wait; ``by_day`` is the last useful day."""

    sku: str
    at_least: int
    up_to: int
    by_day: int | None


def next_call(view: View, book: TermsBook, *, shop_around: bool) -> Call:
    """What a good clerk does next.

    Args:
        view: the conversation.
        book: the terms that are believed.
        shop_around: whether to ask several suppliers for quotes before buying, or only one.
    """
    if view.observation.inbox_unread and view.last_call != CHECK_INBOX:
        return CHECK_INBOX
    if not view.stock_current:
        return CHECK_STORAGE
    if not view.pending_current:
        return CHECK_ORDERS
    ready = shippable(view)
    if ready is not None:
        return ship(ready.customer_order_id)
    if not view.customers_current:
        return CHECK_ORDERS
    return _buy(view, book, shop_around) or pass_time(view)


def shippable(view: View) -> CustomerOrder | None:
    """The customer who will leave first of those for whom there is enough in stock."""
    stock = view.stock
    ready = [customer for customer in view.customers.values() if customer.quantity <= stock.get(customer.sku, 0)]
    return min(ready, key=_leaves) if ready else None


def _leaves(customer: CustomerOrder) -> int:
    return customer.expires_day


def pass_time(view: View) -> Call:
    """Ends the day; every other time, keeps up with the market instead."""
    if view.last_call is None or view.last_call.tool != END_DAY.tool:
        return END_DAY
    step, skus, suppliers = view.observation.step, view.catalogue.skus, view.catalogue.suppliers
    if step % 5 == 0:
        return CHECK_BUDGET
    return quote(suppliers[step // len(skus) % len(suppliers)], skus[step % len(skus)], 10)


def _buy(view: View, book: TermsBook, shop_around: bool) -> Call | None:
    now = view.observation
    under_way = sum(pending.quantity for pending in view.pending.values())
    space = now.storage_capacity - now.storage_used - under_way
    if space <= 0 or now.budget <= _RESERVE:
        return None
    for need in _needs(view):
        call = _procure(view, need, space, book.get(need.sku, {}), shop_around)
        if call is not None:
            return call
    return None


def _needs(view: View) -> Iterator[Need]:
    """What is short: first what customers wait for, the most urgent first, then the emptiest shelves."""
    position = dict.fromkeys(view.catalogue.skus, 0)
    position.update(view.stock)
    for pending in view.pending.values():
        position[pending.sku] += pending.quantity
    for customer in view.customers.values():
        position[customer.sku] -= customer.quantity
    target = min(_MOST_PER_SKU, int(_SHARE * view.observation.storage_capacity / len(position)))
    waiting = {c.sku: c.expires_day for c in sorted(view.customers.values(), key=_leaves, reverse=True)}
    for sku in sorted(waiting, key=waiting.__getitem__):
        if position[sku] < 0:
            yield Need(sku, -position[sku], target - position[sku], waiting[sku])
    if view.observation.budget > _STOCKING_RESERVE:
        for sku in sorted(position, key=position.__getitem__):
            if position[sku] >= _REORDER_AT * target:
                return
            if position[sku] >= 0:
                yield Need(sku, 1, target - position[sku], None)


def _procure(view: View, need: Need, space: int, known: dict[str, Terms], shop_around: bool) -> Call | None:
    """The order that meets a need, or the quote that is missing for it; None if it can't be paid or stored."""
    supplier = _good_supplier(view, need, known) if shop_around else next(iter(known), None)
    if supplier is None:
        unknown = [name for name in view.catalogue.suppliers if name not in known]
        if unknown:
            return quote(unknown[view.observation.step % len(unknown)], need.sku, need.up_to)
        supplier = min(known, key=known.__getitem__)
    reserve = _RESERVE if need.by_day is not None else _STOCKING_RESERVE
    affordable = int((view.observation.budget - reserve) / known[supplier].unit_price)
    quantity = min(need.up_to, space, affordable)
    return order(supplier, need.sku, quantity) if quantity >= need.at_least else None


def _good_supplier(view: View, need: Need, known: dict[str, Terms]) -> str | None:
    """The cheapest known supplier that delivers in time at a price with which no further quote is worth its time."""
    limit = _GOOD_PRICE * view.sale_prices.get(need.sku, 0.0)
    days = 999 if need.by_day is None else need.by_day - view.observation.day
    good = [name for name, terms in known.items() if terms.unit_price <= limit and terms.lead_days <= days]
    return min(good, key=known.__getitem__) if good else None
