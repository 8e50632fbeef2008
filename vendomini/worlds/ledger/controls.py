"""A clerk whose predictions come true where nothing goes wrong, and one that derails when something does."""

from __future__ import annotations

import msgspec

from vendomini.errors import EngineError
from vendomini.worlds.conversation import Control, Message, split_turn, write_reply
from vendomini.worlds.ledger import AMOUNT, BALANCE, CREDIT_DAYS, DAY, Observation, Receipt

MARK = "Nothing adds up."
"""How the derailed one begins its thoughts: it has no other memory of having derailed."""


class _Answer(msgspec.Struct):
    receipts: list[Receipt] | None = None


class Seen(msgspec.Struct):
    """What the visible conversation tells."""

    now: Observation
    tray: list[Receipt] = []
    surprises: int = 0
    last: str = ""


class Oracle(Control[Seen]):
    """Reads the tray, posts what is due first, and expects what the rules say."""

    name = "oracle"

    def read(self, messages: list[Message], seen: Seen | None, start: int) -> Seen:
        for message in messages[start:]:
            if message["role"] == "user":
                seen = _see(message["content"], seen)
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
    """An oracle until it derails, the likelier the more credits in sight went wrong; then it only reads the tray.
    Synthetic: it shows what a dose does, and says nothing about any model."""

    name = "fragile"

    def reply(self, seen: Seen, seed: int) -> str:
        derails = seed % 100_003 / 100_003 < 0.0005 + 0.004 * seen.surprises
        if derails or seen.last.startswith(f'{{"thought":"{MARK}'):
            return say(seen, f"{MARK} I read the tray again.", "tool_read_tray")
        return super().reply(seen, seed)


def say(seen: Seen, thought: str, tool: str, expected: dict[str, float] | None = None, **arguments: str) -> str:
    card = {"expected_success": True, DAY: None, AMOUNT: None, BALANCE: seen.now.balance, **(expected or {})}
    return write_reply(thought, tool, arguments, card)


def _see(content: str, seen: Seen | None) -> Seen:
    try:
        result, observation = split_turn(content)
        now = msgspec.json.decode(observation, type=Observation)
        tray = msgspec.json.decode(result or "{}", type=_Answer).receipts
    except ValueError as exc:
        raise EngineError(f"the scripted engine can't read this turn ({exc}): {content[:200]}") from exc
    seen = Seen(now) if seen is None else seen
    seen.now, seen.tray = now, seen.tray if tray is None else tray
    seen.surprises += sum(credit.days_late > 0 or credit.amount != credit.posted for credit in now.credited)
    return seen


CONTROLS: dict[str, type[Control[Seen]]] = {control.name: control for control in (Oracle, Fragile)}
