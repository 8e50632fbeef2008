"""What a user gets wrong: one sentence each, nothing queued, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.bench import Bench
from vendomini.cluster.preflight import BYTES_PER_STEP


@pytest.fixture
def small(bench: Bench) -> str:
    return str(bench.config("small", grid__pe_induction__p_shock=[0.1], simulation__max_steps=20))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--partition", "gup"],
            "there is no partition 'gup': choose with --partition one of doomed, gpu, grace, hidden, short, spare",
        ),
        (["--partition", "short"], "use --time 00:02:00"),
        (["--time", "noon"], "--time noon: write it as sbatch reads it"),
        (["--account", "nobody"], "SLURM refuses a job from"),
        (["--templates", "nowhere"], "there is no template gpu0.sbatch in nowhere"),
        (["--results", "/proc/results"], "/proc/results"),
        (["-o", "agent.model.name=scripted/nobody"], "scripted/nobody"),
        (["-o", "engine.backend=hf"], "engine.backend must be auto or scripted, not hf"),
        (["--only", "p_schock=0.1"], "--only p_schock: no such parameter"),
        (["--describe", "cluster.json"], "--describe is for --dry-run"),
    ],
)
def test_submit_refuses(bench: Bench, small: str, arguments: list[str], sentence: str) -> None:
    code = 2 if arguments[0] in ("--time", "--only", "--describe") else 1
    said = bench.vendomini("submit", small, *arguments, code=code)
    assert sentence in said
    assert "Traceback" not in said
    assert bench.slurm.jobs() == []


def test_a_typo_in_a_template(bench: Bench, small: str) -> None:
    template = bench.templates / "gpu0.sbatch"
    template.write_text(template.read_text().replace("--mem=", "--men="))
    assert "has no option --men; did you mean --mem?" in bench.vendomini("submit", small, code=1)


def test_more_gpus_than_a_node_has(bench: Bench) -> None:
    config = bench.config("big", grid__agent__model__name=["a/b-7B"], engine={"gpus": 8}, simulation__max_steps=20)
    template = bench.templates / "gpu8.sbatch"
    template.write_text(template.read_text().replace("--gpus-per-node=8", "--gpus-per-node=v100:8"))
    said = bench.vendomini("submit", str(config), "--only", "p_shock=0.1", code=1)
    assert "a/b-7B is not in the Hugging Face cache" in said
    assert "vendomini prefetch a/b-7B" in said
    assert "SLURM refuses a job from" in said, "everything that is wrong is said at once"


def test_an_environment_without_an_engine(bench: Bench, core_only: dict[str, str]) -> None:
    """Its jobs would wait for hours and fail in a second."""
    config = bench.config("bare", grid__agent__model__name=["a/b-7B"], grid__pe_induction__p_shock=[0.1])
    command = [sys.executable, "-S", "-m", "vendomini", "submit", str(config)]
    done = subprocess.run(command, **bench.how(PYTHONPATH=core_only["PYTHONPATH"]))
    assert done.returncode == 1
    assert f"jobs run with {sys.executable}, which lacks torch and transformers" in done.stderr
    assert "jobs run with" not in bench.vendomini("submit", str(config), code=1)


def test_no_room_for_the_logs(bench: Bench, tmp_path: Path) -> None:
    config = bench.config("full", grid__pe_induction__p_shock=[0.1], simulation__max_steps=10**12 // BYTES_PER_STEP)
    said = bench.vendomini("submit", str(config), code=1)
    assert "has room for" in said
    assert "need about 4000.0 GB" in said


def test_unknown_phase_and_no_results(bench: Bench) -> None:
    assert (
        "there is no phase or results folder 'phase9': there are demo, demo_model, ledger, phase1_large_models"
        in bench.vendomini("submit", "phase9", code=1)
    )
    assert "nothing was run or submitted here" in bench.vendomini("status", code=1)
    assert "say what to cancel" in bench.vendomini("cancel", code=2)


def test_cluster_outside_of_a_job_names_the_line_to_use(bench: Bench, small: str) -> None:
    said = bench.vendomini("run", "--config", small, "--cluster", code=2)
    assert f"vendomini submit {small}" in said


def test_no_slurm_here(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "SLURM_CONF"} | {"PATH": ""}

    def vendomini(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vendomini", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    refused = vendomini("submit", "phase1")
    assert refused.returncode == 1
    assert "sbatch is not installed: this is no SLURM login node" in refused.stderr
    assert "--describe FILE" in refused.stderr
    a100 = {"name": "a100", "default": True, "time_limit": "2-00:00:00", "nodes": 9, "gres": "gpu:a100_80gb:4"}
    described = {"version": "23.02", "max_array_size": 1001, "partitions": [a100 | {"state": "up"}]}
    (tmp_path / "cluster.json").write_text(json.dumps({"capabilities": {"slurm": described}}))
    plan = vendomini("submit", "phase1_large", "--dry-run", "--describe", "cluster.json", "--json")
    (outcome,) = json.loads(plan.stdout)
    assert (outcome["runs"], outcome["jobs"]) == (840, 12)
    assert [array["gpus"] for array in outcome["arrays"]] == [2, 4, 1]
    assert "#SBATCH --partition=a100" in outcome["arrays"][0]["script"]
    assert any("vendomini prefetch" in problem for problem in outcome["problems"])
    assert vendomini("estimate", "phase1", "--describe", "cluster.json").returncode == 0
    broken = vendomini("estimate", "phase1", "--describe", "slurm.conf")
    assert (broken.returncode, "slurm.conf: No such file" in broken.stderr) == (2, True)
    (tmp_path / "laptop.json").write_text(vendomini("doctor", "--json").stdout)
    elsewhere = vendomini("estimate", "phase1", "--describe", "laptop.json")
    assert elsewhere.returncode == 1
    assert "laptop.json describes a machine without SLURM partitions (sbatch is not installed" in elsewhere.stderr
