"""Finds the configs and sbatch templates that come with VendoMini, in a checkout or an installed wheel."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from vendomini.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped(kind: str) -> Path:
    """The folder ``configs`` or ``slurm``: beside the package in a checkout, inside it in a wheel."""
    checkout = _PACKAGE.parent / kind
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() else _PACKAGE / "_shipped" / kind


def find_config(path: Path) -> Path:
    """A config file: as given, or, for a path such as ``configs/demo.yaml``, the shipped one.

    Raises:
        ConfigError: there is none.
    """
    try:
        return _find(path)
    except OSError as exc:  # such as a name that is too long for a file
        raise ConfigError(f"can't read {path}: {exc.strerror}") from exc


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_absolute() and path.parts[:1] == ("configs",):
        candidate = shipped("configs").joinpath(*path.parts[1:])
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name a YAML file in it")
    what = "config file" if path.suffix in {".yaml", ".yml"} else "config file or results folder"
    raise ConfigError(f"there is no {what} {path}{_suggest(path)}")


def phases() -> dict[str, Path]:
    """Name → file of every phase config: those in ``configs/phases`` here, and after them the shipped ones."""
    found: dict[str, Path] = {}
    for folder in (shipped("configs") / "phases", Path("configs/phases")):
        found.update({file.stem: file for file in sorted(folder.glob("*.yaml"))})
    return found


def configs() -> dict[str, Path]:
    """Name → file of every config that can be run: the phases, and the shipped ones beside them, such as ``demo``."""
    others = {file.stem: file for file in sorted(shipped("configs").glob("*.yaml")) if file.stem != "base"}
    return others | phases()


def find_phase(name: str) -> list[Path]:
    """The config files that a name stands for: a path, a config's full name, a phase's beginning, or a file here.

    ``phase1`` is both ``phase1_small_models`` and ``phase1_large_models``; ``phase1_large`` is one of them; ``mine`` is
    ``mine.yaml``.

    Raises:
        ConfigError: the name stands for nothing; lists the known ones.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        return [find_config(Path(name))]
    known = configs()
    if name in known:
        return [known[name]]
    matches = [path for stem, path in known.items() if stem.startswith(name + "_")]
    if not matches and os.path.isfile(here := f"{name}.yaml"):  # unlike Path's, false for a name that is too long
        return [Path(here)]
    if not matches:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f": there are {', '.join(sorted(known))}, or give a YAML file"
        if "=" in name:
            hint = f": run and submit set parameters with -o {name}"
        raise ConfigError(f"there is no phase or results folder {name!r}{hint}")
    return matches


def _suggest(path: Path) -> str:
    """A file of nearly that name, or for a phase's name the phase's file."""
    root = shipped("configs")
    known = [str(file) for file in path.parent.glob("*.y*ml")]
    known += [f"configs/{file.relative_to(root)}" for file in sorted(root.rglob("*.yaml"))]
    near = difflib.get_close_matches(str(path), known, n=1)
    near += [name for name in known if f"{Path(name).stem}_".startswith(f"{path.name}_")]
    return f"; did you mean {near[0]}?" if near else ""
