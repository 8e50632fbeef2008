"""The worlds there are, and what configs and reports need to know about one.

A world is named by ``experiment.world``. Those that ship are found by their folder, others by an entry point of the
group ``vendomini.worlds``, or as ``module:Class``. Each is imported by name when it is needed, so that nothing here
depends on one.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, ClassVar, cast

from pydantic import BaseModel, Field, create_model

from vendomini.config.paths import leaf_paths, lookup, nearest
from vendomini.config.schema import DEFAULT_WORLD, SCRIPTED_PREFIX, PhaseConfig, RunConfig, Section
from vendomini.errors import ConfigError
from vendomini.records import StepRecord

GROUP = "vendomini.worlds"
_PACKAGE = "vendomini.worlds"
_EXPORT = "WORLD"
"""What a world's package calls its class."""

_DECLARED = ("config", "horizon", "dose", "dose_label", "pe_types")
"""What a world must say, beside its abstract methods."""

_NOT_OURS = {"world", *PhaseConfig.model_fields}
"""Names that a world's own sections can't have."""


class WorldInfo:
    """What a world declares about itself, for configs, run ids and reports. Used as a class, without an instance.

    Attributes:
        config: a run of this world: :class:`RunConfig` with the world's own sections.
        horizon: dot path of the parameter that bounds an episode, in steps.
        dose: dot path of the number whose effect on survival is studied.
        dose_label: its axis in figures.
        mix: dot path of the parameter that says which kinds of error are provoked, if there is one.
        pe_types: the types of prediction error, in the order in which they are shown.
        facts: dot paths of parameters that are shown beside an episode.
        endings: an event that ends an episode → what it is called in a sentence (``the loss of all customers``).
        inert_without_dose: dot paths of parameters that do nothing where the dose is 0: a grid has one cell for all
            their values there.
    """

    config: ClassVar[type[RunConfig]]
    horizon: ClassVar[str]
    dose: ClassVar[str]
    dose_label: ClassVar[str]
    mix: ClassVar[str | None] = None
    pe_types: ClassVar[tuple[str, ...]]
    facts: ClassVar[tuple[str, ...]] = ()
    endings: ClassVar[Mapping[str, str]] = {}
    inert_without_dose: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def controls(cls) -> Mapping[str, object]:
        """Name → control, for the scripted engine."""
        return {}

    @staticmethod
    def caused_errors(steps: Iterable[StepRecord]) -> Iterator[dict[str, float]] | None:  # noqa: ARG004
        """For each step of one episode's log, type → mean error of the promises that it settled, as far as the world
        caused it: what was promised against what came, 0 for a promise that was kept, on promises made before any
        detector went on. None, as here, where the world does not say."""
        return None


def find_world(name: str, *, trusted: bool = True) -> type[WorldInfo]:
    """The world of this name.

    Args:
        trusted: the name is the user's own. Where it was read from a results folder, which may come from anywhere, only
            worlds that are installed are loaded.

    Raises:
        ConfigError: there is none, it can't be imported, or it is not a world.
    """
    if ":" in name and not trusted and name.partition(":")[0] not in sys.modules:
        raise ConfigError(
            f"the world {name} is not loaded, since it is only named by the results folder: install it with an entry "
            f"point of the group {GROUP}"
        )
    return _load(name)


@cache
def _load(name: str) -> type[WorldInfo]:
    world = _import(name)
    if not (isinstance(world, type) and issubclass(world, WorldInfo)):
        raise ConfigError(f"experiment.world {name} must be a class derived from vendomini.worlds.protocol.World")
    _check_declarations(name, world)
    for section, field in world.config.model_fields.items():
        if section in RunConfig.model_fields:
            continue
        if section in _NOT_OURS:
            raise ConfigError(f"experiment.world {name}: it can't have a section called {section}")
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            raise ConfigError(f"experiment.world {name}: its section {section} must be a vendomini.config.Section")
    return world


def _check_declarations(name: str, world: type[WorldInfo]) -> None:
    left_out = [attribute for attribute in _DECLARED if not hasattr(world, attribute)]
    left_out += sorted(getattr(world, "__abstractmethods__", ()))
    if left_out:
        raise ConfigError(f"experiment.world {name} does not define {', '.join(left_out)}")
    if not (isinstance(world.config, type) and issubclass(world.config, RunConfig)):
        raise ConfigError(f"experiment.world {name}: its config must be a vendomini.config.RunConfig")
    if not (isinstance(world.pe_types, tuple) and isinstance(world.endings, Mapping)):
        raise ConfigError(f"experiment.world {name}: its pe_types must be a tuple, and its endings a dict")
    known = leaf_paths(world.config)
    for path in (world.horizon, world.dose, world.mix, *world.facts, *world.inert_without_dose):
        if path is not None and path not in known:
            raise ConfigError(f"experiment.world {name}: its config has no {path}{nearest(path, known)}")
    if _type_of(world.config, world.horizon) is not int:
        raise ConfigError(f"experiment.world {name}: its horizon {world.horizon} must be an int")
    if _type_of(world.config, world.dose) not in (int, float):
        raise ConfigError(f"experiment.world {name}: its dose {world.dose} must be an int or a float")


def _type_of(config: type[BaseModel], path: str) -> object:
    section, _, rest = path.partition(".")
    annotation = config.model_fields[section].annotation
    return _type_of(cast("type[BaseModel]", annotation), rest) if rest else annotation


def _import(name: str) -> object:
    module, colon, attribute = name.partition(":")
    try:
        if colon:
            return getattr(importlib.import_module(module), attribute)
        if name in _built_in():
            return getattr(importlib.import_module(f"{_PACKAGE}.{name}"), _EXPORT)
        for entry in entry_points(group=GROUP, name=name):
            return entry.load()
    except Exception as exc:  # it may be anyone's module
        raise ConfigError(f"experiment.world {name} can't be imported: {exc} ({type(exc).__name__})") from exc
    known = known_worlds()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}, or module:Class"
    raise ConfigError(f"experiment.world is {name!r}, which is no world; {hint}")


def known_worlds() -> list[str]:
    """The names of the worlds that are installed."""
    return sorted({*_built_in(), *(entry.name for entry in entry_points(group=GROUP))})


@cache
def _built_in() -> frozenset[str]:
    spec = find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    return frozenset(module.name for module in pkgutil.iter_modules(places) if module.ispkg)


@cache
def phase_config(config: type[RunConfig]) -> type[PhaseConfig]:
    """The contents of a phase file whose runs have this config."""
    keys: dict[str, Any] = {
        table.key: (table.annotation, Field(default_factory=dict, description=table.description))
        for table in config.lookups
    }
    bases: tuple[type[RunConfig], ...] = (PhaseConfig, config)
    return cast("type[PhaseConfig]", create_model("PhaseConfig", __base__=bases, **keys))


# ------------------------------------------------------------------------------------------- of a run


def world_name(parameters: Mapping[str, object]) -> str:
    """The world of a run. Runs in the default world don't name it, so that their ids are those of versions that had
    no other."""
    return str(parameters.get("world", DEFAULT_WORLD))


def world_of(parameters: Mapping[str, object], *, trusted: bool = True) -> type[WorldInfo]:
    """The same, loaded; see :func:`find_world`."""
    return find_world(world_name(parameters), trusted=trusted)


def named(parameters: dict[str, object], world: str) -> dict[str, object]:
    """A run's parameters with the name of its world."""
    return parameters if world == DEFAULT_WORLD else {**parameters, "world": world}


def run_config(parameters: Mapping[str, object]) -> RunConfig:
    """A run's parameters, validated."""
    sections = {key: value for key, value in parameters.items() if key != "world"}
    return world_of(parameters).config.model_validate(sections)


def horizon(parameters: Mapping[str, object]) -> int:
    """Steps after which the run is right-censored."""
    steps = lookup(parameters, world_of(parameters).horizon)
    assert isinstance(steps, int), "validated"
    return steps


def split_control(model: str) -> tuple[str, str]:
    """``scripted/oracle`` → vending, oracle; ``scripted/ledger/oracle`` → ledger, oracle."""
    world, _, control = model.removeprefix(SCRIPTED_PREFIX).rpartition("/")
    return world or DEFAULT_WORLD, control


def control_name(world: str, control: str) -> str:
    """The model name of a world's control."""
    return f"{SCRIPTED_PREFIX}{control}" if world == DEFAULT_WORLD else f"{SCRIPTED_PREFIX}{world}/{control}"
