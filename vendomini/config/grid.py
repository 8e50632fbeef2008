"""A phase → its runs: every combination of the grid, every replication, each with an id that never changes."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from vendomini.config.load import Phase
from vendomini.config.models import NAME, model_name
from vendomini.config.paths import assign, leaf_paths, lookup, nearest
from vendomini.config.schema import RunConfig
from vendomini.config.worlds import WorldInfo, horizon, named, run_config, world_name, world_of
from vendomini.errors import UsageError

_canonical = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run to be made.

    Attributes:
        run_id: a readable prefix and 16 hexadecimal digits of the SHA-256 of what :func:`identity` keeps of
            ``parameters``, and of ``seed``.
        parameters: the tree of its :class:`RunConfig`, defaults included; ``world`` names another world than the
            default one.
        seed: of the whole run; replication r of every cell has the same one, so that cells are compared under
            common random numbers.
        replication: from 0.
        number: its place among all combinations of the grid, replications innermost: see :func:`numbered`.
    """

    run_id: str
    parameters: dict[str, object]
    seed: int
    replication: int
    number: int = 0

    @property
    def model(self) -> str:
        return model_name(self.parameters)

    @property
    def world(self) -> str:
        """The name of its world."""
        return world_name(self.parameters)

    @property
    def horizon(self) -> int:
        """Steps after which it is right-censored."""
        return horizon(self.parameters)

    def config(self) -> RunConfig:
        """Validated; of the class that its world defines."""
        return run_config(self.parameters)


def count(phase: Phase) -> int:
    """How many runs :func:`expand` yields: where replications are adaptive, the most that there may be."""
    axes, info = phase.axes, phase.world
    sizes = {path: len(values) for path, values in axes.items()}
    inert = math.prod(sizes[path] for path in info.inert_without_dose if path in axes)
    doses = axes.get(info.dose, [lookup(phase.base, info.dose)])
    others = math.prod(size for path, size in sizes.items() if path not in {info.dose, *info.inert_without_dose})
    cells = sum(others * (1 if dose == 0 else inert) for dose in doses)
    return cells * phase.config.experiment.most


def tasks(phase: Phase) -> int:
    """Combinations of the grid times replications: more than the runs, where some can't differ from others."""
    return math.prod(len(values) for values in phase.axes.values()) * phase.config.experiment.most


def expand(phase: Phase) -> Iterator[RunSpec]:
    """Every run of a phase, in the order of the grid, replications innermost; streams, whatever the size.

    Where the dose is 0, parameters that do nothing without it keep the first of their values: all others would be the
    same runs again.
    """
    replications = range(phase.config.experiment.most)
    for place, values in enumerate(itertools.product(*phase.axes.values())):
        cell = dict(zip(phase.axes, values, strict=True))
        if not _repeats(cell, phase):
            yield from _runs_of(cell, place, replications, phase)


def numbered(phase: Phase, numbers: Iterable[int]) -> Iterator[RunSpec]:
    """Those runs of :func:`expand` that have these numbers, in this order, without making the others."""
    replications = phase.config.experiment.most
    for number in numbers:
        place, replication = divmod(number, replications)
        rest, cell = place, {}
        for path, values in reversed(phase.axes.items()):
            rest, at = divmod(rest, len(values))
            cell[path] = values[at]
        yield from _runs_of({path: cell[path] for path in phase.axes}, place, [replication], phase)


def _runs_of(cell: Mapping[str, object], place: int, replications: Iterable[int], phase: Phase) -> Iterator[RunSpec]:
    """One cell of the grid, which is at this place among them."""
    experiment, world = phase.config.experiment, phase.world
    parameters = phase.bases[str(cell[NAME])] if NAME in cell else phase.base
    for path, value in cell.items():
        parameters = assign(parameters, path, value)
    parameters = named(_looked_up(parameters, phase), experiment.world)
    digest = hashlib.sha256(_canonical.encode(identity(parameters)))
    prefix = _prefix(parameters, world)
    for replication in replications:
        seed = experiment.seed + replication
        run_digest = digest.copy()
        run_digest.update(b"\0%d" % seed)
        run_id = f"{prefix}-s{seed}-{run_digest.hexdigest()[:16]}"
        yield RunSpec(run_id, parameters, seed, replication, place * experiment.most + replication)


def _repeats(cell: Mapping[str, object], phase: Phase) -> bool:
    """Whether a cell of the grid duplicates another one under a different name."""
    world = phase.world
    if cell.get(world.dose, lookup(phase.base, world.dose)) != 0:
        return False
    return any(path in cell and cell[path] != phase.axes[path][0] for path in world.inert_without_dose)


def identity(parameters: Mapping[str, object]) -> dict[str, object]:
    """The part of a run's parameters that its id is made of: all that is set. A key that is null is left out, so that a
    version that adds one, null for "as before", leaves the ids of all other runs as they were."""
    config = world_of(parameters).config
    leaves = {"world", *leaf_paths(config)}

    def kept(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in tree.items():
            path = prefix + key
            if path in leaves:
                if value is not None or path in config.hashed_nulls:
                    found[key] = value
            elif isinstance(value, Mapping) and (below := kept(value, f"{path}.")):
                found[key] = below
        return found

    return kept(parameters)


def select(specs: Iterator[RunSpec], only: Sequence[str] = (), limit: int | None = None) -> Iterator[RunSpec]:
    """The runs, all of one world, that match every ``key=value`` (the same key twice: either), at most ``limit``.

    Keys are dot paths, their last part where that is unambiguous, or ``seed``, ``replication``, ``model``.

    Raises:
        UsageError: a key names no parameter.
    """
    first = next(specs, None)
    known = leaf_paths(world_of(first.parameters if first else {}).config)
    wanted: dict[str, set[str]] = {}
    for text in only:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--only {text}: write key=value, for example --only seed=0")
        wanted.setdefault(_full_path(key.strip(), known), set()).add(_text(_number(value.strip())))
    everything = itertools.chain([first] if first else [], specs)
    matching = (s for s in everything if all(_text(_value(s, key)) in values for key, values in wanted.items()))
    return itertools.islice(matching, limit)


def _looked_up(parameters: dict[str, object], phase: Phase) -> dict[str, object]:
    for table in phase.world.config.lookups:
        value = getattr(phase.config, table.key).get(lookup(parameters, table.by))
        if value is not None:
            parameters = assign(parameters, table.sets, value)
    return parameters


def _prefix(parameters: Mapping[str, object], world: type[WorldInfo]) -> str:
    """Made of parameters that every run has, so that another axis in the grid leaves the ids unchanged: the model, and
    the dose with the first letter of its name."""
    model = model_name(parameters).rstrip("/").rsplit("/", 1)[-1]
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")[:40] or "model"
    return f"{slug}-{world.dose.rpartition('.')[2][0]}{lookup(parameters, world.dose):g}"


_SPEC_FIELDS = {"seed", "replication", "run_id"}


def _full_path(key: str, known: Iterable[str]) -> str:
    if key in known or key in _SPEC_FIELDS:
        return key
    if key == "model":
        return "agent.model.name"
    matches = [path for path in known if path.rsplit(".", 1)[-1] == key]
    if len(matches) == 1:
        return matches[0]
    raise UsageError(f"--only {key}: no such parameter{nearest(key, [*known, *_SPEC_FIELDS])}")


def _value(spec: RunSpec, key: str) -> object:
    return getattr(spec, key) if key in _SPEC_FIELDS else lookup(spec.parameters, key)


def _number(text: str) -> object:
    """``0.20`` and ``2e-1`` mean what 0.2 means."""
    try:
        return float(text)
    except ValueError:
        return text


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)
