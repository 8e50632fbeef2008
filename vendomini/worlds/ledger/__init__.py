"""The ledger of a small office: receipts come in, and each has to be posted before it is due.

What was posted is credited some days later. Shocks make a credit late or short, and nothing else: they do not make the
task harder. So a run shows the effect of prediction errors alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import Field

from vendomini.config import RunConfig, Section
from vendomini.config.schema import Positive, Probability
from vendomini.worlds import protocol
from vendomini.worlds.aids import RESET_BELIEFS, Aids, aid_specs
from vendomini.worlds.conversation import Control
from vendomini.worlds.protocol import Audit, Call, Expectation, Outcome, Promise, Settlement, ShockRecord, Summary
from vendomini.worlds.randomness import integer, uniforms
from vendomini.worlds.tools import Desk, Handler, describe, text, unknown

CREDIT_DAYS = 2
DUE_DAYS = 4
DAY, AMOUNT, BALANCE = "expected_credit_day", "expected_amount", "expected_balance_after"


class Office(Section):
    """The office, and what goes wrong in it."""

    max_steps: Positive = Field(300, description="Steps (tool calls) after which a run is right-censored.")
    actions_per_day: Positive = Field(6, description="Steps in a day; tool_end_day ends it early.")
    receipts_per_day: Annotated[int, Field(ge=1, le=100)] = Field(2, description="Receipts that come in each morning.")
    max_overdue: Positive = Field(8, description="Overdue receipts that end the episode (dismissed).")
    p_error: Probability = Field(0.0, description="Probability at each step that a credit under way goes wrong.")


class LedgerConfig(RunConfig):
    office: Office = Office()


class Receipt(msgspec.Struct):
    receipt_id: str
    amount: float
    due_day: int


class Credit(msgspec.Struct):
    """What becomes of a posted receipt."""

    receipt_id: str
    posted: float
    amount: float
    days_late: int = 0


class Observation(protocol.Observation, frozen=True):
    """What the bookkeeper sees; ``credited`` since the step before."""

    day: int
    actions_left_today: int
    balance: float
    receipts: int
    overdue: int
    credited: list[Credit]


class Tray(protocol.Result):
    receipts: list[Receipt]


class Posted(protocol.Result):
    credit_day: int


class Ledger(protocol.World):
    """One office."""

    config = LedgerConfig
    horizon = "office.max_steps"
    dose = "office.p_error"
    dose_label = "p_error (probability of a wrong credit at each step)"
    facts = (dose,)
    pe_types = ("temporal", "amount", "causal")
    endings: ClassVar[Mapping[str, str]] = {"dismissed": "dismissal"}
    promise_name = "receipt_id"
    expectations = (
        Expectation(DAY, "integer", "Day on which a posted receipt is credited.", "wait", "temporal", minimal=True),
        Expectation(AMOUNT, "number", "Amount that will be credited.", "relative", "amount"),
        Expectation(BALANCE, "number", "Balance right after this call.", "exact", tolerance=0.005),
    )

    def __init__(self, config: LedgerConfig) -> None:
        self.office = config.office
        receipt = {"receipt_id": text("Id of a receipt in the tray, such as R1.", 40)}
        self.tools = [
            describe("tool_read_tray", "List the receipts that are to be posted."),
            describe("tool_post", "Post a receipt.", receipt, effect=True),
            describe("tool_end_day", "End the day now.", effect=True),
            *aid_specs(config.agent.interface),
        ]
        self._desk = Desk(self.tools)

    @classmethod
    def controls(cls) -> Mapping[str, type[Control[Any]]]:
        from vendomini.worlds.ledger.controls import CONTROLS

        return CONTROLS

    def rules(self) -> str:
        return (
            "You keep the ledger of a small office. Post every receipt before it is overdue, as long as you can.\n\n"
            f"Time: one tool call is one step; a day has {self.office.actions_per_day} steps, and tool_end_day ends it "
            f"early. Every morning {self.office.receipts_per_day} receipts come in, due in {DUE_DAYS} days.\n"
            f"What was posted is credited {CREDIT_DAYS} days later, if nothing goes wrong.\n"
            f"The end: {self.office.max_overdue} receipts overdue.\n"
        )

    def reset(self, *, seed: int, audit: Audit) -> Observation:
        self._amounts, self._errors = uniforms(seed, "demand"), uniforms(seed, "shocks")
        self._tray: dict[str, Receipt] = {}
        self._under_way: dict[str, tuple[Credit, int]] = {}
        self._aids = Aids(audit, lambda: "Read the tray, and post the receipt that is due first.")
        own: dict[str, Handler] = {
            "tool_read_tray": self._read_tray,
            "tool_post": self._post,
            "tool_end_day": self._end_day,
        }
        self._desk.open({**own, **self._aids.handlers})
        self._cents = self._step = self._day = self._received = self._posted = self._wrong = 0
        self._credited: list[Credit] = []
        self._morning()
        return self._observe()

    def step(self, call: Call) -> Outcome:
        self._step += 1
        self._actions_left -= 1
        self._credited, promise, settled = [], None, []
        shocks = self._strike()
        key, tool, result = self._desk.take(call)
        posted = isinstance(result, Posted)
        if posted:
            promise = Promise(next(reversed(self._under_way)), opens=(DAY, AMOUNT))
        now, values = self._day, {BALANCE: self._cents / 100}
        changes = self._received + self._posted + self._aids.changes
        if self._actions_left <= 0:
            self._day += 1
            settled = self._morning()
        event = "dismissed" if self._overdue() >= self.office.max_overdue else None
        return Outcome(
            result, self._observe(), shocks, key, tool, changes, now, values, promise=promise, settled=settled,
            event=event, productive=posted, awaited=bool(self._tray), forget=result.ok and tool == RESET_BELIEFS,
        )  # fmt: skip

    def summary(self) -> Summary:
        figures = {"days": self._day, "received": self._received, "posted": self._posted, "balance": self._cents / 100}
        return Summary({"realised": self._wrong}, figures)

    def _read_tray(self) -> protocol.Result:
        return Tray(True, list(self._tray.values()))

    def _post(self, receipt_id: str) -> protocol.Result:
        receipt = self._tray.pop(receipt_id, None)
        if receipt is None:
            return unknown("receipt in the tray", receipt_id, self._tray)
        self._posted += 1
        credit = Credit(receipt_id, receipt.amount, receipt.amount)
        self._under_way[receipt_id] = credit, self._day + CREDIT_DAYS
        return Posted(True, self._day + CREDIT_DAYS)

    def _end_day(self) -> protocol.Result:
        self._actions_left = 0
        return protocol.Result(True)

    def _morning(self) -> list[Settlement]:
        """Credits come in, then new receipts."""
        self._actions_left = self.office.actions_per_day
        self._credited = [c for c, day in self._under_way.values() if day + c.days_late <= self._day]
        for credit in self._credited:
            del self._under_way[credit.receipt_id]
            self._cents += round(credit.amount * 100)
        for _ in range(self.office.receipts_per_day):
            self._received += 1
            name, amount = f"R{self._received}", integer(next(self._amounts), 1_000, 10_000) / 100
            self._tray[name] = Receipt(name, amount, self._day + DUE_DAYS)
        return [Settlement(c.receipt_id, {DAY: self._day, AMOUNT: c.amount}) for c in self._credited]

    def _strike(self) -> list[ShockRecord]:
        """Three variates a step, used or not: runs that differ in p_error share them."""
        strike, target, size = (next(self._errors) for _ in range(3))
        sound = [c for c, _ in self._under_way.values() if not c.days_late and c.amount == c.posted]
        if strike >= self.office.p_error:
            return []
        if not sound:
            return [ShockRecord(self._step, "temporal", None, "void", None, None, None)]
        credit = sound[int(target * len(sound))]
        self._wrong += 1
        if size < 0.5:
            credit.days_late = days = integer(2 * size, 1, 3)
            return [ShockRecord(self._step, "temporal", "late", "realised", credit.receipt_id, days, days)]
        credit.amount = round(credit.posted * size, 2)
        return [ShockRecord(self._step, "amount", "short", "realised", credit.receipt_id, 1 - size, 1 - size)]

    def _overdue(self) -> int:
        return sum(receipt.due_day < self._day for receipt in self._tray.values())

    def _observe(self) -> Observation:
        counts = len(self._tray), self._overdue()
        return Observation(
            self._step + 1, self._day, self._actions_left, self._cents / 100, *counts, credited=self._credited
        )


WORLD = Ledger
