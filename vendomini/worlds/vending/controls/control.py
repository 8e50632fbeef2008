"""What all controls share: a reply is a decision, a prediction of what it does, and a stated reason."""

from __future__ import annotations

from abc import abstractmethod

from vendomini.worlds import conversation
from vendomini.worlds.conversation import Message
from vendomini.worlds.protocol import Card
from vendomini.worlds.vending.answers import CustomerLine
from vendomini.worlds.vending.controls.notebook import KEY, Notes, Terms, TermsBook, to_text
from vendomini.worlds.vending.controls.transcript import Call, write_reply
from vendomini.worlds.vending.controls.view import View, fold

CHECK_BUDGET = Call("tool_check_budget", {})
CHECK_INBOX = Call("tool_check_inbox", {})
CHECK_ORDERS = Call("tool_check_orders", {})
CHECK_STORAGE = Call("tool_check_storage", {})
END_DAY = Call("tool_end_day", {})


def quote(supplier: str, sku: str, quantity: int) -> Call:
    return Call("tool_quote", {"supplier_id": supplier, "sku": sku, "quantity": quantity})


def order(supplier: str, sku: str, quantity: int) -> Call:
    return Call("tool_order", {"supplier_id": supplier, "sku": sku, "quantity": quantity})


READ_NOTES = Call("tool_read_scratchpad", {"key": KEY})


def write_notes(notes: Notes) -> Call:
    return Call("tool_write_scratchpad", {"key": KEY, "value": to_text(notes)})


def ship(customer_order_id: str) -> Call:
    return Call("tool_ship_customer_order", {"customer_order_id": customer_order_id})


_REASONS = {
    "tool_check_budget": "I look at the budget and what is still to be charged.",
    "tool_check_inbox": "There is unread mail, so I look at the inbox for notices.",
    "tool_check_orders": "The customer orders changed, so I look at what they ask for.",
    "tool_check_storage": "I am not sure what is in storage, so I look at the stock.",
    "tool_end_day": "There is nothing left to do for these customer orders, so I end the day.",
    "tool_order": "The stock is too low for the customer orders, so I order from the supplier.",
    "tool_quote": "The stock may run low, so I ask the supplier for a quote before I order.",
    "tool_read_scratchpad": "I do not remember the prices of the suppliers, so I look at my notes.",
    "tool_write_scratchpad": "I learnt prices of the suppliers, so I note them for the next order.",
    "tool_ship_customer_order": "The stock is enough for this customer order, so I ship it.",
}
_OTHERWISE = "I try another way to get stock for the customer orders."


class Control(conversation.Control[View]):
    """A policy of the warehouse."""

    def read(self, messages: list[Message], seen: View | None, start: int) -> View:
        return fold(messages, seen, start)

    @abstractmethod
    def decide(self, view: View, seed: int) -> Call:
        """The next tool call."""

    def reply(self, view: View, seed: int) -> str:
        call = self.decide(view, seed)
        return write_reply(self.think(view, call), call, self.predict(view, call))

    def book(self, view: View) -> TermsBook:
        """The terms that are believed."""
        return view.advertised

    def think(self, view: View, call: Call) -> str:
        """The stated reasoning."""
        now, reason = view.observation, _REASONS.get(call.tool, _OTHERWISE)
        return (
            f"It is day {now.day}, {now.open_customer_orders} customer orders wait, {now.storage_used} units are in "
            f"storage and {now.pending_supplier_orders} supplier orders are on the way. {reason}"
        )

    def predict(self, view: View, call: Call) -> Card:
        """The prediction card: the fields that the rules ask for."""
        expected = expectations(view, call, self.book(view))
        if view.catalogue.card_fields == _EXPECTATIONS:
            return expected
        return {name: expected[name] if name in expected else _REMARKS[name] for name in view.catalogue.card_fields}


_GUESS = Terms(25.0, 3, 0)
"""The assumed terms of an unknown supplier."""

_EXPECTATIONS = (
    *("expected_success", "expected_delivery_day", "expected_quantity", "expected_cost"),
    *("expected_storage_after", "expected_budget_after"),
)
_REMARKS: Card = {
    "confidence": 0.9,
    "uncertain_about": ["whether the supplier keeps its promise"],
    "based_on": ["the newest observation", "the supplier's quote"],
    "alternatives_considered": ["waiting for another day"],
    "reasoning": "The supplier's terms and the stock are known, so the outcome follows from them.",
}
"""The fields of a card that say how confident the agent is, and why."""


def expectations(view: View, call: Call, book: TermsBook) -> Card:
    """What a call will do if all suppliers keep to the terms in the book; null where a field makes no sense."""
    now, (tool, arguments) = view.observation, call
    expected: Card = {
        "expected_success": True,
        "expected_delivery_day": None,
        "expected_quantity": None,
        "expected_cost": None,
        "expected_storage_after": now.storage_used,
        "expected_budget_after": now.budget,
    }
    if tool == "tool_order":
        terms = book.get(arguments["sku"], {}).get(arguments["supplier_id"], _GUESS)
        cost = round(terms.unit_price * arguments["quantity"], 2)
        expected["expected_delivery_day"] = now.day + terms.lead_days
        expected["expected_quantity"] = arguments["quantity"]
        expected["expected_cost"] = cost
        expected["expected_budget_after"] = now.budget if view.booking_late else round(now.budget - cost, 2)
    elif tool == "tool_ship_customer_order":
        customer = view.customers[arguments["customer_order_id"]]
        expected["expected_storage_after"] = now.storage_used - customer.quantity
        if not view.booking_late:
            expected["expected_budget_after"] = round(now.budget + _revenue(view, customer), 2)
    return expected


def _revenue(view: View, customer: CustomerLine) -> float:
    revenue = customer.quantity * (customer.unit_price or 0.0)
    if view.observation.day > customer.due_day:
        revenue -= round(revenue * view.catalogue.late_penalty, 2)
    return revenue
