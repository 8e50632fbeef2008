"""``vendomini keep``: what jobs leave is sent again, until all is done or it would be in vain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.bench import Bench
from tests.cluster.test_see import RefusingServer
from vendomini.cli import load_command
from vendomini.cli.submit import _options_given
from vendomini.cluster.keep import History
from vendomini.cluster.slurm import End
from vendomini.records import Results


@pytest.fixture
def config(bench: Bench, request: pytest.FixtureRequest) -> Path:
    name = request.function.__name__.removeprefix("test_")[:40]
    return bench.config(name, grid__pe_induction__p_shock=[0.1], simulation__max_steps=3000)


def test_jobs_that_were_preempted_for_good(bench: Bench, config: Path) -> None:
    """``PreemptMode=CANCEL``: SLURM does not start them again."""
    bench.hold()
    assert "sent 4 runs" in bench.vendomini("keep", str(config), "--partition", "doomed")
    pid = bench.freeze(config.stem)
    assert "1 job is live" in bench.vendomini("keep", str(config), "--partition", "doomed")
    bench.slurm.call("sbatch", "--partition=gpu", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    bench.slurm.until("the job was preempted", lambda: not Path(f"/proc/{pid}").exists())
    bench.slurm.wait_for_accounting(bench.folder)
    assert bench.json("status", str(config))[0]["lost"][0]["ended"].startswith("PREEMPTED")
    assert "sent 4 runs" in bench.vendomini("keep", str(config), "--partition", "doomed")
    bench.slurm.wait_for_jobs()
    assert "done, 4 runs" in bench.vendomini("keep", str(config))
    assert bench.logs(bench.results(config.stem)) == bench.undisturbed(config)


def test_a_keeper_of_its_own_waits_out_a_submit_limit(bench: Bench) -> None:
    config = bench.config("many", grid__pe_induction__p_shock=[0.1, 0.3], simulation__max_steps=20)
    with bench.slurm.limited(MaxSubmitJobs=4):
        said = bench.vendomini("submit", str(config), "--runs-per-job", "1", "--keep")
        assert "Keeper: job" in said
        assert "With --keep, what is left is sent later" in said
        assert "one is live already" in bench.vendomini("submit", str(config), "--runs-per-job", "1", "--keep")
        bench.slurm.wait_for_jobs(240)
    (log,) = bench.results("many").glob("submissions/keeper-*.out")
    assert "waiting for room in the queue" in log.read_text()
    assert log.read_text().rstrip().endswith("many: done, 8 runs")
    assert bench.logs(bench.results("many")) == bench.undisturbed(config)


def test_a_round_from_cron_and_one_from_scrontab(bench: Bench) -> None:
    """Cron has a bare environment; an entry of scrontab is a job itself, with the variables of one."""
    config = bench.config("rounds", grid__pe_induction__p_shock=[0.1], simulation__max_steps=20)
    line = f"cd {bench.folder} && {sys.executable} -m vendomini keep {config} --partition gpu"
    bare = {"HOME": str(bench.folder), "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", **bench.slurm.environ}
    bare["PYTHONPATH"] = os.getcwd()
    done = subprocess.run(["/bin/sh", "-c", line], env=bare, capture_output=True, text=True, timeout=300)
    assert "sent 4 runs" in done.stdout, done.stdout + done.stderr
    bench.slurm.wait_for_jobs()
    more = bench.config("rounds", grid__pe_induction__p_shock=[0.1, 0.3], simulation__max_steps=20)
    assert more == config
    entry = ["sbatch", "--job-name=entry", "--time=5", f"--output={bench.folder}/entry", f"--wrap={line}"]
    bench.slurm.call(*entry, PYTHONPATH=os.getcwd())
    bench.slurm.wait_for_jobs()
    assert "sent 4 runs" in (bench.folder / "entry").read_text()
    assert bench.logs(bench.results("rounds")) == bench.undisturbed(config)


def test_cancelled_jobs_are_not_sent_again(bench: Bench, config: Path) -> None:
    bench.set_in_template("gpu0.sbatch", begin="now+1hour")
    bench.vendomini("submit", str(config), "--keep")
    bench.vendomini("cancel", str(config))
    bench.slurm.wait_for_accounting(bench.folder)  # the keeper, too
    assert "its jobs were cancelled" in bench.vendomini("keep", str(config), code=1)


@pytest.fixture
def refusing_server() -> Iterator[str]:
    with RefusingServer() as server:
        yield f"{server.url}/v1"


def test_the_same_failure_twice(bench: Bench, refusing_server: str) -> None:
    engine = {"backend": "openai", "base_url": refusing_server}
    config = bench.config("vain", grid__agent__model__name=["other"], grid__pe_induction__p_shock=[0.1], engine=engine)
    for _ in range(2):
        assert "sent 4 runs" in bench.vendomini("keep", str(config))
        bench.slurm.wait_for_accounting(bench.folder)
    assert "the last 2 submissions ended without a step done" in bench.vendomini("keep", str(config), code=1)


def test_a_node_that_failed_twice_is_left_out(bench: Bench, config: Path) -> None:
    """Accounting says so: a wrapper before sacct stands for two nights of bad luck with n1."""
    (job,) = bench.submit(config)["job_ids"]
    os.kill(bench.freeze(config.stem), signal.SIGKILL)
    bench.slurm.wait_for_jobs()
    name = bench.shown(job)["JobName"]
    environ = bench.wrap("sacct", f"for k in 1 2; do echo '{job}|NODE_FAIL|0:0|n1|{name}'; done")
    assert "without n1" in bench.vendomini("keep", str(config), **environ)
    (sent,) = {job[0] for job in bench.slurm.jobs()}
    assert bench.shown(sent)["ExcNodeList"] == "n1"
    bench.slurm.wait_for_jobs()
    assert "done, 4 runs" in bench.vendomini("keep", str(config))


def test_a_failed_job_counts_against_its_node_where_others_succeed(tmp_path: Path) -> None:
    def bad(*ends: End) -> list[str]:
        return History(Results(tmp_path), [], {str(k): [end] for k, end in enumerate(ends)}).bad_nodes()

    failed, fine = End("FAILED", "1", "n1"), End("COMPLETED", "0", "n2")
    assert bad(failed, failed, fine) == ["n1"]
    assert bad(failed, failed) == [], "it may be the runs' own fault"
    assert bad(failed, fine) == []
    assert bad(End("NODE_FAIL", "0", "n1"), End("NODE_FAIL", "0", "n1"), End("PREEMPTED", "0", "n2")) == ["n1"]


def test_the_keeper_gets_the_options_that_were_given() -> None:
    command = load_command("submit")
    words = ["a.yaml", "--partition", "gpu,spare", "-o", "x=1", "-o", "y=a b", "--whole-nodes", "--keep", "--json"]
    with command.make_context("submit", [*words, "--runs-per-job", "2"]) as context:
        assert _options_given(context) == [
            *("-o", "x=1", "-o", "y=a b", "--partition", "gpu,spare", "--whole-nodes", "--runs-per-job", "2")
        ]
