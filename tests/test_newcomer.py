"""The first hour: a machine with the core dependencies and nothing else; a terminal, a narrow one and a dumb one."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from vendomini.cli.output import Rows

SMALL = ("run", "-c", "configs/demo.yaml", "-o", "simulation.max_steps=40", "--only", "seed=0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("first")
    (made / "model").mkdir()
    (made / "model" / "config.json").write_text("{}")
    partition = {"name": "gpu", "default": True, "time_limit": "1-00:00:00", "nodes": 2, "gres": "gpu:h100:8"}
    slurm = {"version": "23.02", "max_array_size": 1001, "partitions": [partition | {"state": "up"}]}
    (made / "cluster.json").write_text(json.dumps({"capabilities": {"slurm": slurm}}))
    return made


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("--version", 0, "vendomini 0."),
        ("doctor", 0, 'pip install "vendomini[hf]"'),
        ("doctor --model Qwen/Qwen3-8B", 0, "by its name it has 8B parameters, 16 GB of 16-bit weights\n"),
        ("doctor --config configs/phases/phase1_small_models.yaml", 0, "by its name it has 13B parameters, 26 GB"),
        ("config check configs/demo.yaml", 0, "configs/demo.yaml: 240 runs"),
        ("config show configs/phases/phase5_large_models.yaml", 0, "max_steps: 5000"),
        ("config schema", 0, '"$schema": "https://json-schema.org'),
        (" ".join(SMALL), 0, "Results are in results/demo@max_steps=40."),
        ("status", 0, "demo@max_steps=40: 12 of 240 runs done"),
        ("pilot -c configs/demo.yaml --steps 5 --here", 0, "ok      scripted/reactive"),
        ("run -c configs/demo.yaml --dry-run", 0, "… and 220 more (--json lists all)"),
        (
            "run -c configs/demo.yaml -o agent.model.name=./model",
            1,
            'torch is not installed: pip install "vendomini[hf]"',
        ),
        ("cancel demo@max_steps=40", 0, "results/demo@max_steps=40: nothing was live"),
        ("logs nobody", 2, "vendomini status names them"),
        ("dashboard demo@max_steps=40 --static page.html", 0, "Wrote page.html"),
        ("traces results/demo@max_steps=40 --export jsonl", 0, "Wrote steps.jsonl"),
        ("report results/demo@max_steps=40", 1, 'pip install "vendomini[report]"'),
        ("bench --model ./model", 1, 'vendomini bench needs torch: pip install "vendomini[hf]"'),
        ("prefetch phase1", 1, "vendomini prefetch needs huggingface_hub: pip install huggingface_hub"),
        ("prefetch ./model --check", 1, "it lacks tokenizer.json"),
        ("estimate phase1", 0, "assumed nodes of 8 GPUs with 80 GB each"),
        ("estimate configs/demo.yaml", 0, "they need no GPU"),
        ("submit phase1 --dry-run", 1, "sbatch is not installed: this is no SLURM login node"),
        ("submit phase1 --dry-run --describe cluster.json", 1, "is not in the Hugging Face cache"),
        ("submit phase1 phase2 --results here", 2, "--results here is the folder of one phase"),
    ],
)
def test_without_any_extra(core_only: dict[str, str], folder: Path, command: str, code: int, says: str) -> None:
    """``-S`` hides what is installed; what the package itself asks for is there, and nothing else."""
    environ = core_only | {"PATH": "", "HF_HOME": str(folder / "hf")}
    line = [sys.executable, "-S", "-m", "vendomini", *command.split()]
    done = subprocess.run(line, cwd=folder, env=environ, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert (done.returncode, "Traceback" in said) == (code, False), said
    assert says in said
    assert not [row for row in said.splitlines() if row != row.rstrip()]


def on_a_terminal(environ: dict[str, str], cwd: Path, *arguments: str) -> str:
    """What a person sees, control sequences included."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-S", "-m", "vendomini", *arguments]
    with subprocess.Popen(command, cwd=cwd, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side has closed
                part = b""
            if not part:
                break
            seen += part
        assert process.wait(60) == 0, seen.decode()
    os.close(ours)
    return seen.decode()


def test_a_terminal_shows_progress(core_only: dict[str, str], tmp_path: Path) -> None:
    seen = on_a_terminal(core_only | {"TERM": "xterm-256color"}, tmp_path, *SMALL)
    assert 0 < seen.find("\x1b[?25l") < seen.find("\x1b[?25h"), (
        "the cursor is hidden while a line is live, and back then"
    )
    assert "12/12 runs" in seen


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_no_colour_where_none_is_wanted(core_only: dict[str, str], tmp_path: Path, environ: dict[str, str]) -> None:
    seen = on_a_terminal(core_only | environ, tmp_path, "doctor")
    assert "next: vendomini" in seen
    assert "\x1b[3" not in seen


def test_a_narrow_terminal_cuts_nothing(core_only: dict[str, str], tmp_path: Path) -> None:
    narrow = core_only | {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "60"}
    for arguments in (SMALL, ("estimate", "phase1")):
        seen = on_a_terminal(narrow, tmp_path, *arguments)
        assert "…" not in seen
        assert max(map(len, re.sub(r"\x1b\[[\d;?]*\w", "", seen).splitlines())) <= 60
    assert "GPU-hours 21*" in seen


@pytest.mark.parametrize("width", [24, 60, 80, 140])
def test_tables_become_paragraphs_where_they_do_not_fit(width: int) -> None:
    """No heading and no number is torn, at any width."""
    rows = Rows(["phase", "model", "tasks", "GPU-hours"], words=2, caption="* published")
    rows.add("phase1_large_models", "meta-llama/Llama-3.3-70B-Instruct", "1,210", "86.5*")
    out = io.StringIO()
    Console(file=out, width=width).print(rows)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    fits = width >= 80
    assert lines[-1] == "* published"
    assert max(map(len, lines)) <= width
    assert any(line.endswith("1,210      86.5*") for line in lines) == fits
    pairs = [pair.strip() for line in lines for pair in line.split("·")]
    assert ({"tasks 1,210", "GPU-hours 86.5*"} <= set(pairs)) != fits


def test_what_is_shown_is_text() -> None:
    rows = Rows(["model", "runs"])
    rows.add("[red]x[/] \x1b[31m", "1")
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=False).print(rows)
    assert "[red]x[/] \\x1b[31m" in out.getvalue()


def test_watching_keeps_the_top_and_ends_when_all_is_done(core_only: dict[str, str], tmp_path: Path) -> None:
    for name in ("first", "second"):
        config = tmp_path / f"{name}.yaml"
        config.write_text(
            f"experiment: {{name: {name}, replications: 2}}\nsimulation: {{max_steps: 3}}\n"
            "grid: {agent.model.name: [scripted/idle]}\n"
        )
        subprocess.run(
            [sys.executable, "-S", "-m", "vendomini", "run", config], cwd=tmp_path, env=core_only, check=True
        )
    low = core_only | {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "70", "LINES": "4"}
    seen = on_a_terminal(low, tmp_path, "status", "--watch")
    assert "first: 2 of 2 runs done (results/first)" in seen
    assert "2 survived" in seen
    assert "… 4 more lines: vendomini status" in seen
    assert "second" not in seen
