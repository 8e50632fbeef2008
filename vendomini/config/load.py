"""YAML files → one validated :class:`PhaseConfig`, with a sentence that names file and line for any error.

Raw mappings are merged along ``inherit`` first, overridden, validated once; defaults come last, from the schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from vendomini.config.difference import differences, trial_name
from vendomini.config.explain import Faults, Source, validate
from vendomini.config.models import NAME, Setting, matches, model_name, settable, settings
from vendomini.config.override import normalise, override
from vendomini.config.paths import assign, leaf_paths, literal, lookup, nearest
from vendomini.config.schema import DEFAULT_WORLD, SCRIPTED_PREFIX, EngineConfig, PhaseConfig, Replications, RunConfig
from vendomini.config.shipped import find_config
from vendomini.config.source import MAX_DEPTH, KeyPath, Place, read
from vendomini.config.worlds import WorldInfo, control_name, find_world, phase_config, split_control
from vendomini.errors import ConfigError

ROOMY: dict[str, object] = {"agent": {"model": {"context_length": 10**9, "max_tokens": 1}}}
"""A file in which a setting of a model without runs is checked by itself, whatever else that model would need."""


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
        trial: what overrides make of the experiment (``@max_steps=50``), where they change more than a grid varies.
        home: the results folder it came from, if it did.
    """

    config: PhaseConfig
    bases: dict[str, dict[str, object]]
    engines: dict[str, EngineConfig]
    axes: dict[str, list[object]]
    path: Path
    trial: str = ""
    home: Path | None = None

    @property
    def name(self) -> str:
        return self.config.experiment.name

    @property
    def base(self) -> dict[str, object]:
        """The parameters of the first model."""
        return next(iter(self.bases.values()))

    @property
    def world(self) -> type[WorldInfo]:
        return find_world(self.config.experiment.world)

    def own_settings(self) -> dict[str, dict[str, object]]:
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
    raw: dict[str, object], path: Path, overrides: Sequence[str] = (), places: dict[KeyPath, Place] | None = None
) -> Phase:
    """A phase from a tree that was read already, with overrides applied.

    Raises:
        ConfigError: see :func:`load_config`.
    """
    places = {} if places is None else places
    normalise(raw)
    plain = deepcopy(raw)
    for text in overrides:
        override(raw, places, text)
    phase = build_phase(raw, places, path)
    return replace(phase, trial=_trial(plain, phase)) if overrides else phase


def _trial(plain: dict[str, object], phase: Phase) -> str:
    """What the overrides have made of the experiment; nothing where they also name it."""
    try:
        before = build_phase(plain, path=phase.path)
    except ConfigError:  # complete with its overrides only
        return ""
    return trial_name(differences(before, phase)) if before.name == phase.name else ""


def build_phase(
    raw: dict[str, object],
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
    source = Source(places or {}, path)
    run = _world(raw, source, trusted).config
    with Faults() as faults:
        known = set()
        for key, where in _named_paths(raw):
            with faults.one():
                _check_path(run, key, (where, key), source)
                known.add(key)
        config = _only(known, validate(phase_config(run), raw, source))
        common = _run_tree(run, _settled(run, raw, config, {}), source, prefix=("fixed",) if config.fixed else ())
        names = [model_name(common)]
        with faults.one():
            if NAME in config.grid:
                names = [str(name) for name in _axis(run, NAME, config, [common], source)]
        with faults.one():
            _check_controls(config, names, source, trusted)
        with faults.one():
            _check_models(run, config, names, source)
        bases = [common]
        with faults.one():
            phases = {name: _one_model(run, raw, config, name, source) for name in names}
            bases = [phase.model_dump(mode="json", include=set(run.model_fields)) for phase in phases.values()]
        axes: dict[str, list[object]] = {}
        for key in config.grid:
            with faults.one():
                axes[key] = _axis(run, key, config, bases, source)
        for check in (_check_lookups, _check_contrasts):
            with faults.one():
                check(config, axes, source)
        if not faults.lines:  # an axis with a fault would be missed
            _check_replications(config, axes, source)
    engines = {name: phase.engine for name, phase in phases.items()}
    return Phase(config, dict(zip(names, bases, strict=True)), engines, axes, path)


def _named_paths(raw: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Every path that ``fixed`` or ``grid`` names, and which of the two."""
    for where in ("fixed", "grid"):
        section = raw.get(where)
        yield from ((str(key), where) for key in section) if isinstance(section, dict) else ()


def _only(known: set[str], config: PhaseConfig) -> PhaseConfig:
    """The config without what ``fixed`` and ``grid`` say of unknown parameters, so that the rest can be checked."""
    kept = {
        where: {key: value for key, value in getattr(config, where).items() if key in known}
        for where in ("fixed", "grid")
    }
    return config if known >= {*config.fixed, *config.grid} else config.model_copy(update=kept)


def _world(raw: Mapping[str, object], source: Source, trusted: bool) -> type[WorldInfo]:
    experiment = raw.get("experiment")
    name = experiment.get("world", DEFAULT_WORLD) if isinstance(experiment, dict) else DEFAULT_WORLD
    if not isinstance(name, str) or not name:
        return find_world(DEFAULT_WORLD)  # the validation says what is wrong with it
    try:
        return find_world(name, trusted=trusted)
    except ConfigError as exc:
        raise ConfigError(f"{source.place(('experiment', 'world'))}: {exc}") from exc


def _settled(
    run: type[RunConfig], raw: Mapping[str, object], config: PhaseConfig, own: dict[str, Setting]
) -> dict[str, object]:
    """The file's sections, a model's own settings over them, and what is fixed for all over both."""
    tree: dict[str, object] = {key: raw.get(key) or {} for key in (*run.model_fields, "engine")}
    for key, setting in own.items():
        tree = assign(tree, key, setting.value)
    for key, value in config.fixed.items():
        tree = assign(tree, key, value)
    return tree


def _one_model(
    run: type[RunConfig], raw: Mapping[str, object], config: PhaseConfig, name: str, source: Source
) -> PhaseConfig:
    """The phase as one of its models runs it."""
    own = settings(config.models, name)
    tree = assign(_settled(run, raw, config, own), NAME, name)
    stand = {tuple(key.split(".")): source.place(("models", said.entry, key)) for key, said in own.items()}
    return validate(type(config), tree, source.with_places(stand), ("fixed",) if config.fixed else ())


def _check_models(
    run: type[RunConfig],
    config: PhaseConfig,
    names: list[str],
    source: Source,
) -> None:
    """Every entry's keys, the values of one that no model has, and whether a file's own entries name its models."""
    for entry, said in config.models.items():
        for key in said:
            _check_path(run, key, ("models", entry, key), source)
        if any(matches(entry, name) for name in names):
            continue
        place = source.places.get(("models", entry))
        if place and NAME in config.grid and place.file == source.place(("grid", NAME)).file:
            raise ConfigError(f"{place}: models names {entry!r}, which is no model of the grid{nearest(entry, names)}")
        alone = config.model_copy(update={"models": {entry: said}, "fixed": {}})
        _one_model(run, ROOMY, alone, entry, source)


def _axis(
    run: type[RunConfig],
    key: str,
    config: PhaseConfig,
    bases: list[dict[str, object]],
    source: Source,
) -> list[object]:
    """The axis' values, each validated in its place in a whole run of each model and converted to its canonical
    type."""
    if key in config.fixed:
        raise ConfigError(f"{source.place(('fixed', key))}: {key} is both fixed and in the grid: keep one")
    if not config.grid[key]:
        raise ConfigError(f"{source.place(('grid', key))}: grid.{key} is empty: list at least one value")
    valid: list[object] = []
    for index, value in enumerate(config.grid[key]):
        at = ("grid", key, str(index))
        trees = [_run_tree(run, assign(base, key, value), source, prefix=at) for base in bases]
        canonical = lookup(trees[0], key)
        if canonical in valid:
            raise ConfigError(f"{source.place(at)}: grid.{key} lists {literal(canonical)} twice")
        valid.append(canonical)
    return valid


def _check_path(run: type[RunConfig], key: str, at: KeyPath, source: Source) -> None:
    of_models = at[0] == "models"
    known = settable() if of_models else leaf_paths(run)
    free = key.count(".") < MAX_DEPTH and any(key.startswith(f"{one}.") for one in known if known[one])
    free = free and all(key.split("."))
    if key not in known and not free:
        what = "which is no agent.model.* or engine.* setting" if of_models else "which is no parameter"
        raise ConfigError(f"{source.place(at)}: {at[0]} names {key!r}, {what}{nearest(key, known)}")


def _check_contrasts(config: PhaseConfig, axes: dict[str, list[object]], source: Source) -> None:
    """Catches typing errors. A smaller grid may leave a contrast without runs; the report then says so."""
    known = leaf_paths(type(config))
    for index, contrast in enumerate(config.analysis.primary):
        begin = f"{source.place(('analysis', 'primary', str(index)))}: analysis.primary"
        for key in (contrast.factor, *contrast.within):
            if key not in axes and key not in known:
                raise ConfigError(f"{begin} names {key}, which is no parameter{nearest(key, known)}")
        levels = axes.get(contrast.factor, [])
        if contrast.compare is None and not all(type(level) in {int, float} for level in levels):
            raise ConfigError(f"{begin} has no compare, and {contrast.factor} is not a number: add two of its levels")
        if contrast.compare and contrast.compare[0] == contrast.compare[1]:
            raise ConfigError(f"{begin} compares {literal(contrast.compare[0])} with itself")


def _check_replications(config: PhaseConfig, axes: dict[str, list[object]], source: Source) -> None:
    dose = find_world(config.experiment.world).dose
    doses = axes.get(dose, [])
    if isinstance(config.experiment.replications, Replications) and not (0 in doses and len(doses) > 1):
        raise ConfigError(
            f"{source.place(('experiment', 'replications'))}: experiment.replications with min and max compares every "
            f"other value of {dose} with 0: list 0 and at least one more in grid.{dose}, or write a plain number"
        )


def _check_lookups(config: PhaseConfig, axes: Iterable[str], source: Source) -> None:
    for table in config.lookups:
        if getattr(config, table.key) and table.sets in axes:
            raise ConfigError(
                f"{source.place(('grid', table.sets))}: grid.{table.sets} and {table.key} both set "
                f"{table.sets}: keep one"
            )


def _check_controls(config: PhaseConfig, names: list[str], source: Source, trusted: bool) -> None:
    """A scripted agent can read the prompts of its own world only; a results folder may name one of another version."""
    here = config.experiment.world
    for name in names:
        world, control = split_control(name)
        at = ("grid", NAME) if NAME in config.grid else tuple(NAME.split("."))
        if not name.startswith(SCRIPTED_PREFIX):
            continue
        if world != here:
            raise ConfigError(
                f"{source.place(at)}: {name} is a control of the world {world}, and experiment.world is "
                f"{here}: name one of its own, such as {control_name(here, control)}"
            )
        own = find_world(here).controls() if trusted else {control: None}
        if not isinstance(own, Mapping):
            raise ConfigError(f"experiment.world {here}: its controls must be a dict of name and class")
        if control not in own:
            controls = [control_name(here, one) for one in own]
            near = nearest(name, controls) or f": there are {', '.join(controls)}"
            raise ConfigError(f"{source.place(at)}: {name} is no control{near}")


def _run_tree(
    run: type[RunConfig], sections: Mapping[str, object], source: Source, prefix: KeyPath
) -> dict[str, object]:
    return validate(run, {key: sections[key] for key in run.model_fields}, source, prefix).model_dump(mode="json")
