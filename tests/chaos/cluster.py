"""Faults on jobs of a real Slurm, whose nodes are simulated: processes, daemons, and other people's commands."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.chaos.experiment import Books, Deck
from tests.cluster.bench import Bench
from tests.cluster.slurm import NODES, Settings, Slurm, why_not
from vendomini.probe.slurm import PASSING

CALM_S, PATIENCE_S = 60.0, 600.0


class Jobs:
    """One submission and its books: the logs so far, and the same runs undisturbed."""

    def __init__(self, bench: Bench, name: str, seed: int, *options: str) -> None:
        self.bench, self.name, self.options = bench, name, options
        grid = {"grid__pe_induction__p_shock": [0.1, 0.3], "experiment__seed": seed, "experiment__replications": 2}
        self.config = bench.config(name, simulation__max_steps=2500, **grid)
        self.reference = bench.undisturbed(self.config)
        self.lines: dict[str, int] = {}

    def submit(self) -> None:
        """Nothing is sent, and a sentence says so, while nodes are away or SLURM does not answer; where the queue is
        full, a part."""
        size = self.options or ("--runs-per-job", "4", "--max-jobs", "4")
        done = subprocess.run(
            self.bench.command("submit", str(self.config), *size), timeout=PATIENCE_S, **self.bench.how()
        )
        said = done.stdout + done.stderr
        refused = done.returncode == 1 and ("submitted" in said or "refused" in said or PASSING.search(said))
        assert done.returncode == 0 or refused, said

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
    deck = Deck(KINDS, books, generator, faults)
    for number in count():
        jobs = Jobs(bench, f"chaos{number}", number)
        while deck.left and not jobs.done:
            administer(slurm)
            if not slurm.jobs():
                jobs.submit()
                continue
            end = time.monotonic() + CALM_S
            while not jobs.pids() and not jobs.done and time.monotonic() < end:
                administer(slurm)
                time.sleep(0.1)
            time.sleep(generator.uniform(0, 1.5))
            kind = deck.draw()
            deck.settle(kind, KINDS[kind](jobs, slurm, generator))
            jobs.audit(kind, books)
        _conclude(jobs, slurm, books)
        if not deck.left:
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


# ------------------------------------------------------------------------------------------------ sites, two at a time


def as_ever(bench: Bench, slurm: Slurm) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def slow_epilog(bench: Bench, slurm: Slurm) -> contextlib.AbstractContextManager[None]:
    return slurm.slow_epilog(3)


def limits(bench: Bench, slurm: Slurm) -> contextlib.AbstractContextManager[None]:
    """Room for two jobs and for one that preempts them: SLURM takes an array as a whole."""
    return slurm.limited(MaxSubmitJobs=3)


@contextlib.contextmanager
def time_outs(bench: Bench, slurm: Slurm) -> Iterator[None]:
    """Of SLURM's commands one in four fails, half of those after it was heard; on the login node and in jobs."""
    path = bench.environ["PATH"]
    stumble = """
if [ $((RANDOM % 4)) = 0 ]; then
  [ $((RANDOM % 2)) = 0 ] && $real "$@" >/dev/null 2>&1
  echo "$(basename $0): error: Socket timed out on send/recv operation" >&2
  exit 1
fi
exec $real "$@"
"""
    for command in ("sbatch", "squeue", "scontrol", "sinfo", "sacct", "scancel"):
        bench.environ |= bench.wrap(command, stumble)
    try:
        yield
    finally:
        bench.environ["PATH"] = path


@contextlib.contextmanager
def another_user(bench: Bench, slurm: Slurm) -> Iterator[None]:
    """Root sees all; the one who works here is somebody else."""
    bench.become("nobody")
    try:
        yield
    finally:
        bench.become(None)


@dataclass(frozen=True)
class Site:
    """One way to run a cluster.

    Attributes:
        options: of submit.
    """

    settings: dict[str, str | int | bool] = field(default_factory=dict)
    around: Callable[[Bench, Slurm], contextlib.AbstractContextManager[None]] = as_ever
    options: tuple[str, ...] = ()


SITES = {
    "accounting off": Site({"accounting": False}),
    "private data": Site({"private_data": "jobs"}, another_user),
    "MaxArraySize 3": Site({"max_array_size": 3}, options=("--runs-per-job", "1")),
    "submit limits": Site(around=limits, options=("--runs-per-job", "8", "--max-jobs", "2")),
    "preemption with notice": Site({"grace_s": 5}, options=("--partition", "grace")),
    "slow epilog": Site(around=slow_epilog),
    "time-outs": Site(around=time_outs),
}

APART = {"accounting off", "submit limits"}
"""Limits are enforced by accounting."""


def strike_sites(folder: Path, books: Books, generator: random.Random, faults: int) -> None:
    """A cluster of its own for each round, set in two of these ways; three faults strike in it."""
    if reason := why_not():
        print(f"no faults on sites: {reason}")
        return
    sites = set(SITES)
    if not _may_run("nobody"):
        print(f'without "private data": its user, nobody, may not run {sys.executable}', file=sys.stderr)
        sites.remove("private data")
    for number in range(faults):
        names = set(APART)
        while names == APART:
            names = set(generator.sample(sorted(sites), 2))
        _site(folder / str(number), sorted(names), number, books, generator)


def _may_run(user: str) -> bool:
    """Whether jobs of this user could start the Python of the tests."""
    group = pwd.getpwnam(user).pw_gid
    try:
        done = subprocess.run([sys.executable, "-c", ""], user=user, group=group, extra_groups=(), check=False)
        return done.returncode == 0
    except PermissionError:
        return False


def _site(folder: Path, names: list[str], number: int, books: Books, generator: random.Random) -> None:
    sites = [SITES[name] for name in names]
    settings = Settings(**{key: value for site in sites for key, value in site.settings.items()})  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="slurm") as name, tempfile.TemporaryDirectory(prefix="site") as place:
        slurm = Slurm(Path(name), settings)
        slurm.start()
        bench = Bench(slurm, Path(place))
        options = [option for site in sites for option in site.options]
        jobs = Jobs(bench, f"site{number}", number, *(options or ("--runs-per-job", "2")))
        try:
            with contextlib.ExitStack() as around:
                for site in sites:
                    around.enter_context(site.around(bench, slurm))
                _strike_site(jobs, slurm, " + ".join(names), books, generator)
                _conclude(jobs, slurm, books)
        finally:
            slurm.stop()


def preempted(jobs: Jobs, slurm: Slurm, generator: random.Random) -> bool:
    slurm.call("sbatch", "--partition=gpu", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    return True


ON_SITES = {name: KINDS[name] for name in ("kill -9 of a job's process", "scontrol requeue", "scancel of a task")} | {
    "preempted": preempted,
    "submitted again while it runs": submitted_again,
}


def _strike_site(jobs: Jobs, slurm: Slurm, kind: str, books: Books, generator: random.Random) -> None:
    for fault in generator.sample(sorted(ON_SITES), 3):
        if jobs.done:
            return
        if not slurm.jobs():
            jobs.submit()
        end = time.monotonic() + CALM_S
        while not jobs.pids() and not jobs.done and time.monotonic() < end:
            administer(slurm)
            time.sleep(0.1)
        ON_SITES[fault](jobs, slurm, generator)
        jobs.submit()
        books.struck[kind] += 1
        jobs.audit(kind, books)
