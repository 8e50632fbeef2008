"""What goes into a step of the environment, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vendomini.measures.cards import Card
from vendomini.records import ParseStatus
from vendomini.worlds.vending.tools import Result


@dataclass(slots=True)
class Action:
    """What an agent did, as the parser found it; nothing in it is trusted.

    Attributes:
        parse: ``ok``, ``repaired``, ``unparsable`` or ``cut_off``; the last two are no call.
        tool, arguments: the call.
        card: the prediction that came with it; None if none did.
        thought: stated reasoning.
        error: why the completion can't be parsed, as the agent is told.
        reason: the same in a word of :data:`vendomini.agent.parse.COMPLAINTS`; empty for a call.
    """

    parse: ParseStatus
    tool: str | None = None
    arguments: Any = None
    card: Any = None
    thought: str = ""
    error: str = ""
    reason: str = ""

    @property
    def is_call(self) -> bool:
        return self.parse in {"ok", "repaired"}


@dataclass(slots=True)
class StepResult:
    """What came of a step. All of it is JSON-ready, and none of it changes later.

    Attributes:
        result: of the tool: ``{ok: true, …}`` or ``{ok: false, error: {code, message}}``.
        observation: what the agent sees next.
        card: the validated card; None if missing or invalid.
        shocks: log entries of this step, see :mod:`vendomini.worlds.vending.shocks`.
        resolved: claims settled at this step, see :mod:`vendomini.measures.prediction`.
        pe: type → accumulators, null while nothing of that type resolved.
        detectors: detector → value, and ``on``.
        ending: ``crashed``, ``bankrupt``, ``customers_lost``, ``survived`` or ``cut_off`` if this step was the last.
        history_cleared: the agent asked for its conversation to be cleared.
    """

    result: Result
    observation: dict[str, Any]
    card: Card | None
    shocks: list[dict[str, Any]]
    resolved: list[dict[str, Any]]
    pe: dict[str, Any]
    detectors: dict[str, Any]
    ending: str | None = None
    history_cleared: bool = False

    @property
    def terminated(self) -> bool:
        """The episode ended by an event."""
        return self.ending is not None and not self.truncated

    @property
    def truncated(self) -> bool:
        """The episode ended without an event, at ``max_steps`` or because replies were cut off: right-censored."""
        return self.ending in {"survived", "cut_off"}
