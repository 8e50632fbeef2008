"""Whether two configs make one experiment: what a grid varies may differ between them, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vendomini.config.models import NAME
from vendomini.config.paths import as_text, leaf_paths, literal, lookup

if TYPE_CHECKING:
    from vendomini.config.load import Phase

Differences = dict[str, tuple[object, object]]
"""Dot path → its value in the one phase and in the other."""

OF_MODEL = NAME.removesuffix("name")

LONGEST = 80
"""Characters of a trial's name: folders have 255 bytes."""


def differences(one: Phase, other: Phase) -> Differences:
    """How the runs of two phases differ in what neither grid varies. Levels, seeds, replications and engines may
    differ: runs of both are then cells of one experiment."""
    if one.world is not other.world:
        return {"experiment.world": (one.config.experiment.world, other.config.experiment.world)}
    varied = {*one.axes, *other.axes}
    shared = [(tree, other.bases[model]) for model, tree in one.bases.items() if model in other.bases]
    paths = [path for path in leaf_paths(one.world.config) if path not in varied]
    if not shared and NAME in varied:  # settings of different models
        paths = [path for path in paths if not path.startswith(OF_MODEL)]
    found: Differences = {}
    for ours, theirs in shared or [(one.base, other.base)]:
        found |= _unequal((path, lookup(ours, path), lookup(theirs, path)) for path in paths)
    tables = (table.key for table in one.world.config.lookups)
    return found | _unequal((key, getattr(one.config, key), getattr(other.config, key)) for key in tables)


def _unequal(values: Iterable[tuple[str, object, object]]) -> Differences:
    return {path: (ours, theirs) for path, ours, theirs in values if ours != theirs}


def trial_name(changed: Differences) -> str:
    """What an experiment with these changes is called, after the name of the unchanged one: ``@max_steps=50``."""
    parts = [f"{path.rsplit('.', 1)[-1]}={_slug(theirs)}" for path, (_, theirs) in changed.items() if theirs != {}]
    return f"@{','.join(parts) or 'changed'}"[:LONGEST] if changed else ""


def _slug(value: object) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", as_text(value)).strip("-")


def told(changed: Differences) -> str:
    """The first difference in words, and how many more there are."""
    path, (ours, theirs) = next(iter(changed.items()))
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"{path} is {literal(theirs)} there and {literal(ours)} here{more}"
