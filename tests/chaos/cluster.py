"""Faults on jobs of a real Slurm, whose nodes are simulated: processes, daemons, and other people's commands."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests.chaos.experiment import Books
from tests.cluster.bench import Bench
from tests.cluster.slurm import NODES, Slurm, why_not

CALM_S = 60.0


class Jobs:
    """One submission and its books: the logs so far, and the same runs undisturbed."""

    def __init__(self, bench: Bench, name: str, seed: int) -> None:
        self.bench, self.name = bench, name
        grid = {"grid__pe_induction__p_shock": [0.0, 0.3], "experiment__seed": seed, "experiment__replications": 2}
        self.config = bench.config(name, simulation__max_steps=2500, **grid)
        self.reference = bench.undisturbed(self.config)
        self.lines: dict[str, int] = {}

    def submit(self) -> None:
        """Nothing is sent, and a sentence says so, while nodes are away."""
        command = self.bench.command("submit", str(self.config), "--runs-per-job", "4", "--max-jobs", "4")
        done = subprocess.run(command, timeout=120, **self.bench.how())
        said = done.stdout + done.stderr
        assert done.returncode == 0 or "nothing was submitted" in said, said

    @property
    def done(self) -> bool:
        return len(self.bench.logs(self.bench.results(self.name))) == len(self.reference)

    def pids(self) -> list[int]:
        """Of the jobs' processes that run episodes: each run names the one that began it."""
        found = set()
        for info in self.bench.results(self.name).glob("runs/*/run.json"):
            if not (info.parent / "summary.json").exists():
                pid = json.loads(info.read_bytes())["owner"]["pid"]
                if "vendomini" in command_line(pid):
                    found.add(pid)
        return sorted(found)

    def audit(self, kind: str, books: Books) -> None:
        for run, whole in self.reference.items():
            log = self.bench.results(self.name) / "runs" / run / "steps.jsonl"
            data = log.read_bytes() if log.exists() else b""
            data = data[: data.rfind(b"\n") + 1]
            if not whole.startswith(data):
                books.blame(books.duplicated, kind, f"{run} is not what it is undisturbed")
            if (lines := data.count(b"\n")) < self.lines.get(run, 0):
                books.blame(
                    books.lost, kind, f"{run} had {self.lines[run]} steps, has {lines}", self.lines[run] - lines
                )
            self.lines[run] = lines


def command_line(pid: int) -> str:
    """Empty where there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


Fault = Callable[[Jobs, Slurm, random.Random], bool]
"""False if there was nothing to hit."""


def signalled(number: signal.Signals) -> Fault:
    def strike(jobs: Jobs, slurm: Slurm, generator: random.Random) -> bool:
        if pids := jobs.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(generator.choice(pids), number)
                return True
        return False

    return strike


def on_a_task(*command: str) -> Fault:
    def strike(jobs: Jobs, slurm: Slurm, generator: random.Random) -> bool:
        if tasks := [f"{job}_{task}" for job, task, state, _ in slurm.jobs() if state == "RUNNING"]:
            slurm.call(*command, generator.choice(tasks), check=False)
        return bool(tasks)

    return strike


def node_daemon(jobs: Jobs, slurm: Slurm, generator: random.Random) -> bool:
    node = generator.choice(NODES)
    slurm.kill(node)
    time.sleep(generator.uniform(0, 2))
    slurm.start_node(node)
    return True


def controller(jobs: Jobs, slurm: Slurm, generator: random.Random) -> bool:
    slurm.kill("slurmctld")
    time.sleep(generator.uniform(0, 2))
    slurm.start_controller()
    return True


def administer(slurm: Slurm) -> None:
    """What an administrator does after a controller was killed. What it had not saved yet is forgotten, and its nodes,
    which remember, are drained as ones that run jobs twice, and those jobs are held."""
    slurm.hurry()
    nodes = slurm.call("sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %t")
    for node, state in (line.split() for line in nodes.splitlines()):
        if state.startswith(("drain", "drng", "down")):
            slurm.call("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
    for job, reason in (line.split("|") for line in slurm.call("squeue", "-r", "-h", "-o", "%i|%r").splitlines()):
        if "held" in reason.lower():
            slurm.call("scontrol", "release", job, check=False)


def submitted_again(jobs: Jobs, slurm: Slurm, generator: random.Random) -> bool:
    jobs.submit()
    return True


KINDS: dict[str, Fault] = {
    "kill -9 of a job's process": signalled(signal.SIGKILL),
    "SIGTERM to a job's process": signalled(signal.SIGTERM),
    "SIGUSR2 to a job's process": signalled(signal.SIGUSR2),
    "scontrol requeue": on_a_task("scontrol", "requeue"),
    "scancel of a task": on_a_task("scancel"),
    "kill -9 of slurmd": node_daemon,
    "kill -9 of slurmctld": controller,
    "submitted again while it runs": submitted_again,
}


def strike_cluster(folder: Path, books: Books, generator: random.Random, faults: int) -> None:
    """Eight runs in two jobs at a time; a queue that has run empty before all is done is submitted again."""
    if reason := why_not():
        print(f"no faults on a cluster: {reason}")
        return
    with tempfile.TemporaryDirectory(prefix="slurm") as name:
        slurm = Slurm(Path(name))
        slurm.start()
        try:
            folder.mkdir(parents=True)
            _strike(Bench(slurm, folder), slurm, books, generator, faults)
        finally:
            slurm.stop()


def _strike(bench: Bench, slurm: Slurm, books: Books, generator: random.Random, faults: int) -> None:
    deck: list[str] = []
    for number in count():
        jobs = Jobs(bench, f"chaos{number}", number)
        while faults and not jobs.done:
            administer(slurm)
            if not slurm.jobs():
                jobs.submit()
                continue
            end = time.monotonic() + CALM_S
            while not jobs.pids() and not jobs.done and time.monotonic() < end:
                administer(slurm)
                time.sleep(0.1)
            time.sleep(generator.uniform(0, 1.5))
            deck = deck or generator.sample(list(KINDS), len(KINDS))
            kind = deck.pop()
            if KINDS[kind](jobs, slurm, generator):
                books.struck[kind] += 1
                faults -= 1
            else:
                deck.insert(0, kind)
            jobs.audit(kind, books)
        _conclude(jobs, slurm, books)
        if not faults:
            return


def _conclude(jobs: Jobs, slurm: Slurm, books: Books) -> None:
    kind = "finished in peace"
    _wait(slurm)
    while not jobs.done:
        jobs.submit()
        _wait(slurm)
    jobs.audit(kind, books)
    if jobs.bench.logs(jobs.bench.results(jobs.name)) != jobs.reference:
        books.blame(books.lost, kind, f"{jobs.name}: not what it is undisturbed")
    if "Traceback" in (said := jobs.bench.job_logs(jobs.name)):
        books.blame(books.rude, kind, said[said.index("Traceback") - 500 :][:3000])


def _wait(slurm: Slurm) -> None:
    def empty() -> bool:
        administer(slurm)
        return not slurm.jobs()

    slurm.until("the queue is empty", empty, 300)
