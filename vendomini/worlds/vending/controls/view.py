"""What a control knows: the visible conversation, folded turn by turn.

Nothing else is remembered: a view rebuilt from the visible messages equals the one that was updated turn by turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from vendomini.worlds.conversation import Message
from vendomini.worlds.vending.answers import Answer, CustomerLine, Letter, Observation, SupplierLine
from vendomini.worlds.vending.controls.notebook import KEY, Notes, Terms, TermsBook, from_text
from vendomini.worlds.vending.controls.transcript import (
    Call,
    Catalogue,
    evident_call,
    read_call,
    read_catalogue,
    read_turn,
)
from vendomini.worlds.vending.orders import EXPIRY_DAYS

_SURPRISE_MEMORY = 0.2
"""Weight of the newest delivery in :attr:`View.surprise`."""

UNKNOWN = -1_000_000
"""Units, far from anything that can be observed even with deliveries added. Two errors may cancel out in a sum, so a
count found wrong stays unknown until it is looked up."""

LONG_AGO = -10_000
"""A day before every episode."""


@dataclass(slots=True)
class View:
    """The conversation so far. What is known of stock and orders can be out of date; the counts in the observation show
    it (:attr:`stock_current`, :attr:`pending_current`, :attr:`customers_current`).

    Attributes:
        observation: the newest.
        last_text: the control's own newest completion; empty where none is visible.
        last_call: the call in it; None where there is none.
        stock: units by SKU, and ``units`` their sum; :data:`UNKNOWN` where they have to be looked up.
        pending: supplier orders under way, by id.
        customers: customer orders that wait, by id, those who leave first at the front.
        newest_customer: the highest number of a customer order seen; older ones that are not in ``customers`` are gone.
        sale_prices: SKU → what customers pay for a unit.
        advertised: SKU → supplier → the terms it quoted, until a notice says that they changed.
        learned: SKU → supplier → the terms it kept to: quoted at first, then charged, then the days it took.
        placed: day on which each of the control's supplier orders was placed.
        noted: what is on the scratchpad; None where no visible turn shows it.
        booking_late: whether a notice said that the next charge or revenue is booked later.
        promises: day and quantity promised for each of the control's supplier orders that has not come yet.
        surprise: exponentially weighted share of deliveries that came on another day or in another quantity than
            promised.
    """

    catalogue: Catalogue
    observation: Observation
    last_text: str = ""
    last_call: Call | None = None
    stock: dict[str, int] = field(default_factory=dict)
    units: int = UNKNOWN
    pending: dict[str, SupplierLine] = field(default_factory=dict)
    customers: dict[str, CustomerLine] = field(default_factory=dict)
    newest_customer: int = 0
    sale_prices: dict[str, float] = field(default_factory=dict)
    advertised: TermsBook = field(default_factory=dict)
    learned: TermsBook = field(default_factory=dict)
    placed: dict[str, int] = field(default_factory=dict)
    noted: Notes | None = None
    booking_late: bool = False
    promises: dict[str, tuple[int, int]] = field(default_factory=dict)
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

    # --------------------------------------------------------------------------------------- what is said

    def see(self, result: Answer | None, observation: Observation) -> None:
        """Records a user turn."""
        before = self.observation
        listed = len(self.pending) == before.pending_supplier_orders
        if result is not None and (call := self.last_call or evident_call(result)) is not None:
            listed = listed or result.supplier_orders is not None
            self._learn(call, result)
        if observation.day != before.day:
            self._pass_night(before.day, observation, listed)
        self.observation = observation
        if self.units != observation.storage_used:
            self.units = UNKNOWN

    def _learn(self, call: Call, result: Answer) -> None:
        """Records what a call showed, by its tool."""
        tool, arguments = call
        if tool == "tool_ship_customer_order":
            self._shipped(arguments.get("customer_order_id", ""), result.ok)
        elif tool == "tool_read_scratchpad":
            self._recall(from_text(result.value or ""))
        elif not result.ok:
            return
        elif tool == "tool_quote" and result.unit_price is not None and result.lead_days is not None:
            supplier, sku = arguments["supplier_id"], arguments["sku"]
            terms = Terms(result.unit_price, result.lead_days, self.observation.day)
            self.advertised.setdefault(sku, {})[supplier] = terms
            self.learned.setdefault(sku, {}).setdefault(supplier, terms)
        elif tool == "tool_order" and result.order_id and result.eta_day is not None and result.cost is not None:
            self._ordered(arguments, result.order_id, result.eta_day, result.cost)
        elif tool == "tool_check_inbox" and result.messages is not None:
            for letter in result.messages:
                self._read(letter)
        elif tool == "tool_check_orders" and result.supplier_orders is not None and result.customer_orders is not None:
            self._take_over(result.supplier_orders, result.customer_orders)
        elif tool == "tool_check_storage" and result.stock is not None:
            self.stock, self.units = dict(result.stock), sum(result.stock.values())
        elif tool == "tool_write_scratchpad" and arguments["key"] == KEY:
            self.noted = from_text(arguments["value"])

    def _recall(self, notes: Notes) -> None:
        """Fills in from the notes what the visible turns do not show."""
        self.noted = notes
        for sku, (supplier, terms) in notes.items():
            for book in (self.advertised, self.learned):
                book.setdefault(sku, {}).setdefault(supplier, terms)

    # -------------------------------------------------------------------------------------------- orders

    def _ordered(self, arguments: dict[str, Any], order_id: str, eta_day: int, cost: float) -> None:
        supplier, sku, quantity = arguments["supplier_id"], arguments["sku"], arguments["quantity"]
        today = self.observation.day
        self.pending[order_id] = SupplierLine(order_id, supplier, sku, quantity, eta_day, cost)
        self.placed[order_id] = today
        self.promises[order_id] = eta_day, quantity
        known = self.learned.setdefault(sku, {})
        lead_days = known[supplier].lead_days if supplier in known else eta_day - today
        known[supplier] = Terms(cost / quantity, lead_days, today)
        self.booking_late = False

    def _shipped(self, customer_order_id: str, ok: bool) -> None:
        if not ok:
            self.customers.clear()  # what was believed of them or of the stock is wrong: look again
            self.units = UNKNOWN
            return
        self.booking_late = False
        order = self.customers.pop(customer_order_id, None)
        if order is not None:
            self._store(order.sku, -order.quantity)

    def _take_over(self, pending: list[SupplierLine], customers: list[CustomerLine]) -> None:
        """Takes a new list of what is under way; orders missing from it have arrived by now."""
        under_way = {order.order_id: order for order in pending}
        for order_id in self.pending.keys() - under_way.keys():
            self._came(self.pending[order_id], self.observation.day)
        self.pending = under_way
        self.customers = {order.customer_order_id: order for order in customers}
        self.sale_prices.update((order.sku, order.unit_price) for order in customers if order.unit_price is not None)
        self.newest_customer = max(self.newest_customer, *map(_number, self.customers), 0)

    def _came(self, order: SupplierLine, day: int) -> None:
        known, placed = self.learned.get(order.sku, {}), self.placed.pop(order.order_id, None)
        if placed is not None and order.supplier_id in known:
            known[order.supplier_id] = known[order.supplier_id]._replace(lead_days=day - placed)

    def _store(self, sku: str, units: int) -> None:
        self.stock[sku] = self.stock.get(sku, 0) + units
        self.units += units

    def _pass_night(self, yesterday: int, observation: Observation, listed: bool) -> None:
        """Books what was due since yesterday, if all orders under way were known, none was overdue, and their count now
        shows that it came; drops customers who have gone."""
        today, under_way = observation.day, observation.pending_supplier_orders
        due, overdue = [], False
        for order in self.pending.values():
            if order.eta_day <= yesterday:
                overdue = True
            elif order.eta_day <= today:
                due.append(order)
        late = listed and len(self.pending) == under_way
        came = listed and not overdue and len(self.pending) - len(due) == under_way
        for order in [] if late else due:
            del self.pending[order.order_id]
            if came:
                self._came(order, order.eta_day)
                self._store(order.sku, order.quantity)
        for key in [key for key, order in self.customers.items() if order.expires_day < today]:
            del self.customers[key]

    # ---------------------------------------------------------------------------------------------- mail

    def _read(self, letter: Letter) -> None:
        if letter.kind == "customer_order":
            self._welcome(letter)
        elif letter.kind == "delivery":
            order = self.pending.pop(letter.order_id, None)
            if order is not None:
                self._came(order, letter.day)
            self._compare(letter)
        elif letter.kind == "expired":
            self.customers.pop(letter.customer_order_id, None)
        else:
            self._apply_notice(letter)

    def _welcome(self, letter: Letter) -> None:
        """A new customer. Mail does not state the price; the last customer for the SKU paid the same."""
        number, price = _number(letter.customer_order_id), self.sale_prices.get(letter.sku)
        if number <= self.newest_customer or letter.quantity is None:
            return
        self.newest_customer = number
        self.customers[letter.customer_order_id] = CustomerLine(
            letter.customer_order_id, letter.sku, letter.quantity, price, letter.due_day, letter.day + EXPIRY_DAYS
        )

    def _compare(self, delivery: Letter) -> None:
        """Compares a delivery with what was promised when it was ordered."""
        promise = self.promises.pop(delivery.order_id, None)
        if promise is not None:
            self.surprise += _SURPRISE_MEMORY * (((delivery.day, delivery.quantity) != promise) - self.surprise)

    def _apply_notice(self, notice: Letter) -> None:
        """Corrects what a notice is about if it says how, and otherwise marks it to be asked for again."""
        order = self.pending.get(notice.order_id)
        if notice.shock == "delay" and order is not None and notice.eta_day is not None:
            self.pending[order.order_id] = replace(order, eta_day=notice.eta_day)
        elif notice.shock == "miscount" and order is not None and notice.quantity is not None:
            self.pending[order.order_id] = replace(order, quantity=notice.quantity)
        elif notice.shock == "posting_lag":
            self.booking_late = notice.text.startswith("The next")
        elif notice.shock == "interference":
            _doubt(self.advertised.get(notice.sku, {}))
        elif notice.shock == "regime_shift":
            for known in self.advertised.values():
                _doubt(known, notice.supplier_id)


def _doubt(known: dict[str, Terms], *suppliers: str) -> None:
    """Marks terms as out of date: those of some suppliers, or of all."""
    for supplier in suppliers or list(known):
        if supplier in known:
            known[supplier] = known[supplier]._replace(day=LONG_AGO)


def _number(customer_order_id: str) -> int:
    return int(customer_order_id[1:])


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
                noted: Notes | None = {} if observation.step == 1 else None
                view = View(read_catalogue(messages[0]["content"]), observation, noted=noted)
            view.see(result, observation)
        elif role == "assistant" and view is not None:
            view.last_text, view.last_call = content, read_call(content)
    assert view is not None, "a prompt ends with a user turn"
    return view
