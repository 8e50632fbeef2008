"""Adaptive replications on a cluster: each look is a submission, whoever sends it."""

from __future__ import annotations

import json
import subprocess

from tests.cluster.bench import Bench


def test_looks_by_two_submitters_and_a_keeper(bench: Bench) -> None:
    """Nothing happens within 20 steps, so that the pair stops for futility after four of six seeds."""
    config = bench.config(
        "looks", experiment__replications={"min": 2, "max": 6}, grid__pe_induction__p_shock=[0, 0.8],
        simulation__max_steps=20,
    )  # fmt: skip
    both = [subprocess.Popen(bench.command("submit", str(config)), cwd=bench.folder, env=bench.environ) for _ in "ab"]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    bench.slurm.wait_for_jobs()
    sent = [json.loads(file.read_text()) for file in bench.results("looks").glob("submissions/*/manifest.json")]
    runs = [
        run_id for one in sent for array in one["arrays"] for shard in array["shards"] for run_id in shard["run_ids"]
    ]
    assert len(runs) == len(set(runs)) == 2 * 6, "two seeds of two cells at dose 0 and four at 0.8, once each"
    (status,) = bench.json("status", str(config))
    assert (status["done"], status["open"]) == (12, 12), "those of the next look are open"
    assert "sent 12 runs" in bench.vendomini("keep", str(config))
    bench.slurm.wait_for_jobs()
    assert "done, 24 runs" in bench.vendomini("keep", str(config))
    said = bench.vendomini("submit", str(config))
    assert "1 of 1 doses are decided (1 futile); 24 of at most 36 runs asked for." in said
    assert "Nothing to submit" in said
    assert bench.logs(bench.results("looks")) == bench.undisturbed(config)
    alone = bench.folder / "undisturbed" / "looks" / "looks.json"
    assert (bench.results("looks") / "looks.json").read_bytes() == alone.read_bytes()
    assert [pair["verdict"] for pair in json.loads(alone.read_text())["pairs"]] == ["futile"]
