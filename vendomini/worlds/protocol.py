"""What a world is, and everything that passes between it and the rest of the program.

The boundary is that of Gymnasium's ``Env`` and of verifiers' environments: a world has rules, tools and a state, and
says what came of a call. It handles no prediction cards, detectors or engines: :mod:`vendomini.measures` judges a step
by what the world reports here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, ClassVar, Literal

import msgspec

from vendomini.config.schema import RunConfig
from vendomini.config.worlds import WorldInfo, find_world
from vendomini.errors import ConfigError
from vendomini.records import ParseStatus
from vendomini.worlds.conversation import Controls

Value = bool | int | float | str | None
"""What an expectation, and what came of it, can be."""

CardValue = Value | list[str]
Card = dict[str, CardValue]
"""A prediction card: field → what is stated; None where nothing is."""

SUCCESS = "expected_success"
"""The field that every card has."""


# --------------------------------------------------------------------------------- what an agent is offered


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as the agent sees it.

    Attributes:
        parameters: a JSON schema of an object.
        effect: it is called to change something: to call it and to expect its failure is a contradiction.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    effect: bool = False


class Expectation(msgspec.Struct, frozen=True):
    """A field of a prediction card, beside ``expected_success``, and how it is scored.

    ==========  =====================================================================================
    score       prediction error
    ==========  =====================================================================================
    relative    abs(expected − actual) / max(expected, 1)
    wait        abs(expected − actual) / max(expected − now, 1): a moment of the world's clock
    exact       1 if it differs by more than ``tolerance``, else 0; judged right after the call, in one
                claim with ``expected_success`` and all other exact ones
    ==========  =====================================================================================

    Attributes:
        field: its name on the card.
        type: ``boolean``, ``integer`` or ``number``.
        error: the type of prediction error.
        signed: it may be below 0.
        minimal: the minimal card format has it as well.
        echoes: tool → its argument that this expectation repeats; to miss it by more than half is a contradiction.
    """

    field: str
    type: Literal["boolean", "integer", "number"]
    description: str
    score: Literal["relative", "wait", "exact"]
    error: str = "causal"
    tolerance: float = 0.0
    signed: bool = False
    minimal: bool = False
    echoes: dict[str, str] = {}


# ------------------------------------------------------------------------------------- what goes into a step


class Action(msgspec.Struct, gc=False):
    """What an agent did, as the parser found it; nothing in it is trusted.

    Attributes:
        parse: ``ok``, ``repaired``, ``unparsable`` or ``cut_off``; the last two are not calls.
        tool, arguments: the call.
        card: the prediction that came with it; None if none did.
        thought: stated reasoning.
        error: why the completion can't be parsed, as the agent is told.
        reason: the same in a word; empty for a call.
    """

    parse: ParseStatus
    tool: str | None = None
    arguments: object = None
    card: object = None
    thought: str = ""
    error: str = ""
    reason: str = ""

    @property
    def is_call(self) -> bool:
        return self.parse in {"ok", "repaired"}


class Complaint(msgspec.Struct, frozen=True, gc=False):
    """Why a call fails whatever the state of the world; or, if not ``fatal``, what is wrong with the card that came
    with it."""

    code: str
    message: str
    fatal: bool = True


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call as it reaches the world; untrusted, except for the complaint.

    Attributes:
        tool: its name; None where there was no call to read.
    """

    tool: str | None
    arguments: object = None
    complaint: Complaint | None = None


# ---------------------------------------------------------------------------------- what comes out of a step


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What an agent sees before a step; a world adds its fields.

    Attributes:
        step: number of the coming step, from 1.
    """

    step: int


class Error(msgspec.Struct, frozen=True, gc=False):
    """Why a call failed."""

    code: str
    message: str


class _Ok(msgspec.Struct, gc=False):
    ok: bool


class Result(_Ok, kw_only=True, omit_defaults=True, gc=False):
    """A tool's answer; a world adds its fields, which come before those of here. Fields that have their default are not
    shown.

    Attributes:
        ok: whether the call succeeded.
        error: why it did not.
        prediction_ignored: what was wrong with the card of a call that runs without one.
    """

    error: Error | None = None
    prediction_ignored: str | None = None


class ShockRecord(msgspec.Struct, frozen=True, gc=False):
    """A shock, when it strikes, and again when it takes effect, if that is later.

    Attributes:
        struck: the step at which it struck.
        type, kind: in the world's own names.
        status: ``realised``, ``armed`` (its effect comes later) or ``void`` (there was nothing to hit).
        target: what was hit.
        nominal, realised: the dose as it was drawn, and as it came out.
    """

    struck: int
    type: str
    kind: str | None
    status: Literal["realised", "armed", "void"]
    target: str | None
    nominal: float | None
    realised: float | None


class Promise(msgspec.Struct, frozen=True, gc=False):
    """What a call set going: something of which the outcome is known later.

    Attributes:
        key: its name, until it is settled.
        opens: the card's fields that are claims about it.
        lapses: fields of earlier cards about it that no longer apply, since the agent changed it.
    """

    key: str
    opens: tuple[str, ...] = ()
    lapses: tuple[str, ...] = ()


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What came of something that was set going: field → actual value. It is closed with that."""

    key: str
    values: Mapping[str, Value]


class Outcome(msgspec.Struct, gc=False):
    """What came of a call. None of it changes later.

    Attributes:
        result: of the tool.
        observation: what the agent sees next.
        shocks: that struck or took effect at this step.
        key: identity of the call; None where there was none.
        tool: the tool, if it is one of those offered.
        changes: a counter that rises with every change that an agent could have made or seen, other than time; right
            after the call.
        now: the world's clock at the call.
        values: the actual values of the expectations that settle at once, by field.
        denied: refused for lack of funds, or of whatever else is spent here.
        promise: what the call set going, or changed.
        settled: what was settled since the call.
        event: the ending, if the world ended the episode.
        productive: the call did what the agent is there for.
        awaited: somebody waits for that.
        forget: the agent asked for its conversation to be cleared.
    """

    result: Result
    observation: Observation
    shocks: list[ShockRecord]
    key: object
    tool: str | None
    changes: int
    now: int
    values: Mapping[str, Value]
    denied: bool = False
    promise: Promise | None = None
    settled: Sequence[Settlement] = ()
    event: str | None = None
    productive: bool = False
    awaited: bool = False
    forget: bool = False


class Audited(msgspec.Struct):
    """A past prediction and what came of it so far: error type → actual value, and → prediction error."""

    step: int
    tool: str
    expected: Card
    actual: dict[str, object]
    pe: dict[str, float]


class Summary(msgspec.Struct, frozen=True):
    """How an episode of a world stands.

    Attributes:
        shocks: how many there were, and how large; JSON-ready.
        values: the world's own figures.
    """

    shocks: dict[str, object]
    values: Mapping[str, Value]


Audit = Callable[[int], list[Audited]]
"""The last n predictions, oldest first: for a tool that shows them."""


# --------------------------------------------------------------------------------------------- the world


class World(WorldInfo, ABC):
    """One episode's world, seeded and deterministic: the same seed and calls give the same outcomes, to the byte.

    Made for one run's config, then begun with :meth:`reset`, any number of times.

    Attributes:
        tools: offered in this run, in the order in which the agent is told of them.
        expectations: what a prediction card can state besides success; their order is that of its fields.
        card_note: a sentence of the rules about these fields, or nothing.
        promise_name: what a promise's key is called in the log, such as ``order_id``.

    Raises:
        ConfigError: the config asks for what the world can't be.
    """

    expectations: ClassVar[tuple[Expectation, ...]] = ()
    card_note: ClassVar[str] = ""
    promise_name: ClassVar[str] = "about"
    tools: Sequence[ToolSpec]

    @abstractmethod
    def __init__(self, config: object) -> None: ...

    @abstractmethod
    def rules(self) -> str:
        """What the agent is told of the world, in lines that end with a newline: the system message begins with it."""

    @abstractmethod
    def reset(self, *, seed: int, audit: Audit) -> Observation:
        """Begins an episode. Every random stream is made here, from the seed."""

    @abstractmethod
    def step(self, call: Call) -> Outcome:
        """One call. Nothing in it raises."""

    @abstractmethod
    def summary(self) -> Summary:
        """How the episode stands."""

    @classmethod
    def controls(cls) -> Controls:
        """Name → control, for the scripted engine."""
        return {}


def load_world(name: str) -> type[World]:
    """The world class of this name.

    Raises:
        ConfigError: there is none.
    """
    world = find_world(name)
    if not issubclass(world, World):
        raise ConfigError(f"experiment.world {name} must be a class derived from vendomini.worlds.protocol.World")
    return world


def open_world(name: str, config: RunConfig) -> World:
    """The world of a run, before its first :meth:`World.reset`.

    Raises:
        ConfigError: its tools or expectations are none that an agent can be offered.
    """
    world = load_world(name)(config)
    tools = getattr(world, "tools", None)
    if not (isinstance(tools, Sequence) and tools and all(isinstance(tool, ToolSpec) for tool in tools)):
        raise ConfigError(f"{type(world).__name__}.tools must be a list of ToolSpec, at least one")
    if len({tool.name for tool in tools}) < len(tools):
        raise ConfigError(f"{type(world).__name__}.tools has two tools of one name")
    fields = [SUCCESS, *(expectation.field for expectation in world.expectations)]
    if len(set(fields)) < len(fields):
        raise ConfigError(f"{type(world).__name__}.expectations has a field twice, or {SUCCESS}, which every card has")
    return world


def check(world: World, what: str, value: object, kind: type | UnionType) -> None:
    """Raises:
    ConfigError: what a world gave is of another kind than it must be.
    """
    if not isinstance(value, kind):
        wanted = getattr(kind, "__name__", kind)
        raise ConfigError(f"{type(world).__name__}.{what} must be of type {wanted}, not {type(value).__name__}")


_OUTCOME: Mapping[str, type] = {
    **{"result": Result, "observation": Observation, "shocks": list, "changes": int, "now": int},
    **{"values": Mapping, "settled": Sequence},
}


def check_outcome(world: World, outcome: Any) -> None:
    """:func:`check` for an outcome and its parts."""
    check(world, "step's outcome", outcome, Outcome)
    for field, kind in _OUTCOME.items():
        check(world, f"step's {field}", getattr(outcome, field), kind)
    _check_values(world, "step", outcome.values)


def check_summary(world: World, summary: Any) -> None:
    """:func:`check` for a summary and its parts."""
    check(world, "summary", summary, Summary)
    check(world, "summary's shocks", summary.shocks, dict)
    check(world, "summary's values", summary.values, Mapping)
    _check_values(world, "summary", summary.values)


def _check_values(world: World, method: str, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        check(world, f"{method}'s {name}", value, Value)
