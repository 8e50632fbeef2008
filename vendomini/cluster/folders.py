"""Which results folders and phases a command is about. ``status`` starts here: nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vendomini.errors import ResultsError, UsageError
from vendomini.records import Results

if TYPE_CHECKING:
    from vendomini.config import Phase


def results_of(phase: Phase, folder: Path | None) -> Results:
    """Where a phase's results are, by the same rule as ``vendomini run``."""
    return Results(folder or Path("results") / phase.name)


def folders_of(names: Iterable[str], results: Path | None) -> list[Results]:
    """The results folders of some phases, of all, or the one given.

    Args:
        names: of phases, of YAML files, or of folders in ``results``.

    Raises:
        ConfigError: a name stands for nothing.
        ResultsError: nothing was run or submitted.
    """
    if results is not None:
        return [Results(results)]
    root, names = Path("results"), list(names)
    wanted = [folder for name in names for folder in _folders_named(name)] or [
        Results(f) for f in sorted(root.glob("*"))
    ]
    found = [folder for folder in wanted if folder.plans.is_dir()]
    if not found:
        what = ", ".join(str(folder.root) for folder in wanted) if names else str(root)
        raise ResultsError(
            f"nothing was run or submitted here ({what}): see vendomini submit --help, or name --results"
        )
    return found


def _folders_named(name: str) -> list[Results]:
    folder = Results(Path("results") / name)
    return [folder] if folder.plans.is_dir() else [results_of(phase, None) for phase in load_phases([name], (), None)]


def load_phases(names: Iterable[str], overrides: Sequence[str], results: Path | None) -> list[Phase]:
    """Raises:
    ConfigError: a name stands for nothing, or a config is wrong.
    UsageError: several phases for one results folder.
    """
    from vendomini.config import load_config
    from vendomini.config.shipped import find_phase

    phases = [load_config(path, overrides) for name in names for path in find_phase(name)]
    if results is not None and len(phases) > 1:
        raise UsageError(f"--results {results} is the folder of one phase, and these are {len(phases)}")
    return phases
