"""YAML files → one validated :class:`PhaseConfig`, with a sentence that names file and line for whatever is wrong.

Raw mappings are merged along ``inherit`` first, overridden, validated once; defaults come last, from the schema.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from vendomini.config.models import NAME, Setting, matches, overridden, settable, settings, split
from vendomini.config.paths import assign, leaf_paths, lookup, nearest
from vendomini.config.schema import DEFAULT_WORLD, SCRIPTED_PREFIX, EngineConfig, Lookup, PhaseConfig, RunConfig
from vendomini.config.shipped import find_config
from vendomini.config.source import MAX_DEPTH, KeyPath, Place, parse_value, read, shown
from vendomini.config.worlds import WorldInfo, control_name, find_world, phase_config, split_control
from vendomini.errors import ConfigError

ROOMY: dict[str, Any] = {"agent": {"model": {"context_length": 10**9, "max_tokens": 1}}}
"""A file in which a setting of a model that has no runs is judged by itself, whatever else that model would need."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A loaded phase.

    Attributes:
        config: validated; ``fixed`` is checked but not yet applied.
        bases: model name → its run's sections as a plain tree, with ``models`` and then ``fixed`` applied and every
            default filled in.
        engines: model name → where and how it runs.
        axes: grid path → its values, validated and in the order of the file.
        path: the file it came from.
    """

    config: PhaseConfig
    bases: dict[str, dict[str, Any]]
    engines: dict[str, EngineConfig]
    axes: dict[str, list[Any]]
    path: Path

    @property
    def name(self) -> str:
        return self.config.experiment.name

    @property
    def base(self) -> dict[str, Any]:
        """Of the first model."""
        return next(iter(self.bases.values()))

    @property
    def world(self) -> type[WorldInfo]:
        return find_world(self.config.experiment.world)

    def own_settings(self) -> dict[str, dict[str, Any]]:
        """Model name → path → value, of the models that have settings of their own under ``models``."""
        own = {name: settings(self.config.models, name) for name in self.bases}
        return {name: {path: said.value for path, said in found.items()} for name, found in own.items() if found}


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Phase:
    """Loads a phase file.

    Args:
        path: the YAML file, or the path of a shipped one (``configs/…``).
        overrides: ``key=value`` with a dot path and a YAML value, applied over everything else in the file;
            an override of a grid path replaces its whole axis.

    Raises:
        ConfigError: one sentence with file, line and the nearest valid name.
    """
    file = find_config(Path(path))
    raw, places = read(file)
    return load_tree(raw, file, overrides, places)


def load_tree(
    raw: dict[str, Any], path: Path, overrides: Sequence[str] = (), places: dict[KeyPath, Place] | None = None
) -> Phase:
    """A phase from a tree that was read already, with overrides applied.

    Raises:
        ConfigError: see :func:`load_config`.
    """
    places = {} if places is None else places
    _normalise(raw)
    for override in overrides:
        _override(raw, places, override)
    return build_phase(raw, places, path)


def build_phase(
    raw: dict[str, Any],
    places: dict[KeyPath, Place] | None = None,
    path: Path = Path("config"),
    *,
    trusted: bool = True,
) -> Phase:
    """Validates a merged tree (as :func:`load_config` reads it, or as a results folder's plan keeps it).

    Args:
        trusted: see :func:`find_world`.

    Raises:
        ConfigError: see :func:`load_config`.
    """
    places = places or {}
    run = _world(raw, places, path, trusted).config
    config: PhaseConfig = _validate(phase_config(run), raw, places, path)
    for key in config.fixed:
        _check_path(run, key, ("fixed", key), places, path)
        if key in config.grid:
            raise ConfigError(f"{_place(('fixed', key), places, path)}: {key} is both fixed and in the grid: keep one")
    for key, values in config.grid.items():
        _check_path(run, key, ("grid", key), places, path)
        if not values:
            raise ConfigError(f"{_place(('grid', key), places, path)}: grid.{key} is empty: list at least one value")
    common = _run_tree(run, _settled(run, raw, config, {}), places, path, prefix=("fixed",) if config.fixed else ())
    names = [common["agent"]["model"]["name"]]
    if NAME in config.grid:
        names = _axis(run, NAME, config.grid[NAME], [common], places, path)
    _check_controls(config, names, places, path)
    _check_models(run, config, names, places, path)
    phases = {name: _one_model(run, raw, config, name, places, path) for name in names}
    bases = {name: phase.model_dump(mode="json", include=set(run.model_fields)) for name, phase in phases.items()}
    axes = {key: _axis(run, key, values, list(bases.values()), places, path) for key, values in config.grid.items()}
    _check_lookups(config, axes, places, path)
    _check_contrasts(config, axes, places, path)
    return Phase(config, bases, {name: phase.engine for name, phase in phases.items()}, axes, path)


def _world(raw: dict[str, Any], places: dict[KeyPath, Place], path: Path, trusted: bool) -> type[WorldInfo]:
    experiment = raw.get("experiment")
    name = experiment.get("world", DEFAULT_WORLD) if isinstance(experiment, dict) else DEFAULT_WORLD
    if not isinstance(name, str) or not name:
        return find_world(DEFAULT_WORLD)  # the validation says what is wrong with it
    try:
        return find_world(name, trusted=trusted)
    except ConfigError as exc:
        raise ConfigError(f"{_place(('experiment', 'world'), places, path)}: {exc}") from exc


def _settled(run: type[RunConfig], raw: dict[str, Any], config: PhaseConfig, own: dict[str, Setting]) -> dict[str, Any]:
    """The file's sections, a model's own settings over them, and what is fixed for all over both."""
    tree = {key: raw.get(key) or {} for key in (*run.model_fields, "engine")}
    for key, setting in own.items():
        tree = assign(tree, key, setting.value)
    for key, value in config.fixed.items():
        tree = assign(tree, key, value)
    return tree


def _one_model(
    run: type[RunConfig], raw: dict[str, Any], config: PhaseConfig, name: str, places: dict[KeyPath, Place], path: Path
) -> PhaseConfig:
    """The phase as one of its models runs it."""
    own = settings(config.models, name)
    tree = assign(_settled(run, raw, config, own), NAME, name)
    stand = {tuple(key.split(".")): _place(("models", said.entry, key), places, path) for key, said in own.items()}
    phase: PhaseConfig = _validate(type(config), tree, places | stand, path, ("fixed",) if config.fixed else ())
    return phase


def _check_models(
    run: type[RunConfig],
    config: PhaseConfig,
    names: list[str],
    places: dict[KeyPath, Place],
    path: Path,
) -> None:
    """Every entry's keys, the values of one that no model has, and whether a file's own entries name its models."""
    for entry, said in config.models.items():
        for key in said:
            _check_path(run, key, ("models", entry, key), places, path)
        if any(matches(entry, name) for name in names):
            continue
        place = places.get(("models", entry))
        if place and NAME in config.grid and place.file == _place(("grid", NAME), places, path).file:
            raise ConfigError(f"{place}: models names {entry!r}, which is no model of the grid{nearest(entry, names)}")
        alone = config.model_copy(update={"models": {entry: said}, "fixed": {}})
        _one_model(run, ROOMY, alone, entry, places, path)


def _axis(
    run: type[RunConfig],
    key: str,
    values: list[Any],
    bases: list[dict[str, Any]],
    places: dict[KeyPath, Place],
    path: Path,
) -> list[Any]:
    """The axis' values, each validated in its place in a whole run of each model and brought to its canonical type."""
    valid = []
    for index, value in enumerate(values):
        at = ("grid", key, str(index))
        trees = [_run_tree(run, assign(base, key, value), places, path, prefix=at) for base in bases]
        canonical = lookup(trees[0], key)
        if canonical in valid:
            raise ConfigError(f"{_place(at, places, path)}: grid.{key} lists {canonical!r} twice")
        valid.append(canonical)
    return valid


def _check_path(run: type[RunConfig], key: str, at: KeyPath, places: dict[KeyPath, Place], path: Path) -> None:
    of_models = at[0] == "models"
    known = settable() if of_models else leaf_paths(run)
    free = key.count(".") < MAX_DEPTH and any(key.startswith(f"{one}.") for one in known if known[one])
    free = free and all(key.split("."))
    if key not in known and not free:
        what = "which is no agent.model.* or engine.* setting" if of_models else "which is no parameter"
        raise ConfigError(f"{_place(at, places, path)}: {at[0]} names {key!r}, {what}{nearest(key, known)}")


def _check_contrasts(config: PhaseConfig, axes: dict[str, list[Any]], places: dict[KeyPath, Place], path: Path) -> None:
    """Against the grid as the file has it: who overrides the grid may leave a contrast without runs."""
    for index, contrast in enumerate(config.analysis.primary):
        begin = f"{_place(('analysis', 'primary', str(index)), places, path)}: analysis.primary"
        for key in (contrast.factor, *contrast.within):
            if key not in axes and not _overridden(key, places):
                raise ConfigError(f"{begin} names {key}, which the grid does not vary{nearest(key, [*axes])}")
        levels = axes.get(contrast.factor, [])
        if contrast.compare is None and not all(type(level) in {int, float} for level in levels):
            raise ConfigError(f"{begin} has no compare, and {contrast.factor} is not a number: add two of its levels")
        for key, value in [*((contrast.factor, level) for level in contrast.compare or []), *contrast.within.items()]:
            if value not in axes.get(key, []) and not _overridden(key, places):
                raise ConfigError(f"{begin} names {key} = {value!r}, which is not in the grid")
        if contrast.compare and contrast.compare[0] == contrast.compare[1]:
            raise ConfigError(f"{begin} compares {contrast.compare[0]!r} with itself")


def _overridden(key: str, places: dict[KeyPath, Place]) -> bool:
    at = (("grid",), ("grid", key), tuple(key.split(".")))
    return not places or any(places[one].file.startswith("-o ") for one in at if one in places)


def _check_lookups(config: PhaseConfig, axes: dict[str, Any], places: dict[KeyPath, Place], path: Path) -> None:
    for table in config.lookups:
        if getattr(config, table.key) and table.sets in axes:
            raise ConfigError(
                f"{_place(('grid', table.sets), places, path)}: grid.{table.sets} and {table.key} both set "
                f"{table.sets}: keep one"
            )


def _check_controls(config: PhaseConfig, names: list[str], places: dict[KeyPath, Place], path: Path) -> None:
    """A scripted agent reads the prompts of its own world and no other's."""
    here = config.experiment.world
    for name in names:
        world, control = split_control(name)
        if name.startswith(SCRIPTED_PREFIX) and world != here:
            at = ("grid", NAME) if NAME in config.grid else tuple(NAME.split("."))
            raise ConfigError(
                f"{_place(at, places, path)}: {name} is a control of the world {world}, and experiment.world is "
                f"{here}: name one of its own, such as {control_name(here, control)}"
            )


def _run_tree(
    run: type[RunConfig], sections: dict[str, Any], places: dict[KeyPath, Place], path: Path, prefix: KeyPath
) -> dict[str, Any]:
    valid: RunConfig = _validate(run, {key: sections[key] for key in run.model_fields}, places, path, prefix)
    return valid.model_dump(mode="json")


# ------------------------------------------------------------------------------------------ overrides


def _override(raw: dict[str, Any], places: dict[KeyPath, Place], text: str) -> None:
    key, equals, value_text = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"-o {text}: write key=value, for example -o agent.model.temperature=0.2")
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
    _normalise(raw)
    for varied in ("grid", "fixed"):
        if isinstance(raw.get(varied), dict):
            raw[varied] = {path: values for path, values in raw[varied].items() if path != key}
    if isinstance(raw.get("models"), dict):
        raw["models"] = overridden(raw["models"], key, value)
    for table in _lookups(raw):
        if key == table.sets:
            raw.pop(table.key, None)
    _mark(places, tuple(key.split(".")), here)


def _lookups(raw: dict[str, Any]) -> tuple[Lookup, ...]:
    """Of the world that the file names, as far as it does."""
    try:
        return _world(raw, {}, Path(), trusted=True).config.lookups
    except ConfigError:
        return ()


def _override_model(raw: dict[str, Any], places: dict[KeyPath, Place], path: str, value: Any, here: Place) -> None:
    found = split(path)
    if found is None:
        raise ConfigError(f"{here}: write models.NAME.agent.model.KEY=value or models.NAME.engine.KEY=value")
    entry, key = found
    models = raw.get("models")
    said = models.get(entry) if isinstance(models, dict) else None
    raw["models"] = {**(models or {}), entry: {**(said or {}), key: value}}
    _mark(places, ("models", entry, key), here)


def _mark(places: dict[KeyPath, Place], at: KeyPath, here: Place) -> None:
    """From now on, this key, all below it, and what had to be made above it, stand here."""
    for known in [known for known in places if known[: len(at)] == at]:
        del places[known]
    for depth in range(1, len(at) + 1):
        places.setdefault(at[:depth], here)


def _normalise(raw: dict[str, Any]) -> None:
    """``engine: hf`` is short for ``engine: {backend: hf}``."""
    if isinstance(raw.get("engine"), str):
        raw["engine"] = {"backend": raw["engine"]}


# ------------------------------------------------------------------------------------------- messages


def _place(at: KeyPath, places: dict[KeyPath, Place], path: Path) -> Place:
    """The place of the longest known beginning of a key path."""
    for end in range(len(at), 0, -1):
        if at[:end] in places:
            return places[at[:end]]
    return Place(shown(path), 0)


def _validate(
    model: type[Any], tree: dict[str, Any], places: dict[KeyPath, Place], path: Path, prefix: KeyPath = ()
) -> Any:
    """Raises:
    ConfigError: the first thing that is wrong; where several are, how many more.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        at = tuple(str(part) for part in errors[0]["loc"] if part != "[key]")
        place = _prefixed_place(at, prefix, places, path)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ConfigError(f"{place}: {_sentence(model, at, errors[0])}{more}") from exc


def _prefixed_place(at: KeyPath, prefix: KeyPath, places: dict[KeyPath, Place], path: Path) -> Place:
    if prefix[:1] == ("fixed",) and ("fixed", ".".join(at)) in places:
        return places[("fixed", ".".join(at))]
    return _place(prefix if prefix[:1] == ("grid",) else at, places, path)


def _sentence(model: type[BaseModel], at: KeyPath, error: Any) -> str:
    dotted = ".".join(at)
    if error["type"] == "extra_forbidden":
        return f"unknown key {dotted}{_hint(model, at)}"
    value = error["input"]
    if error["type"] == "list_type" and at[:1] == ("grid",):
        return f"{dotted} is {value!r}: the grid wants a list of values (a single value belongs under fixed)"
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        return str(error["ctx"]["error"])
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
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
    section: Any = model
    for part in at[:-1]:
        field = section.model_fields.get(part)
        section = field.annotation if field else section
    siblings = [*section.model_fields, "inherit"] if len(at) == 1 else list(section.model_fields)
    near = difflib.get_close_matches(key, siblings, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    elsewhere = [path for path in leaf_paths(model) if path.rsplit(".", 1)[-1] == key]
    return f"; did you mean {elsewhere[0]}?" if elsewhere else f"; known here are {', '.join(siblings)}"
