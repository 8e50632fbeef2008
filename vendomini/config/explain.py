"""What is wrong with a config, in a sentence that names file, line and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vendomini.config.paths import leaf_paths, literal
from vendomini.config.schema import RunConfig
from vendomini.config.source import KeyPath, Place, shown
from vendomini.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


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
        raise all_of([_line(model, error, prefix, source) for error in exc.errors(include_url=False)]) from exc


def all_of(lines: Sequence[str]) -> ConfigError:
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
    value = error["input"]
    if error["type"] == "list_type" and at[:1] == ("grid",):
        return f"{dotted} is {literal(value)}: the grid wants a list of values (a single value belongs under fixed)"
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        return str(error["ctx"]["error"])
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    shown = literal(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    suggestion = ""
    if error["type"] == "literal_error" and isinstance(value, str):
        near = difflib.get_close_matches(
            value, [w.strip("' ") for w in error["ctx"]["expected"].replace(" or ", ",").split(",")], 1
        )
        suggestion = f"; did you mean {near[0]}?" if near else ""
    return f"{dotted} is {shown}: {message[0].lower()}{message[1:]}{suggestion}"


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
