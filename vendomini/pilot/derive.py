"""A phase → its pilot: an ordinary phase, small and in a results folder of its own."""

from __future__ import annotations

import json
import math

from vendomini.config import Phase, expand
from vendomini.config.load import load_tree
from vendomini.config.models import NAME
from vendomini.config.paths import lookup
from vendomini.config.worlds import control_name
from vendomini.worlds.protocol import load_world

STEPS = 30
EPISODES = 8
"""Episodes of each model without any dose, and as many with the highest: a batch, or half of one."""

REFERENCE = "reactive"
"""The control that models are compared with, in worlds that have it."""


def pilot_of(phase: Phase, steps: int = STEPS, episodes: int = EPISODES) -> Phase:
    """Every model of a phase in every setting of its agent, without any dose and with the highest; of the world's
    other factors, the last value.

    Args:
        steps: of an episode, at most.
        episodes: of a model with the same dose, at least.

    Raises:
        ConfigError: the phase can't be cut down so.
    """
    world, raw = phase.world, phase.config.model_dump(mode="json")
    of_agent = {path: values for path, values in phase.axes.items() if path.startswith("agent.") and path != NAME}
    cells = math.prod(map(len, of_agent.values()))
    overrides: dict[str, object] = {
        "experiment.name": f"{phase.name:.94}.pilot",
        "experiment.replications": math.ceil(episodes / cells),
        "analysis.primary": [],
        "breaker": "off",
        **{path: values[-1] for path, values in phase.axes.items() if not path.startswith("agent.")},
        world.horizon: min(steps, next(expand(phase)).horizon),
        world.dose: 0,
        f"grid.{world.dose}": _doses(phase),
    }
    models, control = own_models(phase), reference(phase)
    if control not in (None, *models):
        raw["models"] |= {control: {"engine.backend": "auto"}}
        overrides |= {NAME: models[0], f"grid.{NAME}": [*models, control]}
    return load_tree(raw, phase.path, [f"{key}={json.dumps(value)}" for key, value in overrides.items()])


def own_models(phase: Phase) -> list[str]:
    """The models that a phase runs, in its order."""
    return list(phase.bases)


def reference(phase: Phase) -> str | None:
    """The model name of the world's control that models are compared with; None where it has none."""
    world = phase.config.experiment.world
    return control_name(world, REFERENCE) if REFERENCE in load_world(world).controls() else None


def _doses(phase: Phase) -> list[object]:
    dose = phase.world.dose
    highest = max(phase.axes.get(dose, [lookup(phase.base, dose)]), key=lambda value: float(str(value)))
    return [0, highest] if highest else [0]
