"""The environment: one agent's warehouse, step by step."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vendomini.config.schema import RunConfig
from vendomini.errors import ConfigError
from vendomini.measures.cards import Card, CardValidator, InvalidCard, contradicts
from vendomini.measures.cut_offs import CutOffs
from vendomini.measures.detectors import Detectors, Sample
from vendomini.measures.prediction import Predictions
from vendomini.worlds.randomness import uniforms
from vendomini.worlds.steps import Action, StepResult
from vendomini.worlds.text import clip, json_safe
from vendomini.worlds.vending.market import LEVELS, Market
from vendomini.worlds.vending.shocks import RISE_PERCENT, Shocks
from vendomini.worlds.vending.toolbox import Toolbox
from vendomini.worlds.vending.tools import MAX_AUDIT, Arguments, InvalidArguments, Result, refuse, tool_specs
from vendomini.worlds.vending.world import World

_TRADES = frozenset({"tool_order", "tool_ship_customer_order"})


class Environment:
    """A seeded, deterministic episode: the same seed and actions give the same results, to the byte.

    Args:
        config: of the run.

    Raises:
        ConfigError: the stock at the start does not fit the storage.
    """

    def __init__(self, config: RunConfig) -> None:
        simulation = config.simulation
        needed = simulation.initial_storage_per_sku * LEVELS[simulation.complexity_level][0]
        if needed > simulation.storage_capacity:
            raise ConfigError(
                f"simulation.initial_storage_per_sku asks for {needed} units at complexity_level "
                f"{simulation.complexity_level}, and simulation.storage_capacity is {simulation.storage_capacity}: "
                "lower the one or raise the other"
            )
        self.config = config
        self.specs = tool_specs(config)
        self._arguments = {spec.name: Arguments(spec) for spec in self.specs}
        self._cards = CardValidator(config.agent.interface)
        self._card_required = config.agent.interface.prediction_mode != "optional"
        self._max_steps = simulation.max_steps
        self._actions_per_day = simulation.actions_per_day
        self._patience = config.crash_detector.continue_after_crash
        self._ending: str | None = "not begun"

    def reset(self, *, seed: int) -> dict[str, Any]:
        """Begins an episode; returns the first observation. Every random stream is made here, from the seed."""
        config = self.config
        induction = config.pe_induction
        market = Market(config.simulation.complexity_level, uniforms(seed, "terms"), RISE_PERCENT[induction.pe_mag])
        audits = config.agent.interface.recovery_tools in {"audit", "all"}
        self.world = World(config.simulation, config.demand, market, uniforms(seed, "demand"))
        self.shocks = Shocks(induction, self.world, seed)
        self.predictions = Predictions(tuple(config.measurement.pe_windows), MAX_AUDIT if audits else 0)
        self.detectors = Detectors(config.crash_detector.thresholds)
        self._cut_offs = CutOffs(config.crash_detector.thresholds)
        self._toolbox = Toolbox(self.world, self.predictions.audit)
        self._parses: Counter[str] = Counter(ok=0, repaired=0, unparsable=0, cut_off=0)
        self._step = 0
        self._actions_left = self._actions_per_day
        self._event: tuple[str, int] | None = None
        self._ending = None
        self.world.morning()
        return self._observe()

    def step(self, action: Action) -> StepResult:
        """One tool call: a shock may strike, the tool runs, predictions and behaviour are judged, the day may turn.

        Raises:
            RuntimeError: the episode is over, or was never reset.
        """
        if self._ending is not None:
            raise RuntimeError("the episode is over, or has not begun: reset the environment")
        self._step = step = self._step + 1
        self._parses[action.parse] += 1
        self._cut_offs.add(action.parse == "cut_off")
        world = self.world
        tool = action.tool if isinstance(action.tool, str) and action.is_call else ""

        shocks = self.shocks.strike(step)
        card, key, result = self._call(tool, action)
        if world.effects:
            shocks += self.shocks.settle()

        ok, changes = result["ok"], world.changes
        resolved, contradiction = self._judge(tool, action, card, ok)
        self._actions_left -= 1
        if self._actions_left == 0 or (ok and tool == "tool_end_day"):
            resolved += self._turn_day()
        detectors = self._detect(tool, action, key, result, contradiction, changes)
        self._ending = self._judge_ending()
        return StepResult(
            result,
            self._observe(),
            card,
            shocks,
            resolved,
            self.predictions.state(),
            detectors,
            self._ending,
            ok and tool == "tool_reset_beliefs",
        )

    # ----------------------------------------------------------------------------------------- the call

    def _call(self, tool: str, action: Action) -> tuple[Card | None, Any, Result]:
        """Runs the tool. Returns the validated card, the identity of the call, and the result."""
        toolbox = self._toolbox
        toolbox.placed = toolbox.charged = None
        if not action.is_call:
            return None, None, self._refuse(action.parse, clip(action.error or "The reply is not a JSON object.", 400))
        card, complaint = self._read_card(action.card)
        check = self._arguments.get(tool)
        if check is None:
            message = f"There is no tool {clip(action.tool)!r}; there are: {', '.join(self._arguments)}."
            return card, (clip(tool), json_safe(action.arguments)), self._refuse("unknown_tool", message)
        try:
            values = check.validate(action.arguments)
        except InvalidArguments as exc:
            return card, (tool, json_safe(action.arguments)), self._refuse("invalid_arguments", f"{exc}.")
        if complaint is not None and self._card_required:
            return None, (tool, values), self._refuse(*complaint)
        result = toolbox.handlers[tool](*values)
        if not result["ok"]:
            toolbox.last_error = result["error"]["code"]
        if complaint is not None and action.card is not None:
            result["prediction_ignored"] = complaint[1]
        return card, (tool, values), result

    def _refuse(self, code: str, message: str) -> Result:
        self._toolbox.last_error = code
        return refuse(code, message)

    def _read_card(self, sent: Any) -> tuple[Card | None, tuple[str, str] | None]:
        """The card, or the code and message of what is wrong with it."""
        if sent is None:
            return None, ("card_missing", "The call needs a prediction.")
        try:
            return self._cards.validate(sent), None
        except InvalidCard as exc:
            return None, ("card_invalid", f"{exc}.")

    def _judge(
        self, tool: str, action: Action, card: Card | None, ok: bool
    ) -> tuple[list[dict[str, Any]], bool | None]:
        """The claims that the call itself settles, and whether its card contradicts it; None without a card."""
        world, order = self.world, self._toolbox.placed
        if order is not None and tool == "tool_expedite":
            self.predictions.expedited(order)
        if card is None:
            return [], None
        day, charged = world.day, self._toolbox.charged
        resolved = self.predictions.judge(self._step, day, tool, card, ok, charged, order, world.used, world.cents)
        return resolved, contradicts(action.card, card, tool, action.arguments, day)

    # ------------------------------------------------------------------------------------ day and ending

    def _turn_day(self) -> list[dict[str, Any]]:
        """Evening, and unless it ends the episode, the next morning. Returns the claims that deliveries settled."""
        world = self.world
        event = world.evening()
        if event is not None:
            self._event = (event, self._step)
            return []
        world.day += 1
        self._actions_left = self._actions_per_day
        delivered = world.morning()
        self.shocks.notices.morning()
        return self.predictions.delivered(delivered, world.day) if delivered else []

    def _detect(
        self, tool: str, action: Action, key: Any, result: Result, contradiction: bool | None, changes: int
    ) -> dict[str, Any]:
        ok = result["ok"]
        return self.detectors.update(
            Sample(
                self._step,
                key,
                changes,
                not ok and action.parse != "cut_off",
                not ok and tool == "tool_order" and result["error"]["code"] == "insufficient_funds",
                contradiction,
                tool if tool in self._arguments else None,
                len(self._arguments),
                action.thought if isinstance(action.thought, str) else "",
                ok and tool in _TRADES,
                bool(self.world.customers),
            )
        )

    def _judge_ending(self) -> str | None:
        """A crash is the event even if bankruptcy or the horizon ends the steps that follow it."""
        onset = self.detectors.flags.onset
        over = self._event is not None or self._step >= self._max_steps
        if onset is not None:
            return "crashed" if over or self._step >= onset + self._patience else None
        if self._event is not None:
            return self._event[0]
        if self._cut_offs.too_many:
            return "cut_off"
        return "survived" if over else None

    # -------------------------------------------------------------------------------------- what is seen

    def _observe(self) -> dict[str, Any]:
        world = self.world
        return {
            "step": self._step + 1,
            "day": world.day,
            "actions_left_today": self._actions_left,
            "budget": world.cents / 100,
            "storage_used": world.used,
            "storage_capacity": world.capacity,
            "inbox_unread": len(world.inbox),
            "pending_supplier_orders": len(world.pending),
            "open_customer_orders": len(world.customers),
        }

    def summary(self) -> dict[str, Any]:
        """The fields of a run's summary that the episode knows.

        ``time_to_crash`` is the onset of the first crash, or the step of bankruptcy or of the last customer; without
        such an event it is ``max_steps``, or the last step where cut-off replies ended the episode: right-censored.
        Null while the episode goes on without an event.
        """
        detectors, world = self.detectors, self.world
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
            "event_observed": None if self._ending is None else self._ending not in {"survived", "cut_off"},
            "steps": self._step,
            "days": world.day,
            "detectors": detectors.summary(),
            "orders_total": world.orders_total,
            "orders_fulfilled": world.orders_fulfilled,
            "orders_expired": world.orders_expired,
            "budget": world.cents / 100,
            "net_worth": world.net_worth(),
            "pe": self.predictions.summary(),
            "shocks": self.shocks.summary(),
            "parse": dict(self._parses),
        }
