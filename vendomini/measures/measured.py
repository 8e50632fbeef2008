"""A world with the measures around it: one step of an episode, for any world.

The card is read here, the world takes the call, and its outcome is scored: claims, detectors and the ending.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from vendomini.config.schema import RunConfig
from vendomini.errors import ConfigError
from vendomini.measures.cards import CardForm, Contradictions, InvalidCard
from vendomini.measures.cut_offs import CutOffs
from vendomini.measures.detectors import Detectors, Sample, State
from vendomini.measures.prediction import Predictions, Resolved
from vendomini.worlds.aids import AUDITS, MAX_AUDIT
from vendomini.worlds.protocol import (
    Action,
    Call,
    Card,
    Complaint,
    Observation,
    Outcome,
    Result,
    ShockRecord,
    World,
    check,
    check_outcome,
    check_summary,
)
from vendomini.worlds.text import clip

CENSORED = frozenset({"survived", "cut_off"})
"""Endings that are not events."""


class StepResult(msgspec.Struct, gc=False):
    """What came of a step. All of it is JSON-ready, and none of it changes later.

    Attributes:
        result: of the tool.
        observation: what the agent sees next.
        card: the validated card; None if missing or invalid.
        shocks: that struck or took effect.
        resolved: claims settled at this step.
        pe: type → accumulators, null while nothing of that type resolved.
        detectors: detector → value, and ``on``.
        ending: ``crashed``, an event of the world, ``survived`` or ``cut_off`` if this step was the last.
        history_cleared: the agent asked for its conversation to be cleared.
    """

    result: Result
    observation: Observation
    card: Card | None
    shocks: list[ShockRecord]
    resolved: list[Resolved]
    pe: dict[str, dict[str, float] | None]
    detectors: State
    ending: str | None = None
    history_cleared: bool = False

    @property
    def terminated(self) -> bool:
        """The episode ended by an event."""
        return self.ending is not None and not self.truncated

    @property
    def truncated(self) -> bool:
        """The episode ended without an event, at its horizon or because replies were cut off: right-censored."""
        return self.ending in CENSORED


class MeasuredWorld:
    """A seeded, deterministic episode: the same seed and actions give the same results, to the byte.

    Args:
        world: of the run.
        config: of the run.
        horizon: steps after which it is right-censored.
    """

    def __init__(self, world: World, config: RunConfig, horizon: int) -> None:
        self.world = world
        self._config = config
        self._horizon = horizon
        interface = config.agent.interface
        self._form = CardForm(interface, world.expectations)
        self._contradictions = Contradictions(world.expectations, world.tools)
        self._card_required = interface.prediction_mode != "optional"
        self._remembered = MAX_AUDIT if interface.recovery_tools in AUDITS else 0
        self._offered = len(world.tools)
        self._patience = config.crash_detector.continue_after_crash
        self._ending: str | None = "not begun"

    def reset(self, *, seed: int) -> Observation:
        """Begins an episode; returns the first observation."""
        config, world = self._config, self.world
        windows = tuple(config.measurement.pe_windows)
        self.predictions = Predictions(windows, self._remembered, world.expectations, world.promise_name)
        self.detectors = Detectors(config.crash_detector.thresholds)
        self._cut_offs = CutOffs(config.crash_detector.thresholds)
        self._parses: Counter[str] = Counter(ok=0, repaired=0, unparsable=0, cut_off=0)
        self._step = 0
        self._event: tuple[str, int] | None = None
        self._ending = None
        observation = world.reset(seed=seed, audit=self.predictions.audit)
        check(world, "reset's observation", observation, Observation)
        return observation

    def step(self, action: Action) -> StepResult:
        """One action: the world takes the call, predictions and behaviour are judged.

        Raises:
            ConfigError: the world breaks its protocol.
            RuntimeError: the episode is over, or was never reset.
        """
        if self._ending is not None:
            raise RuntimeError("the episode is over, or has not begun: reset it")
        self._step = step = self._step + 1
        self._parses[action.parse] += 1
        hidden = self._cut_offs.add(action.parse == "cut_off")
        call, card = self._read(action)
        outcome = self.world.step(call)
        if step == 1 or type(outcome) is not Outcome or getattr(outcome.observation, "step", None) != step + 1:
            self._check(outcome)
        resolved = self.predictions.judge(step, call.tool or "", card, outcome)
        if outcome.settled:
            resolved += self.predictions.settle(outcome.settled)
        detectors = self._detect(action, call, card, outcome)
        if outcome.event is not None:
            self._event = self._known(outcome.event), step
        self._ending = self._judge_ending(hidden)
        return StepResult(
            outcome.result,
            outcome.observation,
            card,
            outcome.shocks,
            resolved,
            self.predictions.state(),
            detectors,
            self._ending,
            outcome.forget,
        )

    def _check(self, outcome: Outcome) -> None:
        check_outcome(self.world, outcome)
        if outcome.observation.step != self._step + 1:
            name, at = type(self.world).__name__, outcome.observation.step
            raise ConfigError(f"{name}.step's observation must be of step {self._step + 1}, which comes next, not {at}")

    def _read(self, action: Action) -> tuple[Call, Card | None]:
        """The call as it reaches the world, and the card, if it is one."""
        if not action.is_call:
            message = clip(action.error or "The reply is not a JSON object.", 400)
            return Call(None, None, Complaint(action.parse, message)), None
        tool = action.tool if isinstance(action.tool, str) else clip(action.tool)
        sent, required = action.card, self._card_required
        if sent is None:
            complaint = Complaint("card_missing", "The call needs a prediction.") if required else None
            return Call(tool, action.arguments, complaint), None
        try:
            return Call(tool, action.arguments), self._form.validate(sent)
        except InvalidCard as exc:
            return Call(tool, action.arguments, Complaint("card_invalid", f"{exc}.", fatal=required)), None

    def _detect(self, action: Action, call: Call, card: Card | None, outcome: Outcome) -> State:
        contradiction = None
        if card is not None:
            contradiction = self._contradictions.found(action.card, card, call.tool, action.arguments, outcome.now)
        return self.detectors.update(
            Sample(
                self._step,
                outcome.key,
                outcome.changes,
                not outcome.result.ok and action.parse != "cut_off",
                outcome.denied,
                contradiction,
                outcome.tool,
                self._offered,
                action.thought if isinstance(action.thought, str) else "",
                outcome.productive,
                outcome.awaited,
            )
        )

    def _known(self, event: str) -> str:
        if event not in self.world.endings:
            raise ConfigError(f"{type(self.world).__name__} ended with {event!r}, which its endings do not name")
        return event

    def _judge_ending(self, hidden: bool) -> str | None:
        """A crash is the event even if the world or the horizon ends the steps that follow it.

        Args:
            hidden: too many replies were cut off to see what the agent does.
        """
        onset = self.detectors.flags.onset
        over = self._event is not None or self._step >= self._horizon
        if onset is not None:
            return "crashed" if over or self._step >= onset + self._patience else None
        if self._event is not None:
            return self._event[0]
        if hidden:
            return "cut_off"
        return "survived" if over else None

    def summary(self) -> dict[str, Any]:
        """The fields of a run's summary that the episode knows.

        ``time_to_crash`` is the onset of the first crash, or the step at which the world ended the episode; without
        such an event it is the last step, right-censored. Null while the episode goes on without an event.
        """
        detectors, world = self.detectors, self.world.summary()
        check_summary(self.world, world)
        first = detectors.flags.first
        time: int | None = None
        if first is not None:
            time = detectors.flags.onset
        elif self._event is not None:
            time = self._event[1]
        elif self._ending is not None:
            time = self._step
        return {
            "ending": self._ending,
            "crash_type": first,
            "severity": detectors.severity(first) if first else None,
            "time_to_crash": time,
            "event_observed": None if self._ending is None else self._ending not in CENSORED,
            "steps": self._step,
            "detectors": detectors.summary(),
            "pe": self.predictions.summary(),
            "parse": dict(self._parses),
            "shocks": world.shocks,
            "world": dict(world.values),
        }
