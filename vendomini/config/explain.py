"""What is wrong with a config, in a sentence that names file, line and the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vendomini.config.paths import leaf_paths, literal
from vendomini.config.schema import DATE_PATTERN, NAME_PATTERN, RunConfig
from vendomini.config.source import KeyPath, Place, shown
from vendomini.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)

MAX_SHOWN = 40
"""Characters of a list or section that is shown as it is."""

_SECTIONS = {"dict_type", "model_type", "model_attributes_type"}
_NUMBERS = {"int_type", "int_parsing", "int_from_float", "float_type", "float_parsing"}
_DEMANDS = {
    **dict.fromkeys(_SECTIONS, "must be a section, with lines of key: value"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list"),
    "string_type": "must be text",
    "string_too_short": "must not be empty",
}
"""Kind of pydantic's error → what the value must be."""

_PATTERNS = {
    NAME_PATTERN: "must begin with a letter or digit and have only letters, digits, '.', '_' and '-', at most 100",
    DATE_PATTERN: "must be a date such as 2026-01-31",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tree came from: the file, and the position of each key as far as it is known."""

    places: dict[KeyPath, Place]
    path: Path

    def place(self, at: KeyPath) -> Place:
        """The position of the longest known prefix of a key path."""
        for end in range(len(at), 0, -1):
            if at[:end] in self.places:
                return self.places[at[:end]]
        return Place(shown(self.path), 0)

    def with_places(self, more: dict[KeyPath, Place]) -> Source:
        return Source(self.places | more, self.path)


def validate(model: type[Model], tree: Mapping[str, object], source: Source, prefix: KeyPath = ()) -> Model:
    """The tree as an instance of the model.

    Args:
        prefix: where in the file the values are, if not under their own keys: ``("fixed",)`` or a place in the grid.

    Raises:
        ConfigError: the first thing that is wrong; where several are, how many more.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as exc:
        raise _all_of([_line(model, error, prefix, source) for error in exc.errors(include_url=False)]) from exc


class Faults:
    """Collects what is wrong, and raises all of it at the end as one :class:`ConfigError`.

    Attributes:
        lines: what is wrong so far.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __enter__(self) -> Faults:
        return self

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        if isinstance(exc, ConfigError):
            self._add(exc)
        if self.lines and isinstance(exc, ConfigError | None):
            raise _all_of(self.lines) from exc

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around one check: the others still follow."""
        try:
            yield
        except ConfigError as exc:
            self._add(exc)

    def _add(self, exc: ConfigError) -> None:
        self.lines += [line for line in exc.lines or [str(exc)] if line not in self.lines]


def _all_of(lines: Sequence[str]) -> ConfigError:
    """One error that says the first thing that is wrong, and keeps the others."""
    more = f" (and {len(lines) - 1} more: vendomini config check lists them)" if len(lines) > 1 else ""
    return ConfigError(f"{lines[0]}{more}", lines)


def _line(model: type[BaseModel], error: ErrorDetails, prefix: KeyPath, source: Source) -> str:
    at = tuple(str(part) for part in error["loc"] if not str(part).startswith("["))
    return f"{_prefixed_place(at, prefix, source)}: {_sentence(model, at, error)}"


def _prefixed_place(at: KeyPath, prefix: KeyPath, source: Source) -> Place:
    if prefix[:1] == ("fixed",) and ("fixed", ".".join(at)) in source.places:
        return source.places[("fixed", ".".join(at))]
    return source.place(prefix if prefix[:1] == ("grid",) else at)


def _sentence(model: type[BaseModel], at: KeyPath, error: ErrorDetails) -> str:
    dotted = ".".join(at)
    if error["type"] == "extra_forbidden":
        return f"unknown key {dotted}{_hint(model, at)}"
    if error["type"] == "missing":
        return f"{dotted} is missing"
    value, kind = error["input"], error["type"]
    if kind == "list_type" and at[:1] == ("grid",):
        return f"{dotted} is {literal(value)}: the grid wants a list of values (a single value belongs under fixed)"
    if kind == "value_error" and isinstance(value, dict):
        return str(error["ctx"]["error"])
    return f"{dotted} is {_brief(value)}: {_demand(error)}{_meant(model, at, error)}"


def _demand(error: ErrorDetails) -> str:
    """What a value must be, without the words of the library that checks it."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _DEMANDS:
        return _DEMANDS[kind]
    if kind in {"too_short", "too_long"}:
        few = kind == "too_short"
        number = context["min_length" if few else "max_length"]
        return f"must have at {'least' if few else 'most'} {number} {'value' if number == 1 else 'values'}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{message[0].lower()}{message[1:]}"


def _meant(model: type[BaseModel], at: KeyPath, error: ErrorDetails) -> str:
    value, kind = error["input"], error["type"]
    if not isinstance(value, str):
        return ""
    if kind in _NUMBERS and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return ", without quotes"
    if kind in _SECTIONS and (named := f"{'.'.join(at)}.name") in leaf_paths(model):
        return f"; did you mean {named}?"
    if kind == "literal_error":
        allowed = [word.strip("' ") for word in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        near = difflib.get_close_matches(value, allowed, 1)
        return f"; did you mean {near[0]}?" if near else ""
    return ""


def _brief(value: object) -> str:
    """A value as YAML writes it, or what it is if that is long."""
    if isinstance(value, dict | list) and len(literal(value)) > MAX_SHOWN:
        return "a section" if isinstance(value, dict) else "a list"
    return literal(value)


def _hint(model: type[BaseModel], at: KeyPath) -> str:
    """The nearest valid name on the same level, or where a key of another level belongs."""
    key = at[-1]
    former = model.former_names if issubclass(model, RunConfig) else {}
    if len(at) == 1 and key in former:
        return f"; this is {former[key]}: now"
    section: type[BaseModel] = model
    for part in at[:-1]:
        field = section.model_fields.get(part)
        below = field.annotation if field else None
        alternatives = [one for kind in get_args(below) for one in (kind, *get_args(kind))]
        kinds = [kind for kind in (below, *alternatives) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        section = kinds[0] if kinds else section
    siblings = [*section.model_fields, "inherit"] if len(at) == 1 else list(section.model_fields)
    elsewhere = [path for path in leaf_paths(model) if path.rsplit(".", 1)[-1] == key]
    near = [*elsewhere, *difflib.get_close_matches(key, siblings, n=1)]
    return f"; did you mean {near[0]}?" if near else f"; known here are {', '.join(siblings)}"
