"""Dot paths into a config: ``agent.model.name``."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from functools import cache

from pydantic import BaseModel


@cache
def leaf_paths(model: type[BaseModel], prefix: str = "") -> dict[str, bool]:
    """Every parameter's dot path, and whether it is a free-form mapping into which a path may reach."""
    paths: dict[str, bool] = {}
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            paths |= leaf_paths(annotation, f"{prefix}{name}.")
        else:
            paths[prefix + name] = str(annotation).startswith("dict")
    return paths


def assign(tree: Mapping[str, object], path: str, value: object) -> dict[str, object]:
    """The tree with one value replaced; shares everything off the path with the old one."""
    head, _, rest = path.partition(".")
    if not rest:
        return {**tree, head: value}
    below = tree.get(head)
    return {**tree, head: assign(below if isinstance(below, dict) else {}, rest, value)}


def lookup(tree: Mapping[str, object], path: str) -> object:
    """The value at a path.

    Raises:
        KeyError: there is none.
    """
    value: object = tree
    for part in path.split("."):
        if not isinstance(value, dict):
            raise KeyError(path)
        value = value[part]
    return value


def short(path: str) -> str:
    """What a parameter is called in a table: the last part of its path."""
    return "model" if path == "agent.model.name" else path.rsplit(".", 1)[-1]


def as_text(value: object) -> str:
    """A value as YAML writes it, without quotes around text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def literal(value: object) -> str:
    """A value as YAML writes it, with quotes around text."""
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` for a mistyped path, or for the mistyped last part of one, or nothing."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if not near:
        by_last_part = {path.rsplit(".", 1)[-1]: path for path in reversed(known)}
        parts = difflib.get_close_matches(name.rsplit(".", 1)[-1], by_last_part, n=1)
        near = [by_last_part[part] for part in parts]
    return f"; did you mean {near[0]}?" if near else ""
