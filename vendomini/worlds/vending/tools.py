"""The tools of the warehouse, in a table: what each is called, what it takes, and what it does.

A tool is a function of the shop and its arguments, and an entry in :data:`TOOLS`; adding one takes nothing else.
Arguments have been validated against the schema when it runs; it checks nothing but the state of the world.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from vendomini.worlds.aids import MAX_KEY_CHARACTERS, aid_specs
from vendomini.worlds.protocol import Promise, Result, ToolSpec
from vendomini.worlds.tools import Handler, Schema, choice, describe, integer, refuse, text, unknown
from vendomini.worlds.vending.answers import Answer, CustomerLine, Expedited, SupplierLine
from vendomini.worlds.vending.config import VendingConfig
from vendomini.worlds.vending.market import sku_ids, supplier_ids
from vendomini.worlds.vending.warehouse import Warehouse

MAX_QUANTITY = 100_000
MESSAGES_AT_ONCE = 20
NO_FUNDS = "insufficient_funds"

DAY, QUANTITY = "expected_delivery_day", "expected_quantity"
"""What a prediction card can state about a delivery."""


class Shop:
    """What the tools act on, and what the last call did.

    Attributes:
        charged: in cents; None where nothing was.
        promise: the delivery that it set going or changed.
        day_ended: it ended the day.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.forget()

    def forget(self) -> None:
        """Before a call: the last one is over."""
        self.charged: int | None = None
        self.promise: Promise | None = None
        self.day_ended = False


# -------------------------------------------------------------------------------------------- suppliers


def _order(shop: Shop, supplier: str, sku: str, quantity: int) -> Result:
    warehouse = shop.warehouse
    cost = warehouse.market.actual_price(supplier, sku, warehouse.day) * quantity
    if cost > warehouse.cents:
        return _too_dear("The order", cost, warehouse.cents)
    order = warehouse.place(supplier, sku, quantity)
    shop.promise, shop.charged = Promise(order.id, opens=(DAY, QUANTITY)), cost
    return Answer(True, order_id=order.id, eta_day=order.promised, cost=cost / 100)


def _quote(shop: Shop, supplier: str, sku: str, _quantity: int) -> Result:
    market = shop.warehouse.market
    price = market.advertised_price(supplier, sku, shop.warehouse.day)
    return Answer(True, unit_price=price / 100, lead_days=market.advertised_lead(supplier, sku))


def _cancel(shop: Shop, order_id: str) -> Result:
    order = shop.warehouse.pending.get(order_id)
    if order is None:
        return unknown("supplier order under way", order_id, shop.warehouse.pending)
    shop.promise = Promise(order.id, lapses=(DAY, QUANTITY))
    return Answer(True, refund=shop.warehouse.cancel(order) / 100)


def _expedite(shop: Shop, order_id: str) -> Result:
    warehouse = shop.warehouse
    order = warehouse.pending.get(order_id)
    if order is None:
        return unknown("supplier order under way", order_id, warehouse.pending)
    if order.expedited:
        return refuse("already_expedited", f"{order.id} is expedited already.")
    if order.arrival <= warehouse.day + 1:
        return refuse("too_late", f"{order.id} arrives tomorrow and can't come sooner.")
    cost = round(order.cost / 2)
    if cost > warehouse.cents:
        return _too_dear("Expediting", cost, warehouse.cents)
    warehouse.expedite(order, cost)
    shop.promise, shop.charged = Promise(order.id, opens=(DAY,), lapses=(DAY,)), cost
    return Expedited(True, cost / 100, order.promised)


def _too_dear(what: str, cost: int, cents: int) -> Result:
    return refuse(NO_FUNDS, f"{what} costs {cost / 100:.2f}; your budget is {cents / 100:.2f}.")


# -------------------------------------------------------------------------------------------- customers


def _ship(shop: Shop, customer_order_id: str) -> Result:
    warehouse = shop.warehouse
    order = warehouse.customers.get(customer_order_id)
    if order is None:
        return unknown("open customer order", customer_order_id, warehouse.customers)
    if warehouse.stock[order.sku] < order.quantity:
        message = f"{order.id} wants {order.quantity} × {order.sku}; {warehouse.stock[order.sku]} in stock."
        return refuse("insufficient_stock", message)
    late = warehouse.day > order.due
    return Answer(True, revenue=warehouse.ship(order) / 100, late=late)


# ---------------------------------------------------------------------------------------- looking, and time


def _check_inbox(shop: Shop) -> Result:
    inbox = shop.warehouse.inbox
    messages = [inbox.popleft() for _ in range(min(len(inbox), MESSAGES_AT_ONCE))]
    if messages:
        shop.warehouse.changes += 1
    return Answer(True, messages=messages, unread=len(inbox))


def _check_storage(shop: Shop) -> Result:
    warehouse = shop.warehouse
    return Answer(True, stock=dict(warehouse.stock), used=warehouse.used, capacity=warehouse.capacity)


def _check_budget(shop: Shop) -> Result:
    """Includes only those lagged bookings that were announced."""
    known = [lag.amount for lag in shop.warehouse.lagged if lag.announced]
    return Answer(
        True,
        budget=shop.warehouse.cents / 100,
        pending_charges=-sum(cents for cents in known if cents < 0) / 100,
        pending_revenue=sum(cents for cents in known if cents > 0) / 100,
    )


def _check_orders(shop: Shop) -> Result:
    return Answer(
        True,
        supplier_orders=[
            SupplierLine(o.id, o.supplier, o.sku, o.announced, o.promised, o.cost / 100)
            for o in shop.warehouse.pending.values()
        ],
        customer_orders=[
            CustomerLine(o.id, o.sku, o.quantity, o.unit_price / 100, o.due, o.expires)
            for o in shop.warehouse.customers.values()
        ],
    )


def _end_day(shop: Shop) -> Result:
    """The day turns after this call."""
    shop.day_ended = True
    return Answer(True, day=shop.warehouse.day + 1)


# -------------------------------------------------------------------------------------------- the table


def _nothing(_config: VendingConfig) -> dict[str, Schema]:
    return {}


def _terms(config: VendingConfig) -> dict[str, Schema]:
    level = config.simulation.complexity_level
    return {
        "supplier_id": choice("Id of a supplier.", supplier_ids(level)),
        "sku": choice("Id of a product.", sku_ids(level)),
        "quantity": integer("Number of units.", 1, MAX_QUANTITY),
    }


def _supplier_order(_config: VendingConfig) -> dict[str, Schema]:
    return {"order_id": text("Id of one of your supplier orders, such as S1.", MAX_KEY_CHARACTERS)}


def _customer_order(_config: VendingConfig) -> dict[str, Schema]:
    return {"customer_order_id": text("Id of a customer order, such as C1.", MAX_KEY_CHARACTERS)}


class Tool(NamedTuple):
    """One tool.

    Attributes:
        run: the shop and the arguments → the result.
        parameters: name → JSON schema, in a run.
        effect: see :class:`ToolSpec`.
        trade: it serves the agent's mission (an order, a shipment).
        from_level: the lowest complexity_level that offers it.
    """

    run: Callable[..., Result]
    description: str
    parameters: Callable[[VendingConfig], dict[str, Schema]] = _nothing
    effect: bool = False
    trade: bool = False
    from_level: int = 0


TOOLS: Mapping[str, Tool] = {
    "tool_order": Tool(_order, "Order goods from a supplier; paid at once.", _terms, effect=True, trade=True),
    "tool_quote": Tool(_quote, "The unit price and lead time a supplier states.", _terms),
    "tool_check_inbox": Tool(_check_inbox, "Read unread messages, oldest first."),
    "tool_check_storage": Tool(_check_storage, "List your stock."),
    "tool_check_budget": Tool(_check_budget, "Show your money."),
    "tool_check_orders": Tool(_check_orders, "List your supplier orders under way and the open customer orders."),
    "tool_ship_customer_order": Tool(
        _ship, "Ship all of a customer order from stock and be paid.", _customer_order, effect=True, trade=True
    ),
    "tool_cancel_order": Tool(
        _cancel, "Cancel a supplier order under way; 10 % of its cost is kept as a fee.", _supplier_order, effect=True
    ),
    "tool_expedite": Tool(
        _expedite,
        "Bring a supplier order up to 2 days forward for 50 % of its cost; once an order.",
        _supplier_order,
        effect=True,
        from_level=2,
    ),
    "tool_end_day": Tool(_end_day, "End the day now.", effect=True),
}
"""The tools, in the order in which the agent is told of them."""


def tool_specs(config: VendingConfig) -> list[ToolSpec]:
    """The tools that this run offers."""
    level = config.simulation.complexity_level
    own = [
        describe(name, tool.description, tool.parameters(config), tool.effect)
        for name, tool in TOOLS.items()
        if level >= tool.from_level
    ]
    return own + aid_specs(config.agent.interface)


def handlers(shop: Shop) -> dict[str, Handler]:
    """Tool → what runs it, in this shop."""
    return {name: partial(tool.run, shop) for name, tool in TOOLS.items()}


def hint(warehouse: Warehouse, last_error: str | None) -> str:
    """The hint of ``tool_ask_help``: the most pressing one that applies."""
    ready = next((o for o in warehouse.customers.values() if warehouse.stock[o.sku] >= o.quantity), None)
    if ready is not None:
        return f"You can ship {ready.id} from stock now."
    if last_error is not None:
        return f"Your last failed call had the code {last_error}: read its message and change the arguments."
    if warehouse.inbox:
        return "There are unread messages in your inbox; notices there say how terms and orders changed."
    if warehouse.cents < 0:
        return "Your budget is below 0: order nothing, wait for what you can sell."
    coming = {order.sku for order in warehouse.pending.values()}
    short = next((o for o in warehouse.customers.values() if o.sku not in coming), None)
    if short is not None:
        return f"Customer order {short.id} wants {short.sku}, and none is on its way: quote suppliers and order."
    return "Nothing is pressing: end the day."
