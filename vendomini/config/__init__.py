"""Configs: what they may contain, how they are read, and the runs that they describe."""

from vendomini.config.grid import RunSpec, count, expand, numbered, select
from vendomini.config.load import Phase, build_phase, load_config
from vendomini.config.schema import PhaseConfig, RunConfig, Section
from vendomini.config.shipped import find_config, find_phase, shipped

__all__ = [
    "Phase",
    "PhaseConfig",
    "RunConfig",
    "RunSpec",
    "Section",
    "build_phase",
    "count",
    "expand",
    "find_config",
    "find_phase",
    "load_config",
    "numbered",
    "select",
    "shipped",
]
