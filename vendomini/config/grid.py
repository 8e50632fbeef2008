"""A phase → its runs: every combination of the grid, every replication, each with an id that never changes."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from vendomini.config.load import Phase
from vendomini.config.models import NAME
from vendomini.config.paths import assign, leaf_paths, lookup, nearest
from vendomini.config.schema import RunConfig
from vendomini.errors import UsageError

FIRST_NULLS = {"demand.orders_per_day", "agent.model.revision", "agent.model.quantization"}
"""Null and part of an id all the same, as they were before nulls were left out."""

_canonical = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run to be made.

    Attributes:
        run_id: a readable prefix and 16 hexadecimal digits of the SHA-256 of what :func:`identity` keeps of
            ``parameters``, and of ``seed``.
        parameters: the :class:`RunConfig` tree, defaults included.
        seed: of the whole run; replication r of every cell has the same one, so that cells are compared under
            common random numbers.
        replication: from 0.
    """

    run_id: str
    parameters: dict[str, Any]
    seed: int
    replication: int

    @property
    def model(self) -> str:
        return str(self.parameters["agent"]["model"]["name"])

    def config(self) -> RunConfig:
        return RunConfig.model_validate(self.parameters)


def count(phase: Phase) -> int:
    """How many runs :func:`expand` yields."""
    return math.prod(len(values) for values in phase.axes.values()) * phase.config.experiment.replications


def expand(phase: Phase) -> Iterator[RunSpec]:
    """Every run of a phase, in the order of the grid, replications innermost; streams, whatever the size."""
    experiment = phase.config.experiment
    for values in itertools.product(*phase.axes.values()):
        cell = dict(zip(phase.axes, values, strict=True))
        parameters = phase.bases[cell[NAME]] if NAME in cell else phase.base
        for path, value in cell.items():
            parameters = assign(parameters, path, value)
        parameters = _with_horizon(parameters, phase.config.max_steps_by_level)
        digest = hashlib.sha256(_canonical.encode(identity(parameters)))
        prefix = _prefix(parameters)
        for replication in range(experiment.replications):
            seed = experiment.seed + replication
            run_digest = digest.copy()
            run_digest.update(b"\0%d" % seed)
            run_id = f"{prefix}-s{seed}-{run_digest.hexdigest()[:16]}"
            yield RunSpec(run_id, parameters, seed, replication)


def identity(parameters: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """What of a run's parameters its id is made of: all that is set. A key that is null is left out, so that a version
    that adds one, null for "as before", leaves the ids of all other runs as they were."""
    leaves = leaf_paths(RunConfig)
    kept: dict[str, Any] = {}
    for key, value in parameters.items():
        path = prefix + key
        if path in leaves:
            if value is not None or path in FIRST_NULLS:
                kept[key] = value
        elif below := identity(value, f"{path}."):
            kept[key] = below
    return kept


def select(specs: Iterator[RunSpec], only: Sequence[str] = (), limit: int | None = None) -> Iterator[RunSpec]:
    """The runs that match every ``key=value`` (the same key twice: either), at most ``limit`` of them.

    Keys are dot paths, their last part where that is unambiguous, or ``seed``, ``replication``, ``model``.

    Raises:
        UsageError: a key names no parameter.
    """
    wanted: dict[str, set[str]] = {}
    for text in only:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--only {text}: write key=value, for example --only p_shock=0.2")
        wanted.setdefault(_full_path(key.strip()), set()).add(_text(_number(value.strip())))
    matching = (s for s in specs if all(_text(_value(s, key)) in values for key, values in wanted.items()))
    return itertools.islice(matching, limit)


def _with_horizon(parameters: dict[str, Any], max_steps_by_level: dict[int, int]) -> dict[str, Any]:
    steps = max_steps_by_level.get(parameters["simulation"]["complexity_level"])
    return parameters if steps is None else assign(parameters, "simulation.max_steps", steps)


def _prefix(parameters: dict[str, Any]) -> str:
    """Of parameters that every run has, so that another axis in the grid leaves the ids as they were."""
    model = parameters["agent"]["model"]["name"].rstrip("/").rsplit("/", 1)[-1]
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")[:40] or "model"
    return f"{slug}-p{parameters['pe_induction']['p_shock']:g}"


_SPEC_FIELDS = {"seed", "replication", "run_id"}


def _full_path(key: str) -> str:
    known = leaf_paths(RunConfig)
    if key in known or key in _SPEC_FIELDS:
        return key
    if key == "model":
        return "agent.model.name"
    matches = [path for path in known if path.rsplit(".", 1)[-1] == key]
    if len(matches) == 1:
        return matches[0]
    raise UsageError(f"--only {key}: no such parameter{nearest(key, [*known, *_SPEC_FIELDS])}")


def _value(spec: RunSpec, key: str) -> Any:
    return getattr(spec, key) if key in _SPEC_FIELDS else lookup(spec.parameters, key)


def _number(text: str) -> Any:
    """``0.20`` and ``2e-1`` mean what 0.2 means."""
    try:
        return float(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)
