"""What a cluster does to jobs. After each: every run exactly once, byte for byte as if nothing had happened."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.cluster.bench import Bench

STEPS = 3000
"""Of a run: long enough to be caught in the middle."""


@pytest.fixture
def config(bench: Bench, request: pytest.FixtureRequest) -> Path:
    """Four runs in one job, named after the test."""
    bench.hold()
    name = request.node.name.removeprefix("test_")[:40]
    return bench.config(name, grid__pe_induction__p_shock=[0.1], simulation__max_steps=STEPS)


def _all_there(bench: Bench, config: Path) -> bool:
    return bench.logs(bench.results(config.stem)) == bench.undisturbed(config)


def _check_started_again(bench: Bench, config: Path) -> None:
    """The job was started once more, by SLURM itself, and all is there."""
    bench.slurm.wait_for_jobs()
    assert bench.job_logs(config.stem).count("4 runs in this job") == 2
    assert _all_there(bench, config)


def test_time_limit_of_jobs_submitted_and_started_by_hand(bench: Bench, config: Path) -> None:
    """Side by side: SLURM's limits are whole minutes, and its warning may come a minute early."""
    template = bench.templates / "gpu0.sbatch"
    template.write_text(template.read_text().replace("USR2@300", "USR2@20"))
    bench.submit(config, "--partition", "short", "--time", "00:02:00")
    hand = bench.config("hand", grid__pe_induction__p_shock=[0.1], simulation__max_steps=STEPS)
    options = ("--partition=short", "--time=2", "--signal=USR2@20", "--chdir", str(bench.folder))
    bench.slurm.call("sbatch", *options, str(template), str(hand), PATH=bench.path)
    bench.freeze_all(config.stem, hand.stem)  # Slurm's warning comes with a SIGCONT

    def logs() -> list[str]:
        return [bench.job_logs(config.stem), "".join(f.read_text() for f in bench.folder.glob("vendomini-*.log"))]

    requeued = re.compile(r"back into the queue with \d runs? to go")
    bench.slurm.until("the jobs heed the warning", lambda: all(requeued.search(log) for log in logs()), 160)
    bench.slurm.wait_for_jobs()
    for log in logs():
        assert log.count("4 runs in this job") == 2, "one start and one more after the requeue, in one log"
    assert _all_there(bench, config)
    assert _all_there(bench, hand)


def test_requeue_behind_our_back(bench: Bench, config: Path) -> None:
    sent = bench.submit(config)
    bench.freeze(config.stem)
    bench.slurm.call("scontrol", "requeue", sent["job_ids"][0])
    _check_started_again(bench, config)


def test_preemption(bench: Bench, config: Path) -> None:
    bench.submit(config, "--partition", "spare")
    pid = bench.freeze(config.stem)
    bench.slurm.call("sbatch", "--partition=gpu", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    bench.slurm.until(
        "the job was preempted", lambda: any(job[2] == "RUNNING" and job[3] == "wrap" for job in bench.slurm.jobs())
    )
    assert not Path(f"/proc/{pid}").exists()
    _check_started_again(bench, config)


def test_preemption_that_gives_notice(bench: Bench, config: Path) -> None:
    """SLURM says SIGTERM first; a job that ended by itself then would count as failed, and not be started again."""
    bench.submit(config, "--partition", "grace")
    pid = bench.freeze(config.stem)
    bench.slurm.call("sbatch", "--partition=gpu", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    said = "waiting for SLURM to end this job"
    bench.slurm.until("the job heeds the notice", lambda: said in bench.job_logs(config.stem))
    bench.slurm.until("the job was preempted", lambda: not Path(f"/proc/{pid}").exists())
    _check_started_again(bench, config)


def test_kill_9(bench: Bench, config: Path) -> None:
    bench.submit(config)
    os.kill(bench.freeze(config.stem), signal.SIGKILL)
    bench.slurm.wait_for_accounting(bench.folder)
    status = bench.json("status", str(config))[0]
    assert (status["interrupted"], status["open"], status["running"]) == (1, 3, 0)
    (lost,) = status["lost"]
    assert lost["unfinished"] == 4
    assert lost["ended"].startswith("FAILED")
    assert bench.submit(config)["runs"] == 4
    bench.slurm.wait_for_jobs()
    assert _all_there(bench, config)


def test_scancel_of_one_task(bench: Bench, config: Path) -> None:
    sent = bench.submit(config, "--runs-per-job", "2")
    caught = Path(f"/proc/{bench.freeze(config.stem)}/environ").read_bytes().decode()
    (task,) = re.findall(r"\bSLURM_ARRAY_TASK_ID=(\d+)", caught)
    bench.slurm.call("scancel", f"{sent['job_ids'][0]}_{task}")
    bench.slurm.wait_for_jobs()
    assert 1 <= bench.submit(config)["runs"] <= 2
    bench.slurm.wait_for_jobs()
    assert _all_there(bench, config)


def test_node_failure_with_the_job_still_alive(bench: Bench, config: Path) -> None:
    """The node is lost to Slurm, which starts the job elsewhere while the old one still writes: the lock decides."""
    bench.submit(config)
    pid = bench.freeze(config.stem)
    node = bench.slurm.call("squeue", "-h", "-o", "%N").strip()
    bench.slurm.kill(node)
    try:
        bench.slurm.until("the job runs elsewhere", lambda: _runs_elsewhere(bench, node), 120)
        bench.slurm.wait_for_jobs()
        assert "3 ended, 1 left to another process" in bench.job_logs(config.stem)
    finally:
        os.kill(pid, signal.SIGCONT)
        bench.slurm.until("the old process is through", lambda: not bench.processes())
        bench.slurm.start_node(node)
    bench.slurm.until(
        "the node is back",
        lambda: bench.slurm.call("sinfo", "-h", "-n", node, "-p", "gpu", "-o", "%t").strip() == "idle",
    )
    bench.submit(config)
    bench.slurm.wait_for_jobs()
    assert _all_there(bench, config)


def _runs_elsewhere(bench: Bench, node: str) -> bool:
    bench.slurm.hurry()
    return bench.slurm.call("squeue", "-h", "-t", "RUNNING", "-o", "%N").strip() not in ("", node)


def test_cancel_and_go_on(bench: Bench, config: Path) -> None:
    bench.submit(config)
    bench.freeze(config.stem)
    cancelled = bench.json("cancel", str(config))
    assert [len(names) for names in cancelled.values()] == [1]
    bench.slurm.wait_for_jobs()
    assert len(bench.logs(bench.results(config.stem))) < 4
    bench.submit(config)
    bench.slurm.wait_for_jobs()
    assert _all_there(bench, config)
