"""From Python: what the pages' cells (``tests/test_docs.py``) don't show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vendomini
from vendomini.errors import ConfigError, ResultsError, UsageError

CONFIG = {
    "experiment": {"name": "api", "replications": 2},
    "simulation": {"max_steps": 6},
    "agent": {"model": {"name": "scripted/oracle"}},
}


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, vendomini; print([name for name in sys.modules if name.startswith(('vendomini', 'msgspec'))])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "['vendomini']\n"


def test_it_has_what_it_says() -> None:
    assert all(hasattr(vendomini, name) for name in dir(vendomini))
    assert (Path(vendomini.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="has no attribute 'ran'"):
        vendomini.ran  # noqa: B018


def test_a_run_says_what_the_command_says(tmp_path: Path) -> None:
    said: list[str] = []
    config = {**CONFIG, "agent": {"model": {"name": "scripted/oracle"}}}
    tally = vendomini.run(config, results=tmp_path, limit=1, say=said.append)
    assert (tally.finished, tally.complete) == (1, True)
    assert said[0] == f"api: 1 run, 1 to do → {tmp_path}"
    assert said[-1].startswith("1/1 run · 6 steps")
    assert config == CONFIG, "the caller's own mapping is left as it was"


def test_results_of_a_folder_are_a_config(tmp_path: Path) -> None:
    vendomini.run(CONFIG, results=tmp_path, limit=1, say=None)
    assert vendomini.run(tmp_path, results=tmp_path, say=None).already == 1


def test_mistakes_are_exceptions_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key simulatoin"):
        vendomini.run({"simulatoin": {}}, results=tmp_path)
    with pytest.raises(UsageError, match="matches --only seed=99"):
        vendomini.run(CONFIG, only=["seed=99"], results=tmp_path)
    with pytest.raises(ResultsError):
        vendomini.load_results(tmp_path)
    vendomini.run(CONFIG, results=tmp_path, limit=1, say=None)
    (run_id,) = (folder.name for folder in (tmp_path / "runs").iterdir())
    with pytest.raises(ResultsError, match=f"there is no run {run_id[:-1]} in .*; did you mean {run_id}?"):
        vendomini.open_run(tmp_path, run_id[:-1])
    with pytest.raises(ValueError, match="no thresholds 'harsh'"):
        vendomini.open_run(tmp_path, run_id).detectors("harsh")


def test_results_without_a_finished_run_have_no_steps(tmp_path: Path) -> None:
    vendomini.run(CONFIG, results=tmp_path, limit=1, say=None)
    (summary,) = tmp_path.glob("runs/*/summary.json")
    summary.unlink()
    runs, steps = vendomini.load_results(tmp_path, columns=["step"])
    assert (list(runs["status"]), len(steps), list(steps)) == (["running"], 0, ["step"])
