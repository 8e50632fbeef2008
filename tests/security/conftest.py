from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that an attack makes if it works."""
    return tmp_path / "mark"
