"""The campaign of ``make chaos`` in short: every kind of fault that needs no cluster, once."""

from __future__ import annotations

import random
from pathlib import Path

from tests.chaos.experiment import Books
from tests.chaos.local import strike_scripted, strike_served


def test_whatever_strikes_every_run_ends_once_and_as_if_nothing_had_happened(tmp_path: Path) -> None:
    books = Books()
    strike_scripted(tmp_path / "scripted", books, random.Random(1), 11)
    strike_served(tmp_path / "served", books, random.Random(1), 2)
    assert books.details == []
    assert books.struck.total() == 13
