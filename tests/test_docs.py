"""Every command that the documentation shows is typed here, or on the test cluster, or is excused by name.

A command in a fenced block that no table below knows fails a test, and so does an entry that no page shows any more.
Phases are cut down to a few runs of a scripted control; nothing else is changed.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml

from vendomini.cli import COMMANDS, load_command

REPOSITORY = Path(__file__).parents[1]
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted(REPOSITORY.glob("docs/*.md"))]


class Expect(NamedTuple):
    """What a command must do: something that it says, and its exit code (124: it serves until it is stopped)."""

    says: str = ""
    code: int = 0


HERE = {
    ". .venv/bin/activate": Expect(),
    ".venv/bin/vendomini doctor": Expect("next: vendomini"),
    "vendomini run --config configs/demo.yaml": Expect("Results are in results/demo."),
    "vendomini run --config configs/phases/phase1_small_models.yaml --only p_shock=0.1 --limit 3 --dry-run": Expect(
        "3 runs, 0 ended, 3 to do"
    ),
    "vendomini run --config configs/phases/phase1_small_models.yaml -o agent.model.name=Qwen/Qwen3-8B": Expect(
        "vendomini prefetch Qwen/Qwen3-8B", 1
    ),
    "vendomini doctor --model Qwen/Qwen3-8B": Expect("vendomini prefetch Qwen/Qwen3-8B"),
    "vendomini doctor --config configs/phases/phase1_small_models.yaml": Expect("next: vendomini"),
    "vendomini init mine --model Qwen/Qwen3-8B --p-shock 0,0.2,0.4": Expect("Wrote mine.yaml: 15 runs"),
    "vendomini run mine.yaml --dry-run": Expect("15 runs, 0 ended, 15 to do"),
    "vendomini prefetch phase1": Expect(),
    "vendomini prefetch phase1_small": Expect(),
    "vendomini prefetch phase1_small --check": Expect(),
    "vendomini report results/phase1_large_models": Expect("Report: results/phase1_large_models/report/report"),
    "vendomini dashboard phase1_large": Expect("Dashboard: http://127.0.0.1", 124),
    "vendomini dashboard phase1_large --static phase1.html": Expect("Wrote phase1.html"),
    "vendomini traces results/phase1_large_models": Expect("Traces: http://127.0.0.1", 124),
    "vendomini traces results/phase1_large_models --ending crashed --export inspect --out logs": Expect("Wrote logs"),
    "vendomini traces results/phase1_large_models --export jsonl --out steps.jsonl": Expect("Wrote steps.jsonl"),
    """jq -c 'select(.parse == "unparsable") | [.run_id, .step, .completion]' steps.jsonl""": Expect(),
    "vendomini export phase1_large --out phase1": Expect("Wrote phase1"),
    "env WANDB_MODE=offline vendomini export phase1_large --to wandb": Expect("wandb/offline-run-*"),
    "make test": Expect("pytest"),
    "make check": Expect("mypy"),
    "make docs": Expect("mkdocs build"),
    "make coverage": Expect("coverage report"),
    "make validity": Expect("-m benchmarks.validity"),
    "make chaos": Expect("-m tests.chaos"),
    "make conformance": Expect("-m tests.conformance"),
    "make servers": Expect("tests/engines/test_servers.py"),
    "make fuzz": Expect("-m tests.fuzz"),
    "make fuzz FUZZ_SECONDS=600": Expect("600"),
    "make demo-model": Expect("-m tests.trained_model"),
    "make bench": Expect("benchmarks/loop.py"),
}
"""Run in a temporary folder, in this order; targets of make as far as ``--dry-run`` goes: this suite is the rest."""

ON_A_CLUSTER = {
    "vendomini doctor": Expect("next: vendomini submit phase1 --dry-run"),
    "vendomini doctor --cluster --partition gpu": Expect("GPUs"),
    "vendomini submit configs/demo.yaml --dry-run": Expect("240 runs to do"),
    "vendomini submit configs/demo.yaml": Expect(),
    "vendomini status demo": Expect("demo: "),
    "vendomini estimate phase1": Expect(),
    "vendomini estimate phase1_small -o 'experiment.replications={min: 5, max: 40}' --adaptive": Expect("seeds, of 40"),
    "vendomini submit phase1 --pilot": Expect("The verdict: vendomini pilot phase1"),
    "vendomini pilot phase1": Expect("phase1_large_models: pilot in results/phase1_large_models/pilot"),
    "vendomini submit phase1 --dry-run": Expect("Nothing was sent: this is a dry run."),
    "vendomini submit phase1": Expect("Submitted as job"),
    "vendomini submit phase1_small --dry-run": Expect("phase1_small_models: "),
    "vendomini submit phase1_small": Expect(),
    "vendomini submit phase2_small --after phase1_small": Expect("Submitted as job"),
    "vendomini status --watch": Expect("phase2_small_models: ", 124),
    "vendomini status phase1 --watch": Expect("phase1_large_models: ", 124),
    "vendomini status phase1_small": Expect("phase1_small_models: "),
    "vendomini logs RUN_ID --follow": Expect("vendomini status names them", 2),
    "vendomini cancel phase1_small": Expect("results/phase1_small_models: "),
    "sbatch slurm/gpu0.sbatch configs/demo.yaml": Expect("Submitted batch job"),
    "sbatch --array=0-3 slurm/gpu0.sbatch configs/demo.yaml": Expect("Submitted batch job"),
    "sbatch slurm/gpu4.sbatch configs/phases/phase1_large_models.yaml": Expect("Submitted batch job"),
    "vendomini report results/demo": Expect("Report: results/demo/report/report.html"),
}
"""Run by ``tests/cluster/test_docs.py``, in this order, on a Slurm with two simulated nodes."""

NOT_RUN = {
    "git clone <this repository> vendomini && cd vendomini": "the address is the reader's",
    "make demo": "a minute; its two commands are run, on fewer steps, and the target by --dry-run",
    "python3 -m venv .venv && . .venv/bin/activate": "make does the same for every test run",
    'pip install -e ".[hf,report]"': "make does the same for every test run",
    'pip install -e ".[vllm,report]"': "needs a GPU: gigabytes of CUDA; the extra is checked",
    'pip install "vendomini[vllm]"': "the same",
    'pip install "vendomini[server]"': "the same",
    "vllm serve org/model --max-model-len 16384": "make servers does it with a tiny model",
    "transformers serve": "tests/engines/test_servers.py does",
    "llama-server --model model.gguf --ctx-size 16384 --parallel 1": "needs a build of llama.cpp",
    "vendomini export phase1_large --to mlflow --project survival": "tests/analysis/test_export.py does",
    "litellm --config litellm.yaml": "make servers does it where LiteLLM is installed",
    "pytest tests/test_fuzz.py": "a part of this suite",
    "vendomini bench --tune results/phase1_small_models/pilot --out tuned.yaml": "tests/test_tune.py, without vLLM",
    "vendomini submit phase1_small --keep": "tests/cluster/test_keep.py: it takes SLURM two minutes a round",
    "pip install flash-attn --no-build-isolation": "needs nvcc",
}
"""Command → why it is not typed."""


def commands(page: Path) -> Iterator[str]:
    """Each command of a page's fenced blocks: lines of ``bash`` ones, and what follows a ``$`` in ``console`` ones."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        if language not in {"bash", "sh", "shell", "console"}:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"(^|\s+)#\s.*$", "", line).rstrip()
            if language == "console":
                line = line.removeprefix("$ ") if line.startswith("$ ") else ""
            if line:
                yield line


def small_configs(folder: Path) -> None:
    """The shipped configs; phases cut down to a control that breaks down, two values an axis, 120 steps, one seed."""
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    for path in [folder / "configs" / "demo.yaml", *folder.glob("configs/phases/*.yaml")]:
        phase = yaml.safe_load(path.read_text(encoding="utf-8"))
        phase.pop("max_steps_by_level", None)
        phase.setdefault("simulation", {})["max_steps"] = 20 if path.stem == "demo" else 120
        if path.stem != "demo":
            phase["experiment"]["replications"] = 1
            phase["grid"] = {axis: values[:2] for axis, values in phase["grid"].items()}
            phase["grid"]["agent.model.name"] = ["scripted/looper"]
        path.write_text(yaml.safe_dump(phase), encoding="utf-8")


def check(command: str, expected: Expect, folder: Path, environ: dict[str, str]) -> None:
    """Types it into a shell; one that serves is stopped once it has said what it must."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}" if expected.code == 124 else command], cwd=folder, env=environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        said = ""
        for line in process.stdout or ():
            said += line
            if expected.code == 124 and expected.says in said:
                process.terminate()
                break
    assert "Traceback" not in said, f"{command}\n{said}"
    assert expected.code in {124, process.returncode}, f"{command}\n{said}"
    assert expected.says in said, f"{command}\n{said}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("reader")
    small_configs(made)
    (made / ".venv").symlink_to(sys.prefix)
    return made


@pytest.fixture(scope="module")
def environ(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HF_HOME": str(folder / "hf"), "COLUMNS": "120"}


def test_every_documented_command_has_a_place() -> None:
    shown = {command: page.name for page in PAGES for command in commands(page)}
    known = {*HERE, *ON_A_CLUSTER, *NOT_RUN}
    assert {command: page for command, page in shown.items() if command not in known} == {}
    assert known - set(shown) == set()


def have_results(folder: Path, environ: dict[str, str]) -> None:
    """What the pages look at, where no test has made it before."""
    if not (folder / "results/phase1_large_models").exists():
        phase = "vendomini run --config configs/phases/phase1_large_models.yaml"
        check(phase, Expect("crashed"), folder, environ)


@pytest.mark.parametrize("command", HERE)
def test_a_documented_command(command: str, folder: Path, environ: dict[str, str]) -> None:
    program = command.split(maxsplit=1)[0]
    if shutil.which(program, path=environ["PATH"]) is None and not program.startswith("."):
        pytest.skip(f"{program} is not installed")
    if "results/phase1_large_models" in command:
        have_results(folder, environ)
    make = program == "make"
    check(f"{command} --dry-run" if make else command, HERE[command], REPOSITORY if make else folder, environ)


def test_python_in_the_pages_runs(folder: Path, environ: dict[str, str]) -> None:
    """The blocks of a page follow each other, as in a notebook, and print what stands right below them."""
    pages = [re.findall(CELL, page.read_text(encoding="utf-8"), re.M | re.S) for page in PAGES]
    assert any(pages)
    have_results(folder, environ)
    for cells in filter(None, pages):
        code = "".join(f"{code}print({END!r})\n" for code, _ in cells)
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        for (code, expected), printed in zip(cells, done.stdout.split(f"{END}\n"), strict=False):
            assert not expected or printed == expected, code


CELL = r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?"
END = "--- end of cell"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    """Links, templates, programs, tests, extras, and subcommands and options of ``vendomini``."""
    text = page.read_text(encoding="utf-8")
    paths = [page.parent / link for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    paths += [
        REPOSITORY / name for name in re.findall(r"\b(?:slurm|configs|benchmarks|tests|vendomini)/[\w/]+\.\w+", text)
    ]
    assert [str(path) for path in paths if not path.exists()] == []
    for where, name in re.findall(r"`([\w/.]+)::(\w+)[^`]*`", text):
        file = REPOSITORY / (where if where.endswith(".py") else f"tests/security/test_{where}.py")
        assert where == "file" or f"def test_{name.removeprefix('test_')}" in file.read_text(encoding="utf-8"), name
    for name, rest in re.findall(r"\bvendomini ([a-z]+)\b([^`\n|]*)", "\n".join(_code(text))):
        assert name in COMMANDS, name
        options = {
            option
            for command in _parsers(name)
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest.split("#")[0])) <= options | {"--help"}, f"{name}{rest}"
    extras = {extra for group in re.findall(r"\"(?:\.|vendomini)\[([a-z,-]+)\]\"", text) for extra in group.split(",")}
    assert extras <= set(importlib.metadata.metadata("vendomini").get_all("Provides-Extra"))


def _code(text: str) -> list[str]:
    """Commands of blocks and of spans."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)


def _parsers(name: str) -> list[typer.core.TyperCommand]:
    command = load_command("submit" if name == "keep" else name)  # keep takes submit's options
    return [command, *getattr(command, "commands", {}).values()]
