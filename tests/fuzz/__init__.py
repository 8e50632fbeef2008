"""Hostile input: for each thing that comes from outside, bytes that stand for it and what must then hold.

``python -m tests.fuzz TARGET`` feeds them guided by coverage; ``tests/test_fuzz.py`` feeds them in the suite, with the
findings that ``tests/corpus`` keeps.
"""

from __future__ import annotations

import atexit
import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent.parent / "corpus"


@dataclass(frozen=True)
class Target:
    """One input.

    Attributes:
        check: raises where something does not hold; anything but an error that is meant for the user counts as that.
        seeds: sound inputs, and some that are nearly so.
        tokens: words of its language, from which mutations are made.
        longest: bytes of an input.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: list[bytes]
    tokens: list[str]
    longest: int

    def found(self) -> Iterator[Path]:
        """What was found before."""
        return (CORPUS / self.name).glob("*-*")


_PLACES = {
    "config": ("config", "", 4096),
    "template": ("template", "", 8192),
    "log": ("log", "", 32768),
    "completion": ("agent", "completion_", 4096),
    "tool": ("agent", "tool_", 8192),
    "http": ("http", "", 2048),
}
TARGETS = tuple(_PLACES)


def load(name: str) -> Target:
    """Imports a target: what it needs is set up then."""
    module, prefix, longest = _PLACES[name]
    place = importlib.import_module(f"tests.fuzz.{module}")
    check = getattr(place, f"check_{prefix}".rstrip("_"))
    return Target(
        name, check, list(getattr(place, f"{prefix}seeds")()), getattr(place, f"{prefix}TOKENS".upper()), longest
    )


def scratch() -> Path:
    """A folder for a target's files, gone with the process."""
    folder = Path(tempfile.mkdtemp(prefix="vendomini-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
