"""The ledger of a small office: receipts come in, and each has to be posted before it is due.

What was posted is credited some days later. Shocks make a credit late or short, and nothing else: they do not make the
task harder. So a run shows the effect of prediction errors alone. At the end of the file are its controls.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from pydantic import Field

from vendomini.config import RunConfig, Section
from vendomini.config.schema import Positive, Probability
from vendomini.worlds import protocol
from vendomini.worlds.aids import RESET_BELIEFS, Aids, aid_specs
from vendomini.worlds.conversation import Control, Controls, Message, turn_reader, write_reply
from vendomini.worlds.protocol import (
    Audit,
    Call,
    Expectation,
    Outcome,
    Promise,
    Result,
    Settlement,
    ShockRecord,
    Summary,
)
from vendomini.worlds.randomness import integer, uniforms
from vendomini.worlds.tools import Desk, Handler, describe, text, unknown

CREDIT_DAYS, DUE_DAYS = 2, 4
RECEIPT_ID, END_DAY = "Id of a receipt in the tray, such as R1.", "tool_end_day"
MARK = "Nothing adds up."  # how a control that has derailed begins its thoughts: its only memory of that
DAY, AMOUNT, BALANCE = "expected_credit_day", "expected_amount", "expected_balance_after"


class Office(Section):
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
    receipt_id: str
    posted: float
    amount: float
    days_late: int = 0


class Observation(protocol.Observation, frozen=True):
    day: int
    actions_left_today: int
    balance: float
    receipts: int
    overdue: int
    credited: list[Credit]  # since the step before


class Answer(Result):
    receipts: list[Receipt] | None = None
    credit_day: int | None = None


class Ledger(protocol.World):
    config = LedgerConfig
    horizon = "office.max_steps"
    dose = "office.p_error"
    dose_label = "p_error (probability of a wrong credit at each step)"
    facts = (dose,)
    pe_types = ("temporal", "amount", "causal")
    endings: ClassVar = {"dismissed": "dismissal"}
    promise_name = "receipt_id"
    expectations = (
        Expectation(DAY, "integer", "Day on which a posted receipt is credited.", "wait", "temporal", minimal=True),
        Expectation(AMOUNT, "number", "Amount that will be credited.", "relative", "amount"),
        Expectation(BALANCE, "number", "Balance right after this call.", "exact", tolerance=0.005),
    )

    def __init__(self, config: LedgerConfig) -> None:
        self.office = config.office
        self.tools = [
            describe("tool_read_tray", "List the receipts that are to be posted."),
            describe("tool_post", "Post a receipt.", {"receipt_id": text(RECEIPT_ID, 40)}, effect=True),
            describe(END_DAY, "End the day now.", effect=True),
            *aid_specs(config.agent.interface),
        ]
        self._desk = Desk(self.tools)

    @classmethod
    def controls(cls) -> Controls:
        return {control.name: control for control in (Oracle, Fragile)}

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
            "tool_read_tray": lambda: Answer(True, receipts=list(self._tray.values())),
            "tool_post": self._post,
            END_DAY: lambda: Result(True),
        }
        self._desk.open({**own, **self._aids.handlers})
        self._actions_left = self._cents = self._step = self._received = self._posted = self._wrong = 0
        self._day = -1
        self._morning()
        return self._observe()

    def step(self, call: Call) -> Outcome:
        self._step, self._actions_left = self._step + 1, self._actions_left - 1
        self._credited: list[Credit] = []
        self._promise: Promise | None = None
        shocks = self._strike()
        key, tool, result = self._desk.take(call)
        now, values = self._day, {BALANCE: self._cents / 100}
        changes = self._received + self._posted + self._aids.changes
        settled = self._morning() if self._actions_left <= 0 or (result.ok and tool == END_DAY) else []
        observation = self._observe()
        return Outcome(
            result, observation, shocks, key, tool, changes, now, values, promise=self._promise, settled=settled,
            event="dismissed" if observation.overdue >= self.office.max_overdue else None,
            productive=self._promise is not None, awaited=bool(self._tray), forget=result.ok and tool == RESET_BELIEFS,
        )  # fmt: skip

    def summary(self) -> Summary:
        figures = {"days": self._day, "received": self._received, "posted": self._posted, "balance": self._cents / 100}
        return Summary({"realised": self._wrong}, figures)

    def _post(self, receipt_id: str) -> Result:
        receipt = self._tray.pop(receipt_id, None)
        if receipt is None:
            return unknown("receipt in the tray", receipt_id, self._tray)
        self._posted += 1
        day = self._day + CREDIT_DAYS
        self._under_way[receipt_id] = Credit(receipt_id, receipt.amount, receipt.amount), day
        self._promise = Promise(receipt_id, opens=(DAY, AMOUNT))
        return Answer(True, credit_day=day)

    def _morning(self) -> list[Settlement]:
        self._day, self._actions_left = self._day + 1, self.office.actions_per_day
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

    def _observe(self) -> Observation:
        waiting, overdue = len(self._tray), sum(receipt.due_day < self._day for receipt in self._tray.values())
        money = self._cents / 100
        return Observation(self._step + 1, self._day, self._actions_left, money, waiting, overdue, self._credited)


WORLD = Ledger


class Seen(msgspec.Struct):
    now: Observation
    tray: list[Receipt] = []
    surprises: int = 0
    last: str = ""


class Oracle(Control[Seen]):
    """Reads the tray, posts what is due first, and expects what the rules say."""

    name = "oracle"
    read_turn = staticmethod(turn_reader(Answer, Observation))

    def read(self, messages: list[Message], seen: Seen | None, start: int) -> Seen:
        for message in messages[start:]:
            if message["role"] == "user":
                answer, now = self.read_turn(message["content"])
                seen = seen or Seen(now)
                seen.now, seen.tray = now, seen.tray if answer is None or answer.receipts is None else answer.receipts
                seen.surprises += sum(credit.days_late > 0 or credit.amount != credit.posted for credit in now.credited)
            elif message["role"] == "assistant" and seen is not None:
                seen.last = message["content"]
                seen.tray = [receipt for receipt in seen.tray if f'"{receipt.receipt_id}"' not in seen.last]
        assert seen is not None, "a prompt ends with a user message"
        return seen

    def reply(self, seen: Seen, seed: int) -> str:  # noqa: ARG002 - nothing is left to chance
        where = f"It is day {seen.now.day}, and {seen.now.receipts} receipts are in the tray."
        if len(seen.tray) != seen.now.receipts:
            return say(seen, f"{where} I don't know them all, so I read it.", "tool_read_tray")
        if not seen.tray:
            return say(seen, f"{where} There is nothing to post, so I end the day.", "tool_end_day")
        first = min(seen.tray, key=lambda receipt: receipt.due_day)
        expected = {DAY: seen.now.day + CREDIT_DAYS, AMOUNT: first.amount}
        return say(seen, f"{where} I post what is due first.", "tool_post", expected, receipt_id=first.receipt_id)


class Fragile(Oracle):
    """An oracle that derails, the likelier the more credits went wrong, and then only reads the tray: synthetic."""

    name = "fragile"

    def reply(self, seen: Seen, seed: int) -> str:
        derails = seed % 100_003 / 100_003 < 0.0005 + 0.004 * seen.surprises
        if derails or seen.last.startswith(f'{{"thought":"{MARK}'):
            return say(seen, f"{MARK} I read the tray again.", "tool_read_tray")
        return super().reply(seen, seed)


def say(seen: Seen, thought: str, tool: str, expected: dict[str, float] | None = None, **arguments: str) -> str:
    card = {"expected_success": True, DAY: None, AMOUNT: None, BALANCE: seen.now.balance, **(expected or {})}
    return write_reply(thought, tool, arguments, card)
