"""What a control knows: the visible conversation, folded turn by turn.

Nothing else is remembered: a view made anew from the visible messages equals the one that was carried along.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vendomini.engines.base import Message
from vendomini.engines.controls.transcript import (
    Call,
    Catalogue,
    CustomerOrder,
    Observation,
    Result,
    SupplierOrder,
    read_call,
    read_catalogue,
    read_turn,
)

_SURPRISE_MEMORY = 0.05
"""Weight of the newest turn in :attr:`View.surprise`."""


class Terms(NamedTuple):
    """What a supplier asks for one unit, and the days until delivery."""

    unit_price: float
    lead_days: int


TermsBook = dict[str, dict[str, Terms]]
"""SKU → supplier → its terms."""


@dataclass(slots=True)
class View:
    """The conversation so far. What is known of stock and orders can be out of date; the counts in the observation
    tell (:attr:`stock_current`, :attr:`pending_current`, :attr:`customers_current`).

    Attributes:
        observation: the newest.
        result: of the last call; None before the first.
        last_text: one's own newest completion; empty where none is visible.
        last_call: the call in it; None where there is none.
        repeats: how often in a row that call was made.
        stock: units by SKU, and ``units`` their sum.
        pending: supplier orders under way, by id.
        customers: customer orders that wait, by id.
        advertised: SKU → supplier → the terms it quoted, until a notice says that they changed.
        learned: SKU → supplier → the terms it kept to: quoted at first, then charged, then the days it took.
        placed: day on which each supplier order of one's own was placed.
        sale_prices: SKU → what the newest customer for it pays.
        surprise: moving share of turns that showed something else than suppliers had promised.
    """

    catalogue: Catalogue
    observation: Observation
    result: Result | None = None
    last_text: str = ""
    last_call: Call | None = None
    repeats: int = 0
    stock: dict[str, int] = field(default_factory=dict)
    units: int = 0
    pending: dict[str, SupplierOrder] = field(default_factory=dict)
    customers: dict[str, CustomerOrder] = field(default_factory=dict)
    advertised: TermsBook = field(default_factory=dict)
    learned: TermsBook = field(default_factory=dict)
    placed: dict[str, int] = field(default_factory=dict)
    sale_prices: dict[str, float] = field(default_factory=dict)
    surprise: float = 0.0

    @property
    def stock_current(self) -> bool:
        return self.units == self.observation.storage_used

    @property
    def pending_current(self) -> bool:
        return len(self.pending) == self.observation.pending_supplier_orders

    @property
    def customers_current(self) -> bool:
        return len(self.customers) == self.observation.open_customer_orders

    def say(self, text: str, call: Call | None) -> None:
        """Takes note of one's own completion."""
        self.repeats = self.repeats + 1 if call is not None and call == self.last_call else 1
        self.last_text, self.last_call = text, call

    def see(self, result: Result | None, observation: Observation) -> None:
        """Takes note of a user turn."""
        before, self.result = self.observation, result
        promised = self.stock_current
        if result is not None:
            self._learn(result)
        if observation.day != before.day:
            self._receive(before.day, observation)
        self.observation = observation
        surprised = (promised and not self.stock_current) or self._overdue(observation.day)
        self.surprise += _SURPRISE_MEMORY * (surprised - self.surprise)

    def _learn(self, result: Result) -> None:
        call = self.last_call
        if result.stock is not None:
            self.stock, self.units = result.stock, sum(result.stock.values())
        elif result.supplier_orders is not None and result.customer_orders is not None:
            self._took_over(result.supplier_orders)
            self.customers = {order.customer_order_id: order for order in result.customer_orders}
            self.sale_prices.update((order.sku, order.unit_price) for order in result.customer_orders)
        elif result.messages is not None:
            self._read_notices(result.messages)
        elif call is not None:
            self._learn_from(call, result)

    def _learn_from(self, call: Call, result: Result) -> None:
        tool, arguments = call
        if tool == "tool_ship_customer_order":
            self._shipped(arguments.get("customer_order_id", ""), result.ok)
        elif not result.ok:
            return
        elif tool == "tool_quote" and result.unit_price is not None and result.lead_days is not None:
            supplier, sku = arguments["supplier_id"], arguments["sku"]
            terms = Terms(result.unit_price, result.lead_days)
            self.advertised.setdefault(sku, {})[supplier] = terms
            self.learned.setdefault(sku, {})[supplier] = terms
        elif tool == "tool_order" and result.order_id is not None:
            self._ordered(arguments, result)

    def _ordered(self, arguments: dict[str, Any], result: Result) -> None:
        supplier, sku, quantity = arguments["supplier_id"], arguments["sku"], arguments["quantity"]
        today = self.observation.day
        eta_day = today if result.eta_day is None else result.eta_day
        self.pending[result.order_id or ""] = SupplierOrder(result.order_id or "", supplier, sku, quantity, eta_day)
        self.placed[result.order_id or ""] = today
        known = self.learned.setdefault(sku, {})
        lead_days = known[supplier].lead_days if supplier in known else eta_day - today
        known[supplier] = Terms((result.cost or 0.0) / quantity, lead_days)

    def _took_over(self, orders: list[SupplierOrder]) -> None:
        """The list of what is under way is new; what was on the old one has come by now."""
        pending = {order.order_id: order for order in orders}
        for order_id in self.pending.keys() - pending.keys():
            self._came(self.pending[order_id], self.observation.day)
        self.pending = pending

    def _came(self, order: SupplierOrder, day: int) -> None:
        known, placed = self.learned.get(order.sku, {}), self.placed.pop(order.order_id, None)
        if placed is not None and order.supplier_id in known:
            known[order.supplier_id] = known[order.supplier_id]._replace(lead_days=day - placed)

    def _shipped(self, customer_order_id: str, ok: bool) -> None:
        if not ok:
            self.customers.clear()  # what was believed of them is wrong: look again
            return
        order = self.customers.pop(customer_order_id, None)
        if order is not None:
            self.stock[order.sku] = self.stock.get(order.sku, 0) - order.quantity
            self.units -= order.quantity

    def _receive(self, yesterday: int, observation: Observation) -> None:
        """Books what was due since yesterday, unless the count of pending orders denies that it came; drops customers
        who will have gone."""
        due = [order for order in self.pending.values() if yesterday < order.eta_day <= observation.day]
        if len(self.pending) - len(due) == observation.pending_supplier_orders:
            for order in due:
                del self.pending[order.order_id]
                self._came(order, order.eta_day)
                self.stock[order.sku] = self.stock.get(order.sku, 0) + order.quantity
                self.units += order.quantity
        gone = [key for key, order in self.customers.items() if order.expires_day < observation.day]
        for key in gone:
            del self.customers[key]

    def _read_notices(self, messages: list[dict[str, Any]]) -> None:
        """Advertised terms that a notice touches are to be asked for again."""
        for message in messages:
            supplier, sku = message.get("supplier_id"), message.get("sku")
            for known in self.advertised.values() if sku is None else [self.advertised.get(sku, {})]:
                if supplier is None:
                    known.clear()
                else:
                    known.pop(supplier, None)

    def _overdue(self, day: int) -> bool:
        return any(order.eta_day < day for order in self.pending.values())


def fold(messages: list[Message], view: View | None = None, start: int = 0) -> View:
    """The view of a conversation: of all its messages, or of those from ``start`` on, added to ``view``.

    Raises:
        EngineError: a message is not in the form that the prompt promises.
    """
    for message in messages[start:]:
        role, content = message["role"], message["content"]
        if role == "user":
            result, observation = read_turn(content)
            if view is None:
                view = View(read_catalogue(messages[0]["content"]), observation)
            view.see(result, observation)
        elif role == "assistant" and view is not None:
            view.say(content, read_call(content))
    assert view is not None, "a prompt ends with a user turn"
    return view
