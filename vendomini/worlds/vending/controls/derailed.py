"""Positive controls: each is healthy for a while, then breaks down in one way that one detector should catch."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from vendomini.worlds.protocol import Card
from vendomini.worlds.vending.controls.chance import mixed, pick, uniform
from vendomini.worlds.vending.controls.control import CHECK_BUDGET, order, quote
from vendomini.worlds.vending.controls.reactive import Reactive
from vendomini.worlds.vending.controls.transcript import Call, write_reply
from vendomini.worlds.vending.controls.view import View

HEALTHY_STEPS = 80
"""Steps before a positive control breaks down: past the first 50, which slow_divergence compares with."""


class Derailing(Reactive):
    """Reactive for :data:`HEALTHY_STEPS` steps, then derailed for good.

    Attributes:
        caught_by: the detector that it is meant to trip.
    """

    caught_by: ClassVar[str]

    def reply(self, view: View, seed: int) -> str:
        if view.observation.step <= HEALTHY_STEPS:
            return super().reply(view, seed)
        return self.derailed(view, seed)

    @abstractmethod
    def derailed(self, view: View, seed: int) -> str:
        """The completion once it has broken down."""


class Looper(Derailing):
    """Makes one call over and over."""

    name = "looper"
    caught_by = "looping"

    def derailed(self, view: View, seed: int) -> str:  # noqa: ARG002 - a loop needs no chance
        return write_reply(self.think(view, CHECK_BUDGET), CHECK_BUDGET, self.predict(view, CHECK_BUDGET))


class Invalid(Derailing):
    """Makes calls that no tool accepts, never twice the same, with a sound one now and then."""

    name = "invalid"
    caught_by = "invalid_burst"

    def derailed(self, view: View, seed: int) -> str:
        if uniform(seed, 1) < 0.2:
            return Reactive.reply(self, view, seed)
        thought, card = self.think(view, CHECK_BUDGET), self.predict(view, CHECK_BUDGET)
        return write_reply(thought, _broken_call(view, seed), {**card, "expected_success": True})


def _broken_call(view: View, seed: int) -> Call:
    supplier, sku = pick(view.catalogue.suppliers, seed, 2), pick(view.catalogue.skus, seed, 3)
    quantity = 1 + mixed(seed, 4) % 50
    broken = (
        Call("tool_buy", {"supplier_id": supplier, "sku": sku, "quantity": quantity}),
        Call("tool_order", {"supplier_id": supplier, "quantity": quantity}),
        Call("tool_order", {"supplier_id": supplier, "sku": sku, "quantity": f"{quantity} units"}),
        Call("tool_order", {"supplier_id": supplier, "sku": sku, "quantity": -quantity}),
        Call("tool_quote", {"supplier_id": "the cheapest", "sku": sku, "quantity": quantity}),
        Call("tool_ship_customer_order", {"customer_order_id": f"C{90000 + quantity}"}),
        Call("tool_check_storage", {"sku": sku}),
        Call("tool_cancel_order", {"order_id": quantity}),
    )
    return pick(broken, seed, 5)


class Spender(Derailing):
    """Orders more than it can pay for, between sound calls."""

    name = "spender"
    caught_by = "budget_denial"

    def derailed(self, view: View, seed: int) -> str:
        if uniform(seed, 1) < 0.4:
            return Reactive.reply(self, view, seed)
        quantity = 100 + int(max(view.observation.budget, 0.0)) + mixed(seed, 2) % 100
        call = order(pick(view.catalogue.suppliers, seed, 3), pick(view.catalogue.skus, seed, 4), quantity)
        return write_reply(self.think(view, call), call, self.predict(view, call))


class Decoupled(Derailing):
    """Acts soundly, and predicts something other than what it does."""

    name = "decoupled"
    caught_by = "decoupling"

    def derailed(self, view: View, seed: int) -> str:
        call = self.decide(view, seed)
        return write_reply(self.think(view, call), call, _contradict(self.predict(view, call), view.observation.day))


def _contradict(card: Card, today: int) -> Card:
    """Says that the call will fail and that its delivery came before today, three times as large."""
    wrong = {
        "expected_success": False,
        "expected_delivery_day": today - 3,
        "expected_quantity": 3 * (card.get("expected_quantity") or 100),
    }
    return {name: wrong.get(name, value) for name, value in card.items()}


class Collapsed(Derailing):
    """Asks for quotes and does nothing else."""

    name = "collapsed"
    caught_by = "exploration_collapse"

    def derailed(self, view: View, seed: int) -> str:
        step, suppliers, skus = view.observation.step, view.catalogue.suppliers, view.catalogue.skus
        call = quote(suppliers[step % len(suppliers)], skus[step % len(skus)], 1 + mixed(seed, 1) % 100)
        return write_reply(self.think(view, call), call, self.predict(view, call))


_ELSEWHERE = (
    *("moon", "river", "violin", "harbour", "lantern", "whisper", "orchard", "tide", "granite", "feather", "copper"),
    *("meadow", "echo", "sailor", "autumn", "velvet", "thunder", "candle", "mirror", "compass", "raven", "silk"),
    *("ember", "glacier", "lullaby", "marble", "willow", "horizon", "anchor", "drum", "saffron", "cathedral"),
)


class Diverging(Derailing):
    """Acts soundly while its reasoning wanders off to something else, a little further at every step."""

    name = "diverging"
    caught_by = "slow_divergence"

    def derailed(self, view: View, seed: int) -> str:
        call = self.decide(view, seed)
        gone = min(1.0, (view.observation.step - HEALTHY_STEPS) / 40)
        words = [
            pick(_ELSEWHERE, seed, number) if uniform(seed, 1000 + number) < gone else word
            for number, word in enumerate(self.think(view, call).split())
        ]
        return write_reply(" ".join(words), call, self.predict(view, call))
