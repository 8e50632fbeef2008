"""Every shipped phase, shortened and on a control: the bytes of its step logs are those that were recorded.

A change that is meant to change logs records them again: ``python -m tests.test_golden``.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from vendomini.config.shipped import phases

GOLDEN = Path(__file__).with_name("golden.json")
CONTROLS = ("fragile", "garbled")


@pytest.mark.parametrize("name", sorted(phases()))
def test_the_logs_of_a_shipped_phase_are_those_recorded(name: str, tmp_path: Path) -> None:
    assert digests(name, tmp_path) == json.loads(GOLDEN.read_text())[name]


def digests(name: str, folder: Path) -> dict[str, str]:
    """Control → SHA-256 of its runs' ids and step logs, in the order of the ids."""
    return {control: _digest(name, control, folder / control) for control in CONTROLS}


def _digest(name: str, control: str, folder: Path) -> str:
    settings = [f"grid.agent.model.name=[scripted/{control}]", "simulation.max_steps=60", "experiment.replications=1"]
    overrides = [word for setting in settings for word in ("-o", setting)]
    command = [sys.executable, "-m", "vendomini", "run", "-c", str(phases()[name]), "-r", str(folder), "--limit", "66"]
    subprocess.run([*command, *overrides], check=True, capture_output=True)
    digest = hashlib.sha256()
    logs = sorted(folder.glob("runs/*/steps.jsonl"))
    assert len(logs) >= 22
    for log in logs:
        digest.update(log.parent.name.encode() + log.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    recorded = {}
    for phase in sorted(phases()):
        with tempfile.TemporaryDirectory() as scratch:
            recorded[phase] = digests(phase, Path(scratch))
    GOLDEN.write_text(json.dumps(recorded, indent=2) + "\n")
