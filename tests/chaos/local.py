"""Faults on one machine: signals, disks, damage, clocks, rivals, engines that hang."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count, repeat
from pathlib import Path

from tests import http_server
from tests.chaos.experiment import Books, Experiment, Fault, campaign, phase
from vendomini.analysis.tables.aggregate import aggregate
from vendomini.analysis.traces.episodes import Library
from vendomini.errors import CorruptRecordError

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)

# ------------------------------------------------------------------------------------------------- processes


def killed(experiment: Experiment, generator: random.Random, kind: str) -> bool:
    process = experiment.start()
    experiment.wait_for(process, experiment.moment(generator))
    process.kill()
    experiment.end(process, kind, -signal.SIGKILL, 0)
    return process.returncode != 0


def signalled(number: signal.Signals) -> Fault:
    def strike(experiment: Experiment, generator: random.Random, kind: str) -> bool:
        process = experiment.start()
        experiment.wait_for(
            process, 1 + experiment.moment(generator)
        )  # before the first step Python's own handlers may act
        process.send_signal(number)
        said = experiment.end(process, kind, 130, 0)
        if process.returncode == 130 and "the same command goes on from there" not in said:
            experiment.books.blame(experiment.books.rude, kind, f"did not say how to go on\n{said}")
        return process.returncode != 0

    return strike


def impatient(experiment: Experiment, generator: random.Random, kind: str) -> bool:
    process = experiment.start()
    experiment.wait_for(process, 1 + experiment.moment(generator))
    for number in generator.choices([signal.SIGINT, signal.SIGTERM, signal.SIGUSR2], k=3):
        if process.poll() is None:
            process.send_signal(number)
            time.sleep(generator.uniform(0, 0.02))
    experiment.end(process, kind, 130, 0, -signal.SIGINT, -signal.SIGTERM, -signal.SIGUSR2)
    return process.returncode != 0


def rivals(experiment: Experiment, generator: random.Random, kind: str) -> bool:
    """Two runners on the same results; one is killed, the other told to stop."""
    first, second = experiment.start(), experiment.start()
    experiment.wait_for(first, experiment.moment(generator))
    first.kill()
    experiment.wait_for(second, experiment.moment(generator))
    second.terminate()
    experiment.end(first, kind, -signal.SIGKILL, 0, 1)
    experiment.end(second, kind, 130, 0, 1)
    return first.returncode != 0


# ----------------------------------------------------------------------------------------------------- disks


@contextmanager
def small_disk(results: Path) -> Iterator[None]:
    """Results on a file system of their own, which is full or read-only when a fault wants it to be."""
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "none", str(results)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(results)], check=True)


def can_mount(folder: Path) -> bool:
    folder.mkdir()
    try:
        with small_disk(folder / "disk"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _remount(experiment: Experiment, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(experiment.results)], check=True)


def full(experiment: Experiment, generator: random.Random, kind: str) -> bool:
    if experiment.finished:
        return False
    used = shutil.disk_usage(experiment.results).used
    _remount(experiment, f"size={used + generator.randrange(1, 300_000)}")
    said = experiment.end(experiment.start(), kind, 1, 0)
    if "no space left" not in said and not experiment.finished:
        experiment.books.blame(experiment.books.rude, kind, f"did not say that the disk is full\n{said}")
    _remount(experiment, "size=1g")
    return "no space left" in said


def read_only(experiment: Experiment, generator: random.Random, kind: str) -> bool:
    if experiment.finished:
        return False
    process = experiment.start()
    experiment.wait_for(process, experiment.moment(generator))
    process.kill()
    experiment.end(process, kind, -signal.SIGKILL, 0)
    if experiment.finished:
        return False
    _remount(experiment, "ro")
    said = experiment.end(experiment.start(), kind, 1)
    if "Read-only file system" not in said:
        experiment.books.blame(experiment.books.rude, kind, f"did not say so\n{said}")
    _remount(experiment, "rw")
    return True


# ---------------------------------------------------------------------------------------------------- damage


def truncated(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data))]


def flipped(data: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :]


def damaged(harm: Callable[[bytes, random.Random], bytes]) -> Fault:
    def strike(experiment: Experiment, generator: random.Random, kind: str) -> bool:
        process = experiment.start()
        experiment.wait_for(process, experiment.moment(generator))
        process.kill()
        experiment.end(process, kind, -signal.SIGKILL, 0)
        experiment.audit(kind)
        files = [file for file in experiment.results.glob("runs/*/*.json*") if file.stat().st_size]
        if not files:
            return False
        file = generator.choice(sorted(files))
        run, before = file.parent.name, file.read_bytes()
        file.write_bytes(harm(before, generator))
        experiment.spoilt.add(run)
        said = _notice(experiment, kind, run)
        mended = file.name == "steps.jsonl" and file.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
        if run not in said and not mended:
            experiment.books.blame(experiment.books.unnamed, kind, f"{file}\n{said}")
        experiment.forget(run)
        return True

    return strike


def _notice(experiment: Experiment, kind: str, run: str) -> str:
    """What the next start says of the damage; of a run that has ended, which no start reads again, what those say that
    do: the tables and the reader."""
    if not experiment.summary(run).exists():
        return experiment.end(experiment.start(), kind, 1, 0)
    out = experiment.folder / "tables"
    table = aggregate([experiment.results], out, workers=1).runs()
    shutil.rmtree(out)
    try:
        read = Library([experiment.results]).episode(0, run)["damage"]
    except CorruptRecordError as exc:
        read = str(exc)
    return " ".join([*table.run_id[table.status == "damaged"], read])


# ---------------------------------------------------------------------------------------------------- clocks


def clock(experiment: Experiment, generator: random.Random, kind: str) -> bool:
    """The time of day jumps by up to a year, forward and back, while a runner is at work."""
    now = experiment.folder / "clock"
    now.write_text("+0")
    fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(now), "FAKETIME_NO_CACHE": "1"}
    process = experiment.start(**fake, DONT_FAKE_MONOTONIC="1")
    for _ in range(3):
        experiment.wait_for(process, experiment.moment(generator))
        now.write_text(f"{generator.randrange(-365, 365):+d}d")
    process.terminate()
    experiment.end(process, kind, 130, 0)
    return process.returncode != 0


# --------------------------------------------------------------------------------------------------- engines


class Handler(http_server.Handler):
    server: Server

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "served", "max_model_len": 100_000}]})

    def do_POST(self) -> None:
        self.asked()
        while self.server.mood == "hang":
            time.sleep(0.01)
        if self.server.mood == "answer":
            message = {"content": '{"thought": "", "tool": "tool_end_day", "arguments": {}}'}
            self.reply(200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {}})


class Server(http_server.Server):
    """Speaks OpenAI's API, always gives the same answer, and hangs or breaks off when told to.

    Attributes:
        mood: answer, hang, or break.
    """

    handler = Handler
    mood = "answer"


def hung(server: Server) -> Fault:
    """The engine stops answering: it comes back in time, or its user loses patience, one way or another."""

    def strike(experiment: Experiment, generator: random.Random, kind: str) -> bool:
        process = experiment.start()
        experiment.wait_for(process, experiment.moment(generator))
        server.mood = generator.choice(["hang", "break"])
        time.sleep(generator.uniform(0.1, 0.6))
        match generator.randrange(3):
            case 0:
                process.kill()
            case 1:
                process.send_signal(signal.SIGINT)
                time.sleep(0.1)
                process.send_signal(signal.SIGINT)
            case _:
                server.mood = "answer"
                experiment.wait_for(process, experiment.moment(generator))
                process.terminate()
        experiment.end(process, kind, 130, 0, -signal.SIGINT, -signal.SIGKILL)
        server.mood = "answer"
        return process.returncode != 0

    return strike


# --------------------------------------------------------------------------------------------------- the decks


def strike_scripted(folder: Path, books: Books, generator: random.Random, faults: int) -> None:
    """Eight runs of 1,500 steps at a time, on controls."""
    kinds: dict[str, Fault] = {
        "kill -9 of the runner": killed,
        **{number.name: signalled(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)},
        "three signals at once": impatient,
        "two runners at once": rivals,
        "a file truncated at a random byte": damaged(truncated),
        "a flipped bit": damaged(flipped),
    }
    folder.mkdir(parents=True)
    if disks := can_mount(folder / "try"):
        kinds |= {"disk full": full, "results turn read-only": read_only}
    if FAKETIME:
        kinds["the clock jumps"] = clock
    grid = {"agent.model.name": ["scripted/reactive", "scripted/fragile"], "pe_induction.p_shock": [0.0, 0.3]}
    phases = (
        phase(grid, experiment={"name": "chaos", "replications": 2, "seed": seed}, simulation={"max_steps": 1500})
        for seed in count()
    )
    around = small_disk if disks else nullcontext
    campaign(folder, phases, kinds, books, generator, faults, around=around)


def strike_served(folder: Path, books: Books, generator: random.Random, faults: int) -> None:
    """Four runs of 120 steps at a time, on a server that may hang."""
    with Server() as server:
        config = phase(
            {"pe_induction.p_shock": [0.0, 0.3]},
            experiment={"name": "served", "replications": 2},
            agent={"model": {"name": "served", "max_tokens": 64}},
            engine={"backend": "openai", "base_url": f"{server.url}/v1", "request_timeout": 1},
            simulation={"max_steps": 120},
        )
        volatile = frozenset({"latency_s"})
        campaign(folder, repeat(config), {"the engine hangs": hung(server)}, books, generator, faults, volatile)
