"""What tools do: each validates nothing but the state of the world, acts, and answers ``{ok, …}``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from vendomini.worlds.vending.orders import SupplierOrder
from vendomini.worlds.vending.tools import Result, refuse
from vendomini.worlds.vending.world import World

MESSAGES_AT_ONCE = 20
MAX_NOTES = 50


class Toolbox:
    """The tools of one episode.

    Args:
        world: what they act on.
        audit: gives the last n predictions, for ``tool_audit_predictions``.

    Attributes:
        placed: the supplier order that the last call placed or expedited, if any.
        charged: what the last call charged, in cents; None where nothing was.
        last_error: code of the last failed call, for ``tool_ask_help``.
    """

    def __init__(self, world: World, audit: Callable[[int], list[dict[str, Any]]]) -> None:
        self._world = world
        self._audit = audit
        self._notes: dict[str, str] = {}
        self.placed: SupplierOrder | None = None
        self.charged: int | None = None
        self.last_error: str | None = None
        self.handlers: dict[str, Callable[..., Result]] = {
            "tool_order": self._order,
            "tool_quote": self._quote,
            "tool_check_inbox": self._check_inbox,
            "tool_check_storage": self._check_storage,
            "tool_check_budget": self._check_budget,
            "tool_check_orders": self._check_orders,
            "tool_ship_customer_order": self._ship,
            "tool_cancel_order": self._cancel,
            "tool_expedite": self._expedite,
            "tool_end_day": self._end_day,
            "tool_write_scratchpad": self._write,
            "tool_read_scratchpad": self._read,
            "tool_delete_scratchpad": self._delete,
            "tool_list_scratchpad": self._list,
            "tool_reset_beliefs": self._reset_beliefs,
            "tool_audit_predictions": self._audit_predictions,
            "tool_ask_help": self._ask_help,
        }

    # ------------------------------------------------------------------------------------- suppliers

    def _order(self, supplier: str, sku: str, quantity: int) -> Result:
        world = self._world
        cost = world.market.actual_price(supplier, sku, world.day) * quantity
        if cost > world.cents:
            return _too_dear("The order", cost, world.cents)
        order = world.place(supplier, sku, quantity)
        self.placed, self.charged = order, cost
        return {"ok": True, "order_id": order.id, "eta_day": order.promised, "cost": cost / 100}

    def _quote(self, supplier: str, sku: str, _quantity: int) -> Result:
        market = self._world.market
        price = market.advertised_price(supplier, sku, self._world.day)
        return {"ok": True, "unit_price": price / 100, "lead_days": market.advertised_lead(supplier, sku)}

    def _cancel(self, order_id: str) -> Result:
        order = self._world.pending.get(order_id)
        if order is None:
            return _unknown("supplier order under way", order_id, self._world.pending)
        return {"ok": True, "refund": self._world.cancel(order) / 100}

    def _expedite(self, order_id: str) -> Result:
        world = self._world
        order = world.pending.get(order_id)
        if order is None:
            return _unknown("supplier order under way", order_id, world.pending)
        if order.expedited:
            return refuse("already_expedited", f"{order.id} is expedited already.")
        if order.arrival <= world.day + 1:
            return refuse("too_late", f"{order.id} arrives tomorrow and can't come sooner.")
        cost = round(order.cost / 2)
        if cost > world.cents:
            return _too_dear("Expediting", cost, world.cents)
        world.expedite(order, cost)
        self.placed, self.charged = order, cost
        return {"ok": True, "cost": cost / 100, "eta_day": order.promised}

    # ------------------------------------------------------------------------------------- customers

    def _ship(self, customer_order_id: str) -> Result:
        world = self._world
        order = world.customers.get(customer_order_id)
        if order is None:
            return _unknown("open customer order", customer_order_id, world.customers)
        if world.stock[order.sku] < order.quantity:
            message = f"{order.id} wants {order.quantity} × {order.sku}; {world.stock[order.sku]} in stock."
            return refuse("insufficient_stock", message)
        late = world.day > order.due
        return {"ok": True, "revenue": world.ship(order) / 100, "late": late}

    # ---------------------------------------------------------------------------------------- looking

    def _check_inbox(self) -> Result:
        inbox = self._world.inbox
        messages = [inbox.popleft() for _ in range(min(len(inbox), MESSAGES_AT_ONCE))]
        if messages:
            self._world.changes += 1
        return {"ok": True, "messages": messages, "unread": len(inbox)}

    def _check_storage(self) -> Result:
        world = self._world
        return {"ok": True, "stock": dict(world.stock), "used": world.used, "capacity": world.capacity}

    def _check_budget(self) -> Result:
        """Of lagged bookings, those that were announced."""
        known = [lag.amount for lag in self._world.lagged if lag.announced]
        return {
            "ok": True,
            "budget": self._world.cents / 100,
            "pending_charges": -sum(cents for cents in known if cents < 0) / 100,
            "pending_revenue": sum(cents for cents in known if cents > 0) / 100,
        }

    def _check_orders(self) -> Result:
        return {
            "ok": True,
            "supplier_orders": [
                {
                    "order_id": order.id,
                    "supplier_id": order.supplier,
                    "sku": order.sku,
                    "quantity": order.announced,
                    "eta_day": order.promised,
                    "cost": order.cost / 100,
                }
                for order in self._world.pending.values()
            ],
            "customer_orders": [
                {
                    "customer_order_id": order.id,
                    "sku": order.sku,
                    "quantity": order.quantity,
                    "unit_price": order.unit_price / 100,
                    "due_day": order.due,
                    "expires_day": order.expires,
                }
                for order in self._world.customers.values()
            ],
        }

    def _end_day(self) -> Result:
        """The episode turns the day after this call; see :meth:`Environment.step`."""
        return {"ok": True, "day": self._world.day + 1}

    # ----------------------------------------------------------------------------------------- memory

    def _write(self, key: str, value: str) -> Result:
        notes = self._notes
        if key not in notes and len(notes) >= MAX_NOTES:
            return refuse("scratchpad_full", f"The scratchpad holds {MAX_NOTES} notes: overwrite one.")
        if notes.get(key) != value:
            self._world.changes += 1
            notes[key] = value
        return {"ok": True, "keys": len(notes)}

    def _read(self, key: str) -> Result:
        if key not in self._notes:
            return _unknown("note", key, self._notes)
        return {"ok": True, "value": self._notes[key]}

    def _delete(self, key: str) -> Result:
        if key not in self._notes:
            return _unknown("note", key, self._notes)
        del self._notes[key]
        self._world.changes += 1
        return {"ok": True, "keys": len(self._notes)}

    def _list(self) -> Result:
        return {"ok": True, "keys": sorted(self._notes)}

    # --------------------------------------------------------------------------------------- recovery

    def _reset_beliefs(self) -> Result:
        return {"ok": True}

    def _audit_predictions(self, n: int) -> Result:
        return {"ok": True, "predictions": self._audit(n)}

    def _ask_help(self) -> Result:
        return {"ok": True, "hint": self._hint()}

    def _hint(self) -> str:
        """The first that applies, the most pressing first."""
        world = self._world
        ready = next((o for o in world.customers.values() if world.stock[o.sku] >= o.quantity), None)
        if ready is not None:
            return f"You can ship {ready.id} from stock now."
        if self.last_error is not None:
            return f"Your last failed call had the code {self.last_error}: read its message and change the arguments."
        if world.inbox:
            return "There are unread messages in your inbox; notices there say how terms and orders changed."
        if world.cents < 0:
            return "Your budget is below 0: order nothing, wait for what you can sell."
        coming = {order.sku for order in world.pending.values()}
        short = next((o for o in world.customers.values() if o.sku not in coming), None)
        if short is not None:
            return f"Customer order {short.id} wants {short.sku}, and none is on its way: quote suppliers and order."
        return "Nothing is pressing: end the day."


def _too_dear(what: str, cost: int, cents: int) -> Result:
    return refuse("insufficient_funds", f"{what} costs {cost / 100:.2f}; your budget is {cents / 100:.2f}.")


def _unknown(what: str, key: str, known: Iterable[str]) -> Result:
    names = ", ".join(islice(known, 10)) or "none"
    return refuse("unknown_id", f"There is no {what} {key[:40]!r}; there are: {names}.")
