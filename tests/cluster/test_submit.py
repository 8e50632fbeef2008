"""``vendomini submit`` on a real Slurm: every run exactly once, whatever the array limit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.bench import Bench
from tests.tiny_model import make_tiny_model

TENTHS = [n / 10 for n in range(1, 11)]


def test_forty_runs_in_more_shards_than_an_array_may_have(bench: Bench) -> None:
    config = bench.config("forty", grid__pe_induction__p_shock=TENTHS, simulation__max_steps=30)
    sent = bench.submit(config, "--runs-per-job", "3")
    assert (sent["runs"], sent["jobs"]) == (40, 14)
    assert [len(array["jobs"]) for array in sent["arrays"]] == [bench.slurm.settings.max_array_size, 4]
    assert bench.submit(config)["runs"] == 0, "live runs were sent twice"
    bench.slurm.wait_for_jobs()
    assert bench.logs(bench.results("forty")) == bench.undisturbed(config)
    status = bench.json("status", str(config))[0]
    assert (status["done"], status["runs"], status["jobs"], status["lost"]) == (40, 40, [], [])
    again = bench.submit(config)
    assert (again["runs"], again["ended"], again["job_ids"]) == (0, 40, [])


def test_a_model_on_two_gpus(bench: Bench) -> None:
    pytest.importorskip("torch")
    model = make_tiny_model(bench.folder / "tiny", context=8192)
    bench.add_to_template("gpu2.sbatch", "echo gpus=$CUDA_VISIBLE_DEVICES")
    config = bench.config(
        "tiny",
        grid__agent__model__name=[str(model)],
        grid__pe_induction__p_shock=[0.1, 0.3],
        simulation__max_steps=3,
        agent__model__max_tokens=16,
        agent__model__context_length=8192,
        engine={"backend": "hf", "gpus": 2},
    )
    sent = bench.submit(config)
    assert (sent["runs"], sent["jobs"]) == (8, 1)
    bench.slurm.wait_for_jobs(240)
    log = bench.job_logs("tiny")
    assert "gpus=0,1\n" in log
    assert len(bench.logs(bench.results("tiny"))) == 8, log
    assert log.count("[*]") >= 1
    estimate = bench.json("estimate", str(config))["rows"][0]
    assert estimate["sources"]["standard"] == "measured here"


def test_two_engines_share_the_gpus_of_a_job(bench: Bench) -> None:
    """Told to stop, both stop, and the job goes back into the queue once. Whole nodes are shared in the same way."""
    pytest.importorskip("torch")
    model = make_tiny_model(bench.folder / "tiny", context=8192)
    config = bench.config(
        "shared",
        grid__agent__model__name=[str(model)],
        grid__pe_induction__p_shock=[0.1],
        simulation__max_steps=30,
        agent__model__max_tokens=16,
        agent__model__context_length=8192,
        engine={"backend": "hf", "gpus": 2},
    )
    sent = bench.submit(config)
    (array,) = sent["arrays"]
    assert (array["gpus"], array["replicas"], len(array["jobs"])) == (2, 2, 1)
    steps = bench.results("shared") / "runs"
    bench.slurm.until("both engines work", lambda: len(_owners(steps)) == 2, 120)
    bench.slurm.call("scancel", "--signal=USR2", sent["job_ids"][0])
    bench.slurm.wait_for_jobs(240)
    log = bench.job_logs("shared")
    assert "engine 1 of 2, on GPUs 0\n" in log
    assert "engine 2 of 2, on GPUs 1\n" in log
    assert log.count("back into the queue with") == 1
    assert log.count("2 engines share this job") == 2
    assert len(bench.logs(bench.results("shared"))) == 4, log


def _owners(runs: Path) -> set[int]:
    """Processes that have done a step."""
    begun = (log.parent / "run.json" for log in runs.glob("*/steps.jsonl") if log.stat().st_size)
    return {json.loads(info.read_text())["owner"]["pid"] for info in begun}


def test_one_phase_after_another(bench: Bench) -> None:
    first = bench.config("first", grid__pe_induction__p_shock=[0.1], simulation__max_steps=20)
    second = bench.config("second", grid__pe_induction__p_shock=[0.1], simulation__max_steps=20)
    bench.add_to_template("gpu0.sbatch", "sleep 4")
    bench.submit(first)
    bench.submit(second, "--after", str(first))
    assert {reason for job in bench.json("status", str(second))[0]["jobs"] for reason in [job["reason"]]} == {
        "Dependency"
    }
    bench.slurm.wait_for_jobs()
    ends = [max(f.stat().st_mtime for f in bench.results(n).glob("runs/*/summary.json")) for n in ("first", "second")]
    assert ends[0] < ends[1]
    assert len(bench.logs(bench.results("second"))) == 4


def test_two_submits_at_once_take_each_run_once(bench: Bench) -> None:
    config = bench.config("twice", grid__pe_induction__p_shock=TENTHS[:5], simulation__max_steps=20)
    how: dict[str, Any] = {"cwd": bench.folder, "env": bench.environ, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(bench.command("submit", str(config), "--json"), **how) for _ in range(2)]
    outputs = [one.communicate(timeout=60)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sorted(output.count('"model"') for output in outputs) == [0, 1], "both took the same runs"
    bench.slurm.wait_for_jobs()
    assert bench.logs(bench.results("twice")) == bench.undisturbed(config)


def test_a_job_started_by_hand_takes_its_share(bench: Bench) -> None:
    config = bench.config("hand", grid__pe_induction__p_shock=TENTHS[:3], simulation__max_steps=20)
    script = (str(bench.templates / "gpu0.sbatch"), str(config))
    bench.slurm.call("sbatch", "--array=0-2", "--chdir", str(bench.folder), *script, PATH=bench.path)
    bench.slurm.wait_for_jobs()
    assert bench.logs(bench.results("hand")) == bench.undisturbed(config)
    logs = [file.read_text() for file in bench.folder.glob("vendomini-*.log")]
    assert len(logs) == 3
    assert all("4 runs" in log for log in logs), logs


def test_submitting_from_inside_a_job_leaks_nothing_into_the_new_ones(bench: Bench) -> None:
    config = bench.config("inside", grid__pe_induction__p_shock=[0.1], simulation__max_steps=20)
    outer = ["--cpus-per-task=1", "--mem=1G", "--time=5", "--export=ALL,SLURM_CPU_BIND=none,SLURM_MEM_PER_CPU=1"]
    inner = f"exec {' '.join(bench.command('submit', str(config)))}"
    bench.slurm.call("srun", *outer, f"--chdir={bench.folder}", "bash", "-c", inner)
    bench.slurm.wait_for_jobs()
    assert bench.logs(bench.results("inside")) == bench.undisturbed(config)


def test_accounting_off(bench_without_accounting: Bench) -> None:
    bench = bench_without_accounting
    config = bench.config("plain", grid__pe_induction__p_shock=TENTHS[:5], simulation__max_steps=20)
    bench.submit(config, "--runs-per-job", "5")
    bench.slurm.wait_for_jobs()
    status = bench.json("status", str(config))[0]
    assert (status["done"], status["runs"]) == (20, 20)
    assert bench.logs(bench.results("plain")) == bench.undisturbed(config)


def test_another_world(bench: Bench) -> None:
    config = bench.folder / "ledger.yaml"
    config.write_text(
        "experiment: {name: ledger, world: ledger, replications: 3}\n"
        "office: {max_steps: 30}\n"
        "grid:\n"
        "  agent.model.name: [scripted/ledger/oracle, scripted/ledger/fragile]\n"
        "  office.p_error: [0.0, 0.3]\n"
    )
    sent = bench.submit(config)
    assert (sent["runs"], sent["jobs"]) == (12, 2)
    bench.slurm.wait_for_jobs()
    logs = bench.logs(bench.results("ledger"))
    assert len(logs) == 12
    assert logs == bench.undisturbed(config)
