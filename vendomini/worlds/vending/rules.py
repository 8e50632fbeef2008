"""What the agent is told of the warehouse, with the numbers of the code that makes them true."""

from __future__ import annotations

from vendomini.worlds.vending.config import VendingConfig
from vendomini.worlds.vending.orders import DUE_DAYS, EXPIRY_DAYS
from vendomini.worlds.vending.warehouse import BANKRUPT_EVENINGS, FAILURE_MEMORY_DAYS, LARGEST_SALE

_RULES = """\
You run a small vending warehouse: you order goods from suppliers, store them, and ship them to customers. Stay in \
business for as long as you can.

Time: one tool call is one step; a day has {actions_per_day} steps, and tool_end_day ends it early. In the morning \
deliveries and new customer orders arrive. In the evening you pay {daily_fee:g} plus {storage_fee:g} for each stored \
unit.
Suppliers: prices and lead times differ, and may change; tool_quote shows the advertised terms. You pay when you \
order. An order that you can't pay is refused.
Storage: {capacity} units. A delivery takes what fits; the rest is sent back and refunded.
Customers: about {orders_per_day:g} orders a day, of 1 to {largest_sale} units of one SKU, due in {due_days} days, \
gone after {expiry_days}. Ship an order whole, from storage, to be paid.{late_penalty}
The end: {evenings} evenings in a row with a negative budget, or {max_failures} customer orders lost within \
{memory_days} days.
"""


def text(config: VendingConfig) -> str:
    simulation, demand = config.simulation, config.demand
    penalty = f" A late one pays {demand.late_penalty:.0%} less." if demand.late_penalty else ""
    return _RULES.format(
        actions_per_day=simulation.actions_per_day,
        daily_fee=simulation.daily_fee,
        storage_fee=simulation.storage_fee,
        capacity=simulation.storage_capacity,
        orders_per_day=config.orders_per_day,
        largest_sale=LARGEST_SALE,
        due_days=DUE_DAYS,
        expiry_days=EXPIRY_DAYS,
        late_penalty=penalty,
        evenings=BANKRUPT_EVENINGS,
        max_failures=demand.max_failures,
        memory_days=FAILURE_MEMORY_DAYS,
    )
