"""``-o key=value``: a file's tree with a value replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from vendomini.config.models import overridden, split
from vendomini.config.paths import assign
from vendomini.config.schema import DEFAULT_WORLD, Lookup
from vendomini.config.source import MAX_DEPTH, KeyPath, Place, parse_value
from vendomini.config.worlds import find_world
from vendomini.errors import ConfigError


def override(raw: dict[str, object], places: dict[KeyPath, Place], text: str) -> None:
    """Applies one, in place.

    Raises:
        ConfigError: it is not of the form ``key=value``, or can't be applied.
    """
    key, equals, value_text = text.partition("=")
    key = key.strip()
    if not equals or not key[:1].isalpha():
        raise ConfigError(f"-o {text}: write {meant(text) or 'key=value, for example -o agent.model.temperature=0.2'}")
    here = Place(f"-o {text}", 0)
    if key.count(".") >= MAX_DEPTH:
        raise ConfigError(f"-o {key[:40]}…: no parameter has {MAX_DEPTH} parts")
    try:
        value = parse_value(value_text, f"-o {key}")
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"-o {text}: the value is not valid YAML") from exc
    section, _, path = key.partition(".")
    if section == "models" and path:
        _override_model(raw, places, path, value, here)
        return
    if section in {"grid", "fixed"} and path:
        old = raw.get(section)
        raw[section] = {**old, path: value} if isinstance(old, dict) else old or {path: value}
        _mark(places, (section, path), here)
        return
    raw.update(assign(raw, key, value))
    normalise(raw)
    for varied in ("grid", "fixed"):
        if isinstance(paths := raw.get(varied), dict):
            raw[varied] = {path: values for path, values in paths.items() if path != key}
    if isinstance(models := raw.get("models"), dict):
        raw["models"] = overridden(models, key, value)
    for table in _lookups(raw):
        if key == table.sets:
            raw.pop(table.key, None)
    _mark(places, tuple(key.split(".")), here)


def meant(text: str) -> str:
    """The option for a parameter that was set as other tools do (``+key=value``, ``--key=value``, ``key:value``), or
    an empty text."""
    found = re.fullmatch(r"[-+~]*([a-z][\w.]*)\s*[=:]\s*(\S.*)", text)
    return f"-o {found[1]}={found[2]}" if found else ""


def _lookups(raw: Mapping[str, object]) -> tuple[Lookup, ...]:
    """Lookups in the config of the world that the file names, if it names one."""
    experiment = raw.get("experiment")
    name = experiment.get("world", DEFAULT_WORLD) if isinstance(experiment, dict) else DEFAULT_WORLD
    try:
        return find_world(str(name)).config.lookups
    except ConfigError:
        return ()


def _override_model(
    raw: dict[str, object], places: dict[KeyPath, Place], path: str, value: object, here: Place
) -> None:
    found = split(path)
    if found is None:
        raise ConfigError(f"{here}: write models.NAME.agent.model.KEY=value or models.NAME.engine.KEY=value")
    entry, key = found
    models = raw.get("models")
    models = models if isinstance(models, dict) else {}
    said = models.get(entry)
    raw["models"] = {**models, entry: {**(said if isinstance(said, dict) else {}), key: value}}
    _mark(places, ("models", entry, key), here)


def _mark(places: dict[KeyPath, Place], at: KeyPath, here: Place) -> None:
    """Records the override as the place of this key, of all below it, and of what had to be made above it."""
    for known in [known for known in places if known[: len(at)] == at]:
        del places[known]
    for depth in range(1, len(at) + 1):
        places.setdefault(at[:depth], here)


def normalise(raw: dict[str, object]) -> None:
    """``engine: hf`` is short for ``engine: {backend: hf}``, and ``breaker: off`` for ``breaker: {unusable: null}``."""
    if raw.get("breaker") == "off":
        raw["breaker"] = {"unusable": None}
    if isinstance(raw.get("engine"), str):
        raw["engine"] = {"backend": raw["engine"]}
