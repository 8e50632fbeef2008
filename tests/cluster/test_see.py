"""status, logs and doctor's job: what a user sees while jobs run, and when they fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import http_server
from tests.cluster.bench import Bench
from vendomini.cluster.probe_job import probe_job
from vendomini.cluster.status import Status, _foresee, _Pace, status
from vendomini.config import load_config
from vendomini.errors import ClusterError
from vendomini.records import Results
from vendomini.runner import save_plan


def test_status_and_logs_while_jobs_run(bench: Bench) -> None:
    bench.hold()
    config = bench.config("live", grid__pe_induction__p_shock=[0.1], simulation__max_steps=3000)
    bench.submit(config, "--runs-per-job", "2", "--throttle", "1")
    pid = bench.freeze("live")
    status = bench.json("status", str(config))[0]
    assert status["runs"] == 4
    assert status["running"] >= 1
    assert status["running"] + status["waiting"] + status["done"] == 4
    running, waiting = sorted(status["jobs"], key=lambda job: job["state"] != "RUNNING")
    assert (running["state"], waiting["state"], waiting["reason"]) == ("RUNNING", "PENDING", "JobArrayTaskLimit")
    said = bench.vendomini("status", "live")
    assert "1 job pending (JobArrayTaskLimit)" in said
    run_id = next(bench.results("live").glob("runs/*")).name
    follower = subprocess.Popen(
        bench.command("logs", run_id, "--follow"),
        cwd=bench.folder,
        env=bench.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.kill(pid, signal.SIGCONT)
    followed, _ = follower.communicate(timeout=90)
    assert followed.rstrip().endswith("2 ended"), "it went on until the job's last line"
    bench.slurm.wait_for_jobs()
    by_job = bench.vendomini("logs", running["slurm_job"], "--results", str(bench.results("live")))
    assert by_job == followed
    assert bench.vendomini("logs", running["job"], "-n", "1").strip() == "2 ended"


class Refusing(http_server.Handler):
    """Serves a model, and answers every conversation with an error that trying again will not fix."""

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "mute"}]})

    def do_POST(self) -> None:
        self.asked()
        self.reply(400, {"error": "no GPU left"})


class RefusingServer(http_server.Server):
    handler = Refusing


@pytest.fixture
def refusing_server() -> Iterator[str]:
    with RefusingServer() as server:
        yield f"{server.url}/v1"


def test_failed_runs_are_tried_again_and_then_listed(bench: Bench, refusing_server: str) -> None:
    config = bench.config(
        "failing",
        grid__agent__model__name=["mute"],
        grid__pe_induction__p_shock=[0.1],
        engine={"backend": "openai", "base_url": refusing_server},
        simulation__max_steps=20,
    )
    sent = bench.submit(config, "--retries", "2")
    bench.slurm.wait_for_accounting(bench.folder)
    log = bench.job_logs("failing")
    assert "trying again (2 of 2)" in log
    status = bench.json("status", str(config))[0]
    assert (len(status["failed"]), status["done"]) == (4, 0)
    assert all("no GPU left" in reason for reason in status["failed"].values())
    (lost,) = status["lost"]
    assert lost["ended"] == "FAILED (exit code 1)"
    assert "0 ended, 4 failed" in lost["last_lines"]
    said = bench.vendomini("status", str(config))
    assert "4 failed" in said
    assert "this does what is missing: vendomini submit" in said
    assert bench.submit(config)["runs"] == sent["runs"], "the next submit tries them anew"


def test_a_job_whose_engine_can_not_start_says_why_in_one_sentence(bench: Bench, refusing_server: str) -> None:
    engine = {"backend": "openai", "base_url": refusing_server}
    config = bench.config(
        "unheard", grid__agent__model__name=["other"], grid__pe_induction__p_shock=[0.1], engine=engine
    )
    bench.submit(config)
    bench.slurm.wait_for_jobs()
    log = bench.job_logs("unheard")
    assert f"error: {refusing_server} serves mute, not other" in log
    assert "Traceback" not in log


def test_the_probe_runs_on_a_compute_node(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", bench.slurm.environ["SLURM_CONF"])
    found = probe_job("spare", bench.templates)
    assert found["capabilities"]["slurm"]["job_id"], "it was not inside a job"
    assert found["capabilities"]["hf_cache"]["offline"], "the template's environment is missing"
    assert "Hugging Face cache" in bench.vendomini("doctor", "--cluster", "--partition", "spare")
    with pytest.raises(ClusterError, match="no partition 'nix'"):
        probe_job("nix")
    bench.add_to_template("gpu1.sbatch", "module load cuda/99 || exit 7")
    with pytest.raises(ClusterError, match="did not run on a node of partition gpu"):
        probe_job(None, bench.templates)


def test_runs_that_nobody_began_count_once_however_many_plans_ask_for_them(tmp_path: Path) -> None:
    results = Results(tmp_path)

    def ask_for(*overrides: str) -> None:
        save_plan(load_config("configs/demo.yaml", overrides), results)

    def open_runs() -> int:
        return status(results).open

    ask_for("experiment.replications=2")
    assert open_runs() == 24
    ask_for("experiment.replications=3")
    assert open_runs() == 36, "the first two of each are the same runs"
    ask_for("experiment.replications=1", "experiment.seed=9")
    assert open_runs() == 48
    for plan in results.plans.glob("*.json"):
        plan.write_bytes(plan.read_bytes()[:-9])
    broken = status(results)
    assert (broken.open, len(broken.plan_problems)) == (0, 3)
    assert "plans/" in broken.plan_problems[0]


def test_what_is_left_is_foreseen_model_by_model() -> None:
    """A pilot's scripted controls end within milliseconds: they say nothing about the model in the queue."""
    small = _Pace(runs=3, seconds=90.0, tokens=900, live=6, running=2)
    large = _Pace(runs=1, seconds=200.0, tokens=1000, live=2, running=1)
    fresh = _Pace(live=2, running=1)

    def foreseen(*models: _Pace) -> tuple[float | None, float | None]:
        status = Status(name="x", results="results/x")
        _foresee(status, list(models))
        return status.tokens_s, status.eta_s

    assert foreseen(small, large) == (2 * 10 + 5, 400)
    assert foreseen(small, _Pace(live=4)) == (20, None)
    assert foreseen(small, fresh) == foreseen(fresh) == (None, None)
    assert foreseen() == (None, None)


def test_runs_that_a_process_here_goes_on_to_are_foreseen(tmp_path: Path) -> None:
    """Not only the one in progress: 230 more follow it."""
    words = ["run", "--config", "configs/demo.yaml", "-o", "simulation.max_steps=300", "--results", str(tmp_path)]
    with subprocess.Popen([sys.executable, "-m", "vendomini", *words], stdout=subprocess.DEVNULL) as process:
        found = Status(name="", results="")
        while not (found.running and found.done):
            process.send_signal(signal.SIGCONT)
            time.sleep(0.2)
            assert process.poll() is None
            process.send_signal(signal.SIGSTOP)
            found = status(Results(tmp_path)) if (tmp_path / "runs").is_dir() else found
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
    seconds = [outcome.seconds for outcome in Results(tmp_path).outcomes(Results(tmp_path).run_ids()) if outcome]
    assert found.done + found.running + found.open == 240
    mean = found.eta_s * found.running / (found.running + found.open)
    assert 0.99 * min(seconds) < mean < 1.01 * max(seconds)
