"""Faults on runs with a real language model in them: Transformers, and vLLM with its processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from typing import Any

from tests.chaos.experiment import Books, Experiment, campaign, phase
from tests.chaos.local import damaged, flipped, killed, signalled, truncated
from tests.tiny_model import make_tiny_model

VOLATILE = frozenset({"latency_s", "cached_tokens"})
"""How long an answer took, and how much of its prompt a restarted engine still had."""


def _phase(model: Path, **engine: Any) -> dict[str, Any]:
    agent = {"model": {"name": str(model), "dtype": "float32", "max_tokens": 12, "context_length": 8192}}
    experiment = {"name": "model", "replications": 2}
    grid = {"pe_induction.p_shock": [0.0, 0.3]}
    return phase(grid, experiment=experiment, agent=agent, engine=engine, simulation={"max_steps": 40})


def strike_transformers(folder: Path, books: Books, generator: random.Random, faults: int) -> None:
    kinds = {
        "kill -9 of the runner, Transformers": killed,
        "SIGTERM, Transformers": signalled(signal.SIGTERM),
        "SIGUSR2, Transformers": signalled(signal.SIGUSR2),
        "a file truncated, Transformers": damaged(truncated),
        "a flipped bit, Transformers": damaged(flipped),
    }
    config = _phase(make_tiny_model(folder / "model", vocab=2000, context=8192), backend="hf")
    campaign(folder, repeat(config), kinds, books, generator, faults, VOLATILE)


def strike_vllm(folder: Path, books: Books, generator: random.Random, faults: int) -> None:
    if find_spec("vllm") is None:
        print("no faults on vLLM: it is not installed")
        return
    kinds = {
        "kill -9 of vLLM's core": core_killed,
        "vLLM's core hangs": core_hangs,
        "kill -9 of the runner, vLLM": runner_killed,
    }
    model = make_tiny_model(folder / "model", hidden=128, vocab=2000, context=8192)
    engine = {"backend": "vllm", "enforce_eager": True, "request_timeout": 15, "max_num_seqs": 4}
    campaign(folder, repeat(_phase(model, **engine)), kinds, books, generator, faults, VOLATILE)


# ------------------------------------------------------------------------------------------------------ vLLM


def core_killed(experiment: Experiment, generator: random.Random, kind: str) -> bool:
    """vLLM is started again once, and what it was busy with is failed; the next start tries that again."""
    process = experiment.start()
    experiment.wait_for(process, 1 + experiment.moment(generator))
    for core in _cores(process.pid):
        os.kill(core, signal.SIGKILL)
    experiment.end(process, kind, 1, 0)
    return process.returncode != 0


def core_hangs(experiment: Experiment, generator: random.Random, kind: str) -> bool:
    process = experiment.start()
    experiment.wait_for(process, 1 + experiment.moment(generator))
    for core in _cores(process.pid):
        os.kill(core, signal.SIGSTOP)
    said = experiment.end(process, kind, 1, 0)
    if process.returncode == 1 and "engine.request_timeout" not in said:
        experiment.books.blame(experiment.books.rude, kind, f"did not say that the engine hangs\n{said}")
    return process.returncode != 0


def runner_killed(experiment: Experiment, generator: random.Random, kind: str) -> bool:
    process = experiment.start()
    experiment.wait_for(process, 1 + experiment.moment(generator))
    groups = {group for _, group, _ in _descendants(process.pid)} - {process.pid}
    process.kill()
    experiment.end(process, kind, -signal.SIGKILL, 0)
    end = time.monotonic() + 20
    while left := [line for pid, group, line in _processes() if group in groups]:
        if time.monotonic() > end:
            experiment.books.blame(experiment.books.rude, kind, f"outlived its parent: {left}")
            break
        time.sleep(0.1)
    return process.returncode != 0


def _cores(runner: int) -> list[int]:
    return [pid for pid, _, line in _descendants(runner) if "EngineCore" in line]


def _descendants(runner: int) -> list[tuple[int, int, str]]:
    """Processes of the groups that the runner's children lead."""
    leaders = subprocess.run(["ps", "-o", "pid=", "--ppid", str(runner)], capture_output=True, text=True).stdout.split()
    return [entry for entry in _processes() if str(entry[1]) in leaders]


def _processes() -> list[tuple[int, int, str]]:
    """Living processes: pid, process group, command line."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat=,args="], capture_output=True, text=True).stdout
    entries = (line.split(None, 3) for line in listed.splitlines())
    return [(int(pid), int(group), line) for pid, group, state, line in entries if not state.startswith("Z")]
