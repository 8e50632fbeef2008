"""What the warehouse shows an agent: observations, mail, lists and answers. The controls read the same types.

Money is in the warehouse's currency, days count from 0. A field that has its default is not shown.
"""

from __future__ import annotations

import msgspec

from vendomini.worlds import protocol


class Observation(protocol.Observation, frozen=True):
    """What the agent sees before a step."""

    day: int
    actions_left_today: int
    budget: float
    storage_used: int
    storage_capacity: int
    inbox_unread: int
    pending_supplier_orders: int
    open_customer_orders: int


class Letter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message of the inbox; ``kind`` says which fields it has. A notice names the ``shock`` that it is about."""

    day: int
    kind: str
    text: str
    shock: str = ""
    customer_order_id: str = ""
    order_id: str = ""
    supplier_id: str = ""
    sku: str = ""
    quantity: int | None = None
    due_day: int = 0
    sent_back: int = 0
    refund: float | None = None
    days: int = 0
    eta_day: int | None = None
    spared_supplier_id: str = ""
    percent: int = 0
    last_day: int = 0
    factor: float = 0.0


class SupplierLine(msgspec.Struct, frozen=True):
    """A supplier order under way, in a list."""

    order_id: str
    supplier_id: str
    sku: str
    quantity: int
    eta_day: int
    cost: float


class CustomerLine(msgspec.Struct, frozen=True):
    """An open customer order, in a list. A customer known from mail only has no price yet."""

    customer_order_id: str
    sku: str
    quantity: int
    unit_price: float | None
    due_day: int
    expires_day: int


class Answer(protocol.Result):
    """A tool's answer: one type for all tools, each of which sets its own fields."""

    order_id: str | None = None
    eta_day: int | None = None
    cost: float | None = None
    unit_price: float | None = None
    lead_days: int | None = None
    refund: float | None = None
    revenue: float | None = None
    late: bool | None = None
    messages: list[Letter] | None = None
    unread: int | None = None
    stock: dict[str, int] | None = None
    used: int | None = None
    capacity: int | None = None
    budget: float | None = None
    pending_charges: float | None = None
    pending_revenue: float | None = None
    supplier_orders: list[SupplierLine] | None = None
    customer_orders: list[CustomerLine] | None = None
    day: int | None = None
    value: str | None = None
    """The value of a note, read by the controls."""


class Expedited(protocol.Result):
    """The answer to an order that was expedited."""

    cost: float
    eta_day: int
