"""docs/extending.md, done as it says, in a copy of the package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "extending.md"
BLOCK = re.compile(r"^(?:A new file|In) `([^`]+)`(?:, (above|in) `(\w+)`)?:\n\n```\w+\n(.*?)^```", re.M | re.S)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in ("vendomini", "configs", "slurm"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == PAGE.read_text(encoding="utf-8").count("\n```") // 2, "a block without a place"
    for path, where, name, text in blocks:
        _add(folder / path.replace("controls/", "vendomini/worlds/vending/controls/"), where, name, text)
    (folder / "parrot-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot\nVersion: 1.0\n")
    return folder


def _add(file: Path, where: str, name: str, text: str) -> None:
    if not where:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if re.match(rf"{name}\b", line))
    if where == "in":
        place = next(number for number in range(place, len(lines)) if lines[number][0] in ")}]")
    text = f"{text.strip()}\n\n\n" if where == "above" else text
    file.write_text("".join([*lines[:place], text, *lines[place:]]), encoding="utf-8")


def run(copy: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "vendomini", *arguments]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outcomes(copy: Path, name: str, *arguments: str) -> list[dict[str, Any]]:
    """The summaries of a run of a config, in the order of their ids."""
    run(copy, "run", *arguments, "-r", name)
    return [json.loads(path.read_bytes()) for path in sorted((copy / name).glob("runs/*/summary.json"))]


def test_a_phase_is_a_file(copy: Path) -> None:
    assert len(outcomes(copy, "quick", "-c", "quick.yaml")) == 4


def test_a_world_is_a_module(copy: Path) -> None:
    found = outcomes(copy, "jar", "-c", "jar.yaml")
    assert len(found) == 15
    by_dose: dict[float, list[dict[str, Any]]] = {}
    for summary in found:
        assert summary["parameters"]["world"] == "jar:CoinWorld"
        by_dose.setdefault(summary["parameters"]["jar"]["p_loss"], []).append(summary)
    assert {one["ending"] for one in by_dose[0.0]} == {"survived"}
    assert {one["pe"]["causal"]["mean"] for one in by_dose[0.0]} == {0.0}
    assert "robbed" in {one["ending"] for one in by_dose[0.8]}
    assert min(one["world"]["coins"] for one in by_dose[0.0]) == 50
    log = next((copy / "jar").glob("runs/*p0.8*/steps.jsonl")).read_text()
    assert '"day"' not in log
    run(copy, "run", "-c", "jar.yaml", "-r", "jar")


def test_a_report_imports_nothing_on_the_word_of_a_results_folder(copy: Path) -> None:
    outcomes(copy, "jar", "-c", "jar.yaml")
    (copy / "jar.py").rename(copy / "elsewhere.py")
    (copy / "jar.py").write_text("raise SystemExit('imported')")
    try:
        run(copy, "report", "jar", "--no-figures")
    finally:
        (copy / "elsewhere.py").rename(copy / "jar.py")
    assert "is not loaded" in (copy / "jar" / "report" / "report.html").read_text()


def test_a_tool_is_offered_and_runs(copy: Path) -> None:
    code = (
        "from tests.vending.driver import begin, do\n"
        "environment = begin(demand__orders_per_day=50.0)\n"
        "assert 'tool_count_customers' in [spec.name for spec in environment.world.tools]\n"
        "assert do(environment, 'tool_count_customers')['unread'] == len(environment.warehouse.customers) > 0\n"
    )
    shutil.copytree(REPOSITORY / "tests" / "vending", copy / "tests" / "vending", dirs_exist_ok=True)
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_control_and_the_detector_that_catches_it(copy: Path) -> None:
    settings = ["-o", "grid.agent.model.name=[scripted/silent]", "-o", "simulation.max_steps=60"]
    (summary, *_) = outcomes(copy, "silent", "-c", "configs/demo.yaml", *settings, "--limit", "1")
    assert (summary["ending"], summary["crash_type"], summary["time_to_crash"]) == ("crashed", "silence", 10)


def test_an_engine_is_a_module_with_an_entry_point(copy: Path) -> None:
    settings = ["-o", "engine=parrot", "-o", "grid.agent.model.name=[org/model]", "-o", "simulation.max_steps=40"]
    (summary, *_) = outcomes(copy, "parrot", "-c", "configs/demo.yaml", *settings, "--limit", "1")
    assert (summary["engine"]["backend"], summary["ending"], summary["crash_type"]) == (
        "parrot",
        "crashed",
        "exploration_collapse",
    )
