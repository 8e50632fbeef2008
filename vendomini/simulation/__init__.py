"""A seeded, deterministic warehouse with its measures; no input or output, no model."""

from vendomini.simulation.cards import card_schema
from vendomini.simulation.environment import Environment
from vendomini.simulation.randomness import sampling_seed
from vendomini.simulation.steps import Action, StepResult
from vendomini.simulation.tools import ToolSpec, tool_specs

__all__ = [
    "Action",
    "Environment",
    "StepResult",
    "ToolSpec",
    "card_schema",
    "sampling_seed",
    "tool_specs",
]
