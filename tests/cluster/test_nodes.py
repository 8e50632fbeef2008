"""A model on two nodes: who leads, where, and that all processes end together."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.cluster.bench import REPOSITORY, Bench
from tests.cluster.described import offers
from vendomini.cluster.nodes import LOST
from vendomini.cluster.script import REQUEUE, scripts
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.submit import Request, prepare
from vendomini.config import expand, load_config
from vendomini.engines.vllm.nodes import NodeGroup
from vendomini.errors import EngineUnavailable
from vendomini.records import Results

SCRIPT = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --output={folder}/log --open-mode=append --requeue --chdir={repository}
srun --kill-on-bad-exit=1 {python} -m tests.cluster.stand_in {folder}
{requeue}
"""


def _begin(bench: Bench) -> tuple[str, dict[str, int]]:
    """The job, and the pid of each of its processes, once vLLM's stand-in works on the second node."""
    script = bench.folder / "job.sh"
    requeue = "\n".join(REQUEUE)
    script.write_text(SCRIPT.format(folder=bench.folder, repository=REPOSITORY, python=sys.executable, requeue=requeue))
    job = bench.slurm.call("sbatch", "--parsable", str(script)).strip()
    return job, _pids(bench)


def _pids(bench: Bench) -> dict[str, int]:
    files = [bench.folder / name for name in ("rank0", "rank1", "worker.json")]
    bench.slurm.until("both ranks work", lambda: all(file.exists() and file.read_text() for file in files))
    worker = json.loads(files[2].read_text())
    return {"leader": int(files[0].read_text()), "follower": int(files[1].read_text()), "worker": worker["pid"]}


def _alive(pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()]


def test_ranks_find_each_other_and_end_together(bench: Bench) -> None:
    job, pids = _begin(bench)
    worker = json.loads((bench.folder / "worker.json").read_text())
    assert (worker["nnodes"], worker["node_rank"], worker["pipeline_parallel_size"]) == (2, 1, 2)
    assert (worker["master_addr"], worker["master_port"]) == ("127.0.0.1", 20_000 + 2 * int(job))
    (bench.folder / "go").touch()
    bench.slurm.wait_for_jobs()
    assert _alive(pids) == []
    assert bench.shown(job)["JobState"] == "COMPLETED", (bench.folder / "log").read_text()


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_one_that_dies_ends_all_and_the_job_begins_anew(bench: Bench, victim: str) -> None:
    job, pids = _begin(bench)
    for file in ("rank0", "rank1", "worker.json"):
        (bench.folder / file).unlink()
    os.kill(pids[victim], signal.SIGKILL)
    bench.slurm.until("all have ended", lambda: _alive(pids) == [])
    (bench.folder / "go").touch()
    bench.slurm.wait_for_jobs()
    assert (bench.shown(job)["JobState"], bench.shown(job)["Restarts"]) == ("COMPLETED", "1")


def test_a_follower_whose_workers_die_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while in which the leader could have said that it is done."""
    monkeypatch.setenv("SLURM_CONF", bench.slurm.environ["SLURM_CONF"])
    job, pids = _begin(bench)
    os.kill(pids["worker"], signal.SIGKILL)
    bench.slurm.until("all have ended", lambda: _alive(pids) == [], 90)
    bench.slurm.call("scancel", job)
    assert f"Exited with exit code {LOST}" in (bench.folder / "log").read_text()


def test_the_script_of_a_job_on_two_nodes(tmp_path: Path) -> None:
    overrides = ["grid.agent.model.name=[a/b-405B]", "engine.nodes=2"]
    phase = load_config("configs/phases/phase1_large_models.yaml", overrides)
    here = offers()
    submission = prepare(
        phase, list(expand(phase)), Results(tmp_path), Request(), here, Sizing(phase.config.engine, here)
    )
    (script,) = scripts(submission)
    assert "#SBATCH --nodes=2\n" in script
    assert "#SBATCH --gpus-per-node=8\n" in script
    assert "srun --export=ALL --kill-on-bad-exit=1 " in script


def test_several_nodes_need_a_job() -> None:
    assert NodeGroup.of(1, {}) is None
    with pytest.raises(EngineUnavailable, match=r"engine\.nodes is 2"):
        NodeGroup.of(2, {})
    group = NodeGroup(2, 1, "n1", 20_002)
    assert NodeGroup.of(2, group.environ()) == group
