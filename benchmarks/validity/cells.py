"""The settings that the shipped phases run at, without models and shocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vendomini.config import expand, load_config, shipped

Settings = Mapping[str, Any]


def shipped_cells() -> dict[str, Settings]:
    """A name such as ``level 3, 2500 steps, required, recovery all`` → settings, each distinct one once."""
    cells: dict[str, Settings] = {}
    for file in sorted((shipped("configs") / "phases").glob("*.yaml")):
        cells |= _cells(file)
    return cells


def level_cells() -> dict[str, Settings]:
    """The defaults at every level."""
    return {_name(settings): settings for settings in map(_level, range(5))}


def _level(level: int) -> Settings:
    return {"simulation.complexity_level": level, "simulation.max_steps": 1000}


def _cells(file: Path) -> dict[str, Settings]:
    cells = {}
    for spec in expand(load_config(file)):
        settings = {
            "simulation": spec.parameters["simulation"],
            "demand": spec.parameters["demand"],
            "agent.interface": spec.parameters["agent"]["interface"],
            "crash_detector": spec.parameters["crash_detector"],
        }
        cells[_name(settings)] = settings
    return cells


def _name(settings: Settings) -> str:
    if "simulation" not in settings:
        return f"level {settings['simulation.complexity_level']}, {settings['simulation.max_steps']} steps, defaults"
    simulation, interface = settings["simulation"], settings["agent.interface"]
    return (
        f"level {simulation['complexity_level']}, {simulation['max_steps']} steps, prediction "
        f"{interface['prediction_mode']}, recovery {interface['recovery_tools']}"
    )
