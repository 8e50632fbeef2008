"""The names that commands take: a phase, a YAML file, or a results folder. Every command takes all three."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vendomini.errors import ConfigError, CorruptRecordError, ResultsError, UsageError
from vendomini.records import PILOT, Plan, Results, read_record

if TYPE_CHECKING:
    from vendomini.config import Phase
    from vendomini.config.difference import Differences

ROOT = Path("results")
"""The folder of results folders, one for each experiment, unless ``--results`` says otherwise."""


def results_of(phase: Phase, folder: Path | None) -> Results:
    """The results folder of a phase, by the same rule as ``vendomini run``: a trial has a folder of its own."""
    home = phase.home or ROOT / phase.name
    return Results(folder or home.with_name(home.name + phase.trial))


def refuse_mixing(phase: Phase, results: Results) -> None:
    """A pilot's folder may hold several: whoever reads it looks at the runs' settings.

    Raises:
        UsageError: the folder holds runs of other experiments only.
    """
    from vendomini.config.difference import told

    if results.root.name == PILOT:
        return
    others = [changed for _, plan in plans_of(results) if (changed := _differences(phase, plan)) is not None]
    if others and all(others):
        raise UsageError(
            f"{results.root} holds another experiment: {told(others[0])}. Name a folder of its own with --results, or "
            f"make room: vendomini forget {results.root}"
        )


def plans_of(results: Results) -> list[tuple[str, Plan]]:
    """Hash and content of every plan that can be read."""
    found = []
    for path in sorted(results.plans.glob("*.json")):
        with contextlib.suppress(CorruptRecordError):
            found.append((path.stem, read_record(path, Plan)))
    return found


def _differences(phase: Phase, plan: Plan) -> Differences | None:
    """How a plan differs from a phase; None if this version can't expand it, or not here."""
    from vendomini.config import build_phase
    from vendomini.config.difference import differences

    try:
        return differences(phase, build_phase(plan.config, trusted=False))
    except ConfigError:
        return None


def load_phases(names: Iterable[str], overrides: Sequence[str], results: Path | None) -> list[Phase]:
    """The phases that the names stand for; a results folder stands for the config that it was made with.

    Raises:
        ConfigError: a name stands for nothing, or a config is wrong.
        UsageError: several phases for one results folder.
    """
    phases = [phase for name in names for phase in _phases_named(name, overrides)]
    if results is not None and len(phases) > 1:
        raise UsageError(f"--results {results} is the folder of one phase, and these are {len(phases)}")
    return phases


def load_phase(name: str, overrides: Sequence[str] = ()) -> Phase:
    """The one phase that a name stands for.

    Raises:
        ConfigError: the name stands for nothing, or the config is wrong.
        UsageError: the name stands for several.
    """
    phases = load_phases([name], overrides, None)
    if len(phases) > 1:
        raise UsageError(f"{name} stands for {' and '.join(phase.name for phase in phases)}: name one of them")
    return phases[0]


def folders_of(names: Iterable[str], results: Path | None) -> list[Results]:
    """The results folders of some experiments, of all, or the one given.

    Raises:
        ConfigError: a name stands for nothing.
        ResultsError: nothing was run or submitted.
    """
    if results is not None:
        return [Results(results)]
    names = list(names)
    wanted = [folder for name in names for folder in _folders_named(name)] or [
        Results(folder) for folder in sorted(ROOT.glob("*"))
    ]
    found = [folder for folder in wanted if folder.plans.is_dir()]
    if not found:
        what = ", ".join(str(folder.root) for folder in wanted) if names else str(ROOT)
        here = [str(path) for folder in wanted for path in _beside(folder)]
        there = f"; there is {', '.join(here)}" if here else ""
        raise ResultsError(
            f"nothing was run or submitted here ({what}){there}: see vendomini submit --help, or name --results"
        )
    return found


def _beside(folder: Results) -> list[Path]:
    """An experiment's trials and its pilot, those that were begun."""
    trials = sorted(folder.root.parent.glob(f"{folder.root.name}@*"))
    return [path for path in (*trials, folder.pilot.root) if (path / "plans").is_dir()]


def folders_to_read(names: Iterable[str]) -> list[Path]:
    """The folders of results to read: folders as given (also folders of results folders), else by name.

    Raises:
        ConfigError: a name stands for nothing.
    """
    return [
        path
        for name in names
        for path in ([Path(name)] if Path(name).is_dir() else [folder.root for folder in _folders_named(name)])
    ]


def complete(incomplete: str) -> list[str]:
    """Names with this beginning, for a shell's completion."""
    from vendomini.config.shipped import configs

    return sorted(name for name in {*configs(), *_known_folders()} if name.startswith(incomplete))


def _known_folders() -> list[str]:
    return [folder.name for folder in sorted(ROOT.glob("*")) if (folder / "plans").is_dir()]


def _results_named(name: str) -> Results | None:
    """The results folder with this path, or with this name in ``results``."""
    return next((Results(path) for path in (Path(name), ROOT / name) if (path / "plans").is_dir()), None)


def _folders_named(name: str) -> list[Results]:
    folder = _results_named(name)
    return [folder] if folder else [results_of(phase, None) for phase in _phases_named(name, ())]


def _phases_named(name: str, overrides: Sequence[str]) -> list[Phase]:
    from vendomini.config import load_config
    from vendomini.config.shipped import find_phase

    try:
        return [load_config(path, overrides) for path in find_phase(name)]
    except ConfigError as exc:
        folder = _results_named(name)
        if folder is not None:
            return [_phase_of(folder, overrides)]
        path = Path(name)
        near_by = [folder for folder in (path / PILOT, *path.parents) if (folder / "plans").is_dir()]
        if near_by and not os.path.isfile(path):
            raise ConfigError(f"{name} is not a results folder; did you mean {near_by[0]}?") from exc
        near = difflib.get_close_matches(Path(name).name, _known_folders(), n=1)
        if near and "did you mean" not in str(exc):
            raise ConfigError(f"{exc}; did you mean {ROOT / near[0]}?") from exc
        raise


def _phase_of(folder: Results, overrides: Sequence[str]) -> Phase:
    """The phase whose plan a results folder keeps."""
    from vendomini.config.load import load_tree

    plans = sorted(folder.plans.glob("*.json"))
    if len(plans) != 1:
        raise ConfigError(f"{folder.root} holds results of {len(plans)} configs: name the YAML file of one")
    return replace(load_tree(read_record(plans[0], Plan).config, plans[0], overrides), home=folder.root)
