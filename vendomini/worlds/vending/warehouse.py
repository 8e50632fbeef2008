"""The physical state of the warehouse: money, stock, orders, inbox, and how a day turns.

Money is kept in integer cents, so that sums are exact. Methods that act expect their preconditions to hold: the tools
check them. Orders leave the tables when they are closed, so everything here is O(open orders) however long an episode.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec.structs import replace

from vendomini.worlds.randomness import integer, poisson
from vendomini.worlds.vending.answers import Letter
from vendomini.worlds.vending.config import VendingConfig
from vendomini.worlds.vending.market import Market
from vendomini.worlds.vending.orders import CustomerOrder, Interference, PostingLag, SupplierOrder

LARGEST_SALE = 20
FAILURE_MEMORY_DAYS = 100
BANKRUPT_EVENINGS = 10
INBOX_CAPACITY = 100
"""Unread messages that are kept; the oldest are dropped first."""


class Warehouse:
    """One warehouse.

    Args:
        market: the suppliers.
        demand_draws: the stream ``demand``; each day takes from it in order, whatever the agent did.

    Attributes:
        changes: rises with every change of stock, bookings, orders, customers or read messages: of anything
            but time, fees, hidden terms and the arrival of notices.
        effects: armed shocks that took effect and that :mod:`shocks` has not collected yet.
    """

    def __init__(self, config: VendingConfig, market: Market, demand_draws: Iterator[float]) -> None:
        simulation, demand = config.simulation, config.demand
        self.market = market
        self.capacity = simulation.storage_capacity
        self.day = 0
        self.cents = round(simulation.initial_budget * 100)
        self.stock = dict.fromkeys(market.skus, simulation.initial_storage_per_sku)
        self.used = sum(self.stock.values())
        self.pending: dict[str, SupplierOrder] = {}
        self.customers: dict[str, CustomerOrder] = {}
        self.inbox: deque[Letter] = deque(maxlen=INBOX_CAPACITY)
        self.lagged: list[PostingLag] = []
        self.lag: PostingLag | None = None
        self.interference: Interference | None = None
        self.effects: list[PostingLag | Interference] = []
        self.orders_total = self.orders_fulfilled = self.orders_expired = 0
        self.changes = 0
        self._orders_placed = 0
        self._red_evenings = 0
        self._failures: deque[int] = deque()
        self._max_failures = demand.max_failures
        self._draw = demand_draws.__next__
        self._rate = config.orders_per_day
        self._sale_price = {sku: round(cents * demand.sale_markup) for sku, cents in market.lowest.items()}
        self._late_penalty = demand.late_penalty
        self._daily_fee = simulation.daily_fee * 100
        self._storage_fee = simulation.storage_fee * 100

    # ------------------------------------------------------------------------------------------ acting

    def place(self, supplier: str, sku: str, quantity: int) -> SupplierOrder:
        """Orders at actual terms, and pays in full."""
        market, day = self.market, self.day
        self._orders_placed += 1
        order = SupplierOrder(
            self._orders_placed,
            supplier,
            sku,
            quantity,
            market.actual_price(supplier, sku, day),
            day + market.actual_lead(supplier, sku),
            day + market.advertised_lead(supplier, sku),
        )
        self.pending[order.id] = order
        self.book(-order.cost)
        if self.interference is not None:
            self.interference.order = order
            self.effects.append(self.interference)
            self.interference = None
        return order

    def ship(self, order: CustomerOrder) -> int:
        """Hands the goods over; returns the revenue in cents."""
        del self.customers[order.id]
        self._take(order.sku, order.quantity)
        self.orders_fulfilled += 1
        revenue = order.unit_price * order.quantity
        if self.day > order.due:
            revenue -= round(revenue * self._late_penalty)
        self.book(revenue)
        return revenue

    def cancel(self, order: SupplierOrder) -> int:
        """Closes an order for a fee of 10 %; returns the refund in cents."""
        del self.pending[order.id]
        refund = order.cost - round(order.cost / 10)
        self.book(refund)
        return refund

    def expedite(self, order: SupplierOrder, cost: int) -> None:
        """Brings an order up to 2 days forward, but not to before tomorrow. The promised day moves with it."""
        tomorrow = self.day + 1
        order.expedited = True
        order.arrival = max(tomorrow, order.arrival - 2)
        order.promised = max(tomorrow, order.promised - 2)
        self.book(-cost)

    def book(self, cents: int) -> None:
        """Books what a tool earned or spent: at once, or late if a posting lag is armed."""
        self.changes += 1
        if self.lag is None or cents == 0:
            self.cents += cents
            return
        self.lag.amount = cents
        self.lag.due = self.day + self.lag.days
        self.lagged.append(self.lag)
        self.effects.append(self.lag)
        self.lag = None

    def _take(self, sku: str, quantity: int) -> None:
        self.stock[sku] -= quantity
        self.used -= quantity

    # --------------------------------------------------------------------------------------- day and night

    def evening(self) -> str | None:
        """Fees, lagged bookings, expired customers. Returns ``bankrupt`` or ``customers_lost`` if that is the end."""
        self.cents -= round(self._daily_fee + self._storage_fee * self.used)
        if self.lagged:
            self._book_lagged()
        self._close_expired()
        self._red_evenings = self._red_evenings + 1 if self.cents < 0 else 0
        if self._red_evenings >= BANKRUPT_EVENINGS:
            return "bankrupt"
        failures = self._failures
        while failures and failures[0] <= self.day - FAILURE_MEMORY_DAYS:
            failures.popleft()
        return "customers_lost" if len(failures) >= self._max_failures else None

    def _book_lagged(self) -> None:
        waiting = []
        for lag in self.lagged:
            if lag.due is not None and lag.due <= self.day:
                self.cents += lag.amount
            else:
                waiting.append(lag)
        self.lagged = waiting

    def _close_expired(self) -> None:
        """Customers leave in the order in which they came, since all wait equally long."""
        while self.customers:
            order = next(iter(self.customers.values()))
            if order.expires > self.day:
                return
            del self.customers[order.id]
            self.orders_expired += 1
            self.changes += 1
            self._failures.append(self.day)
            text = f"Customer order {order.id} has expired."
            self.inbox.append(Letter(self.day, "expired", text, customer_order_id=order.id))

    def morning(self) -> list[SupplierOrder]:
        """Due deliveries arrive, then new customers. Returns the delivered orders."""
        arrived = [order for order in self.pending.values() if order.arrival <= self.day]
        for order in arrived:
            self._deliver(order)
        for _ in range(poisson(self._rate, self._draw)):
            self._welcome()
        return arrived

    def _deliver(self, order: SupplierOrder) -> None:
        """Takes what fits, sends the rest back. A unit that was paid for and not kept is refunded."""
        del self.pending[order.id]
        self.changes += 1
        kept = min(order.arriving, self.capacity - self.used)
        self.stock[order.sku] += kept
        self.used += kept
        text = f"Order {order.id}: {order.arriving} × {order.sku} arrived."
        letter = Letter(
            self.day,
            "delivery",
            text,
            order_id=order.id,
            supplier_id=order.supplier,
            sku=order.sku,
            quantity=order.arriving,
        )
        sent_back = order.arriving - kept
        if sent_back:
            refund = order.unit_price * min(sent_back, max(order.quantity - kept, 0))
            self.cents += refund
            text = f"{text[:-1]}; the storage is full, {sent_back} went back, {refund / 100:.2f} refunded."
            letter = replace(letter, text=text, sent_back=sent_back, refund=refund / 100)
        self.inbox.append(letter)

    def _welcome(self) -> None:
        """A customer arrives: two variates."""
        sku = self.market.skus[integer(self._draw(), 0, len(self.market.skus) - 1)]
        quantity = integer(self._draw(), 1, LARGEST_SALE)
        self.orders_total += 1
        self.changes += 1
        order = CustomerOrder(self.orders_total, sku, quantity, self._sale_price[sku], self.day)
        self.customers[order.id] = order
        self.inbox.append(
            Letter(
                self.day,
                "customer_order",
                f"Customer order {order.id}: {quantity} × {sku}, due on day {order.due}.",
                customer_order_id=order.id,
                sku=sku,
                quantity=quantity,
                due_day=order.due,
            )
        )

    # ------------------------------------------------------------------------------------------- worth

    def net_worth(self) -> float:
        """Budget, what is still to be booked, and stock at the lowest catalogue price."""
        stock = sum(units * self.market.lowest[sku] for sku, units in self.stock.items())
        return (self.cents + sum(lag.amount for lag in self.lagged) + stock) / 100
