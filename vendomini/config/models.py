"""``models:`` of a phase: settings that single models get, by name or pattern."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

from vendomini.config.paths import assign, leaf_paths, lookup
from vendomini.config.schema import EngineConfig, Model

NAME = "agent.model.name"

Models = dict[str, dict[str, object]]


def model_name(parameters: Mapping[str, object]) -> str:
    """The model of a run."""
    return str(model_section(parameters)["name"])


def model_section(parameters: Mapping[str, object]) -> dict[str, object]:
    """The settings of a run's model: the section ``agent.model``."""
    section = lookup(parameters, "agent.model")
    assert isinstance(section, dict), "validated"
    return section


class Setting(NamedTuple):
    """A value, and the entry of ``models:`` that says it."""

    entry: str
    value: object


@cache
def settable() -> dict[str, bool]:
    """The paths that an entry may set, and whether each is a free-form mapping into which a path may reach."""
    known = leaf_paths(Model, "agent.model.") | leaf_paths(EngineConfig, "engine.")
    return {path: free for path, free in known.items() if path != NAME}


def matches(entry: str, name: str) -> bool:
    return entry == name or fnmatchcase(name, entry)


def settings(models: Models, name: str) -> dict[str, Setting]:
    """Path → setting of one model. Of several entries that match, the later wins, and the model's own name always."""
    found = sorted((entry for entry in models if matches(entry, name)), key=lambda entry: entry == name)
    return {path: Setting(entry, value) for entry in found for path, value in models[entry].items()}


def split(path: str) -> tuple[str, str] | None:
    """``<entry>.<path>`` of an override, in which the entry may hold dots itself."""
    found = re.fullmatch(r"(.+?)\.((?:agent\.model|engine)\..+)", path, re.DOTALL)
    return (found[1], found[2]) if found else None


def overridden(models: Models, key: str, value: object) -> Models:
    """The entries without what an override of ``key`` replaces."""
    return {entry: _without(said, key, value) if isinstance(said, dict) else said for entry, said in models.items()}


def _without(said: Mapping[str, object], key: str, value: object) -> dict[str, object]:
    kept: dict[str, object] = {}
    for path, old in said.items():
        if path == key or path.startswith(f"{key}."):
            continue
        inside = key.removeprefix(f"{path}.")
        kept[path] = assign(old, inside, value) if inside != key and isinstance(old, dict) else old
    return kept
