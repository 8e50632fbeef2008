"""What worlds share about tools: schemas of parameters, strict validation of what an agent sends, and taking a call.

The agent reads the same schema that checks its arguments, so the two can't drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from vendomini.worlds.protocol import Call, Error, Result, ToolSpec
from vendomini.worlds.text import clip, json_safe

Schema = dict[str, Any]
"""JSON schema of one parameter."""

Handler = Callable[..., Result]
"""Runs a tool: its arguments in the schema's order → the result."""

_Check = Callable[[object], object]
"""Turns what was sent into the value; raises :class:`InvalidArguments`."""


class InvalidArguments(Exception):
    """Its text says which argument is wrong, and how."""


# ------------------------------------------------------------------------------------------- describing


def describe(
    name: str, description: str, properties: Mapping[str, Schema] | None = None, effect: bool = False
) -> ToolSpec:
    """A tool, all of whose parameters are required."""
    properties = dict(properties or {})
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return ToolSpec(name, description, parameters, effect)


def choice(description: str, values: list[str]) -> Schema:
    return {"type": "string", "enum": values, "description": description}


def integer(description: str, minimum: int, maximum: int) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": maximum, "description": description}


def text(description: str, longest: int) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": longest, "description": description}


# ------------------------------------------------------------------------------------------- answering


def refuse(code: str, message: str) -> Result:
    """The result of a call that failed."""
    return Result(False, error=Error(code, message))


def unknown(what: str, key: str, known: Iterable[str]) -> Result:
    """The result of a call that names something that does not exist."""
    names = ", ".join(islice(known, 10)) or "none"
    return refuse("unknown_id", f"There is no {what} {key[:40]!r}; there are: {names}.")


Taken = tuple[object, str | None, Result]
"""A call that was taken: its identity, its tool, its result. See :class:`Outcome`."""


class Desk:
    """Takes the calls of one world: refuses anything but a call of a known tool with valid arguments, and runs the
    rest.

    Attributes:
        handlers: tool → what runs it; filled by the world when an episode begins.
        last_error: code of the last call that failed, in this episode.
    """

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self._arguments = {spec.name: Arguments(spec) for spec in tools}
        self.handlers: Mapping[str, Handler] = {}
        self.last_error: str | None = None

    def open(self, handlers: Mapping[str, Handler]) -> None:
        """Begins an episode."""
        self.handlers, self.last_error = handlers, None

    def take(self, call: Call) -> Taken:
        """Never raises, whatever the agent sent."""
        tool, complaint = call.tool, call.complaint
        if tool is None:
            assert complaint is not None, "without a call there is a complaint"
            return None, None, self._refused(complaint.code, complaint.message)
        check = self._arguments.get(tool)
        if check is None:
            message = f"There is no tool {clip(tool)!r}; there are: {', '.join(self._arguments)}."
            return (clip(tool), json_safe(call.arguments)), None, self._refused("unknown_tool", message)
        try:
            values = check.validate(call.arguments)
        except InvalidArguments as exc:
            return (tool, json_safe(call.arguments)), tool, self._refused("invalid_arguments", f"{exc}.")
        if complaint is not None and complaint.fatal:
            return (tool, values), tool, self._refused(complaint.code, complaint.message)
        result = self.handlers[tool](*values)
        if result.error is not None:
            self.last_error = result.error.code
        if complaint is not None:
            result.prediction_ignored = complaint.message
        return (tool, values), tool, result

    def _refused(self, code: str, message: str) -> Result:
        self.last_error = code
        return refuse(code, message)


# ------------------------------------------------------------------------------------------- validation


class Arguments:
    """Validates the arguments of one tool.

    Args:
        spec: whose schema they must satisfy.
    """

    __slots__ = ("_checks", "_name", "_names")

    def __init__(self, spec: ToolSpec) -> None:
        self._name = spec.name
        self._checks = [(name, _check(name, schema)) for name, schema in spec.parameters["properties"].items()]
        self._names = {name for name, _ in self._checks}

    def validate(self, arguments: object) -> tuple[object, ...]:
        """The arguments in the schema's order. None stands for no arguments.

        Raises:
            InvalidArguments: one is missing, wrong or not known.
        """
        if arguments is None:
            arguments = {}
        if type(arguments) is not dict:
            raise InvalidArguments(f"arguments must be an object, not {clip(type(arguments).__name__)}")
        values = []
        for name, check in self._checks:
            if name not in arguments:
                raise InvalidArguments(f"{self._name} needs the argument {name!r}")
            values.append(check(arguments[name]))
        if len(arguments) > len(values):
            extra = next(name for name in arguments if name not in self._names)
            raise InvalidArguments(f"{self._name} has no argument {clip(extra)!r}")
        return tuple(values)


def _check(name: str, schema: Schema) -> _Check:
    if "enum" in schema:
        return _choice_check(name, schema["enum"])
    if schema["type"] == "integer":
        return _integer_check(name, schema["minimum"], schema["maximum"])
    return _text_check(name, schema["maxLength"])


def _choice_check(name: str, choices: list[str]) -> _Check:
    known = frozenset(choices)

    def check(value: object) -> str:
        if isinstance(value, str) and value in known:
            return value
        raise InvalidArguments(f"{name} must be one of {', '.join(choices)}, not {clip(value)!r}")

    return check


def _integer_check(name: str, minimum: int, maximum: int) -> _Check:
    def check(value: object) -> int:
        """An integer as in JSON schema: 3.0 is one and true is not."""
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is int and minimum <= value <= maximum:
            return value
        raise InvalidArguments(f"{name} must be an integer from {minimum} to {maximum}")

    return check


def _text_check(name: str, longest: int) -> _Check:
    def check(value: object) -> str:
        if isinstance(value, str) and 1 <= len(value) <= longest:
            return value if value.isascii() else clip(value, longest)
        raise InvalidArguments(f"{name} must be a text of 1 to {longest} characters")

    return check
