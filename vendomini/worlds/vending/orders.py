"""What is open in a warehouse: orders on both sides, and causal shocks that have not taken effect."""

from __future__ import annotations

DUE_DAYS = 3
EXPIRY_DAYS = 10


class SupplierOrder:
    """An order under way.

    Attributes:
        quantity, cost: as ordered and charged; cost in cents.
        arrival, arriving: the day and the number of units that will come (actual).
        promised, announced: the same as the agent knows them (advertised).
    """

    __slots__ = (
        "announced",
        "arrival",
        "arriving",
        "cost",
        "delayed",
        "expedited",
        "id",
        "miscounted",
        "promised",
        "quantity",
        "sku",
        "supplier",
        "unit_price",
    )

    def __init__(self, number: int, supplier: str, sku: str, quantity: int, price: int, arrival: int, promised: int):
        self.id = f"S{number}"
        self.supplier = supplier
        self.sku = sku
        self.quantity = self.arriving = self.announced = quantity
        self.unit_price = price
        self.cost = price * quantity
        self.arrival = arrival
        self.promised = promised
        self.expedited = self.delayed = self.miscounted = False


class CustomerOrder:
    """What a customer waits for; price in cents a unit."""

    __slots__ = ("due", "expires", "id", "quantity", "sku", "unit_price")

    def __init__(self, number: int, sku: str, quantity: int, unit_price: int, day: int) -> None:
        self.id = f"C{number}"
        self.sku = sku
        self.quantity = quantity
        self.unit_price = unit_price
        self.due = day + DUE_DAYS
        self.expires = day + EXPIRY_DAYS


class PostingLag:
    """The next booking comes ``days`` late: armed until it has an amount (cents), then waiting for its evening."""

    __slots__ = ("amount", "announced", "days", "due", "struck")

    def __init__(self, days: int, struck: int) -> None:
        self.days = days
        self.struck = struck
        self.amount = 0
        self.due: int | None = None
        self.announced = False


class Interference:
    """The next order placed raises prices elsewhere: armed until it has an order.

    Attributes:
        struck: step at which it was armed.
        lucky: see :class:`Notices`.
    """

    __slots__ = ("lucky", "order", "struck")

    def __init__(self, struck: int, lucky: bool) -> None:
        self.struck = struck
        self.lucky = lucky
        self.order: SupplierOrder | None = None
