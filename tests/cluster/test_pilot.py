"""A pilot and the breaker on a real Slurm."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.bench import Bench
from tests.thinking_model import ANSWER, DRAFT, make_thinking_model
from tests.tiny_model import make_tiny_model


def _models(bench: Bench, **overrides: Any) -> Path:
    """A phase on a model of random weights, and on one that thinks beyond its limit."""
    tiny = make_tiny_model(bench.folder / "random", context=8192)
    thinking = make_thinking_model(bench.folder / "thinking", ["<think>", DRAFT, "</think>", ANSWER], loop=DRAFT)
    settings: dict[str, Any] = {
        "grid__agent__model__name": [str(tiny), str(thinking)],
        "grid__pe_induction__p_shock": [0.0, 0.4],
        "grid__pe_induction__pe_mag": ["low"],
        "grid__agent__interface__prediction_mode": ["required"],
        "agent__model__max_tokens": 24,
        "agent__model__context_length": 8192,
        "engine": {"backend": "hf", "gpus": 1},
    }
    return bench.config("models", **settings | overrides)


def test_a_pilot_in_jobs_and_what_submit_makes_of_it(bench: Bench) -> None:
    pytest.importorskip("torch")
    config = _models(bench, simulation__max_steps=4)
    refused = bench.vendomini("submit", str(config), "--require-pilot", code=1)
    assert f"Pilot it: vendomini submit {config} --pilot" in refused
    assert refused.count("no pilot") == 2
    assert not bench.slurm.jobs()
    warned = bench.vendomini("submit", str(config), "--dry-run")
    assert warned.count("no pilot\n") == 2
    sent = bench.submit(config, "--pilot")
    assert (sent["runs"], sent["jobs"], sent["phase"]) == (32, 2, "models.pilot")
    assert bench.submit(config, "--pilot")["runs"] == 0, "live runs were sent twice"
    bench.slurm.wait_for_jobs(300)
    random, thinking = json.loads(bench.vendomini("pilot", str(config), "--json", code=None))
    assert (random["grade"], thinking["grade"]) == ("no", "look"), bench.job_logs("models/pilot")
    assert random["figures"]["runs"] == random["figures"]["ended"] == 16
    assert "replies can't be used" in random["reasons"][0]
    assert "cut off at 24 tokens: raise agent.model.max_tokens" in thinking["reasons"][0]
    (rows,) = [bench.json("estimate", str(config))["rows"]]
    assert {row["sources"]["standard"] for row in rows} == {"measured in the pilot"}
    refused = bench.vendomini("submit", str(config), "--require-pilot", code=1)
    assert "replies can't be used" in refused
    assert "thinking" not in refused
    other = bench.submit(config, "--dry-run", "-o", "agent.model.max_tokens=32")
    assert [doubt.partition(": ")[2] for doubt in other["doubts"]] == [
        "piloted on other settings (agent.model.max_tokens: 24, now 32)"
    ] * 2
    nothing = bench.vendomini("status", code=1)
    assert "nothing was run or submitted here (results); there is results/models/pilot: see" in nothing


def test_controls_are_piloted_where_slurm_is(bench: Bench) -> None:
    config = bench.config("controls", grid__pe_induction__p_shock=[0.0, 0.4])
    assert "Submitted as job" in bench.vendomini("pilot", str(config), code=None)
    bench.slurm.wait_for_jobs()
    (verdict,) = bench.json("pilot", str(config))
    assert (verdict["grade"], verdict["reasons"]) == ("ok", [])
    assert bench.submit(config, "--dry-run")["doubts"] == []


def test_two_hundred_runs_of_unreadable_replies_stop(bench: Bench) -> None:
    """The job is killed on its way; what follows is as if it had not been."""
    pytest.importorskip("torch")
    engine = {"backend": "hf", "gpus": 1, "max_num_seqs": 16}
    config = _models(bench, simulation__max_steps=500, experiment__replications=100, engine=engine)
    only = ("--only", f"model={bench.folder / 'random'}", "--max-jobs", "1")
    sent = bench.submit(config, *only)
    assert sent["runs"] == 200
    logs = bench.results("models") / "runs"
    bench.slurm.until("it works", lambda: any(log.stat().st_size for log in logs.glob("*/steps.jsonl")), 240)
    bench.slurm.call("scancel", "--signal=KILL", *sent["job_ids"])
    bench.slurm.wait_for_jobs(120)
    assert bench.submit(config, *only)["runs"] == 200
    bench.slurm.wait_for_jobs(400)
    status = bench.json("status", str(config))[0]
    (halt,) = status["halts"]
    assert halt["cause"] == "replies", bench.job_logs("models")
    assert "replies can't be used" in halt["reason"]
    steps = sum(log.read_bytes().count(b"\n") for log in logs.glob("*/steps.jsonl"))
    assert 8 * 5 <= steps <= 0.05 * 200 * 500, f"{sent['jobs']} jobs"
    assert "is stopped: " in bench.vendomini("status", str(config))
    how: dict[str, Any] = {"cwd": bench.folder, "env": bench.environ, "stdout": subprocess.PIPE, "text": True}
    again = [subprocess.Popen(bench.command("submit", str(config), *only, "--json"), **how) for _ in range(2)]
    for one in again:
        (outcome,) = json.loads(one.communicate(timeout=120)[0])
        left = outcome["halted"]
        assert (one.returncode, outcome["runs"], outcome["ended"] + left) == (0, 0, 200)
    assert f"{left} runs are stopped" in bench.vendomini("keep", str(config), *only, code=1)
    for change in (["--anyway"], ["-o", "breaker=off"], ["-o", "engine.max_num_seqs=2"]):
        assert bench.submit(config, *only, "--dry-run", *change)["runs"] == left
