"""The warehouse as a world: what it offers and reports, and how a step runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vendomini.errors import ConfigError
from vendomini.worlds.aids import RESET_BELIEFS, Aids
from vendomini.worlds.conversation import Controls
from vendomini.worlds.protocol import Audit, Call, Expectation, Outcome, Settlement, Summary, Value, World
from vendomini.worlds.randomness import uniforms
from vendomini.worlds.tools import Desk
from vendomini.worlds.vending import rules
from vendomini.worlds.vending.answers import Observation
from vendomini.worlds.vending.config import VendingConfig
from vendomini.worlds.vending.market import LEVELS, Market
from vendomini.worlds.vending.promises import caused_errors
from vendomini.worlds.vending.shocks import RISE_PERCENT, Shocks
from vendomini.worlds.vending.tools import DAY, NO_FUNDS, QUANTITY, TOOLS, Shop, handlers, hint, tool_specs
from vendomini.worlds.vending.warehouse import Warehouse

COST, STORAGE, BUDGET = "expected_cost", "expected_storage_after", "expected_budget_after"


class Vending(World):
    """A small vending warehouse: goods are ordered from suppliers, stored, and shipped to customers.

    Raises:
        ConfigError: the stock at the start does not fit the storage.
    """

    config = VendingConfig
    horizon = "simulation.max_steps"
    dose = "pe_induction.p_shock"
    dose_label = "p_shock (probability of a shock at each step)"
    mix = "pe_induction.pe_type_mix"
    facts = (dose, "pe_induction.pe_mag", "pe_induction.observability", "simulation.complexity_level")
    pe_types = ("temporal", "quantity", "cost", "causal")
    endings: ClassVar[Mapping[str, str]] = {"bankrupt": "bankruptcy", "customers_lost": "the loss of all customers"}
    inert_without_dose = (
        "pe_induction.pe_mag",
        "pe_induction.pe_type_mix",
        "pe_induction.observability",
        "pe_induction.notice_delay_days",
    )
    caused_errors = staticmethod(caused_errors)
    promise_name = "order_id"
    card_note = (
        "expected_storage_after and expected_budget_after are the total units stored and the budget right after the "
        "call."
    )
    expectations = (
        Expectation(
            DAY,
            "integer",
            "Day on which the goods of this order arrive; null unless you order or expedite.",
            score="wait",
            error="temporal",
            minimal=True,
        ),
        Expectation(
            QUANTITY,
            "integer",
            "Units that will arrive; null unless you order.",
            score="relative",
            error="quantity",
            echoes={"tool_order": "quantity"},
        ),
        Expectation(
            COST,
            "number",
            "Money this call charges; null unless you order or expedite.",
            score="relative",
            error="cost",
        ),
        Expectation(
            STORAGE, "integer", "Units in storage right after this call; null if you don't know.", score="exact"
        ),
        Expectation(
            BUDGET,
            "number",
            "Budget right after this call; null if you don't know.",
            score="exact",
            tolerance=0.01,
            signed=True,
        ),
    )

    def __init__(self, config: VendingConfig) -> None:
        simulation = config.simulation
        needed = simulation.initial_storage_per_sku * LEVELS[simulation.complexity_level][0]
        if needed > simulation.storage_capacity:
            raise ConfigError(
                f"simulation.initial_storage_per_sku asks for {needed} units at complexity_level "
                f"{simulation.complexity_level}, and simulation.storage_capacity is {simulation.storage_capacity}: "
                "lower the one or raise the other"
            )
        self.run = config
        self.tools = tool_specs(config)
        self._desk = Desk(self.tools)
        self._actions_per_day = simulation.actions_per_day

    @classmethod
    def controls(cls) -> Controls:
        from vendomini.worlds.vending.controls import CONTROLS

        return CONTROLS

    def rules(self) -> str:
        return rules.text(self.run)

    def reset(self, *, seed: int, audit: Audit) -> Observation:
        config, induction = self.run, self.run.pe_induction
        market = Market(config.simulation.complexity_level, uniforms(seed, "terms"), RISE_PERCENT[induction.pe_mag])
        self.warehouse = Warehouse(config, market, uniforms(seed, "demand"))
        self.shocks = Shocks(induction, self.warehouse, seed)
        self._shop = Shop(self.warehouse)
        self._aids = Aids(audit, lambda: hint(self.warehouse, self._desk.last_error))
        self._desk.open({**handlers(self._shop), **self._aids.handlers})
        self._step = 0
        self._actions_left = self._actions_per_day
        self.warehouse.morning()
        return self._observe()

    def step(self, call: Call) -> Outcome:
        """A shock may strike, the tool runs, the day may turn."""
        self._step = step = self._step + 1
        warehouse, shop = self.warehouse, self._shop
        shop.forget()
        shocks = self.shocks.strike(step)
        key, tool, result = self._desk.take(call)
        if warehouse.effects:
            shocks += self.shocks.settle()
        now, changes = warehouse.day, warehouse.changes + self._aids.changes
        values: dict[str, Value] = {STORAGE: warehouse.used, BUDGET: warehouse.cents / 100}
        if shop.charged is not None:
            values[COST] = shop.charged / 100

        event: str | None = None
        settled: list[Settlement] = []
        self._actions_left -= 1
        if self._actions_left == 0 or shop.day_ended:
            event, settled = self._turn_day()
        trade = tool in _TRADES
        return Outcome(
            result,
            self._observe(),
            shocks,
            key,
            tool,
            changes,
            now,
            values,
            denied=trade and result.error is not None and result.error.code == NO_FUNDS,
            promise=shop.promise,
            settled=settled,
            event=event,
            productive=trade and result.ok,
            awaited=bool(warehouse.customers),
            forget=result.ok and tool == RESET_BELIEFS,
        )

    def _turn_day(self) -> tuple[str | None, list[Settlement]]:
        """Evening, and unless it ends the episode, the next morning with its deliveries."""
        warehouse = self.warehouse
        event = warehouse.evening()
        if event is not None:
            return event, []
        warehouse.day += 1
        self._actions_left = self._actions_per_day
        delivered = warehouse.morning()
        self.shocks.notices.morning()
        return None, [Settlement(order.id, {DAY: warehouse.day, QUANTITY: order.arriving}) for order in delivered]

    def _observe(self) -> Observation:
        warehouse = self.warehouse
        return Observation(
            self._step + 1,
            warehouse.day,
            self._actions_left,
            warehouse.cents / 100,
            warehouse.used,
            warehouse.capacity,
            len(warehouse.inbox),
            len(warehouse.pending),
            len(warehouse.customers),
        )

    def summary(self) -> Summary:
        warehouse = self.warehouse
        return Summary(
            self.shocks.summary(),
            {
                "days": warehouse.day,
                "orders_total": warehouse.orders_total,
                "orders_fulfilled": warehouse.orders_fulfilled,
                "orders_expired": warehouse.orders_expired,
                "budget": warehouse.cents / 100,
                "net_worth": warehouse.net_worth(),
            },
        )


_TRADES = frozenset(name for name, tool in TOOLS.items() if tool.trade)
