"""Speed of the loop without a model: prompt, parse, world, measures, log on disk, with the scripted engine.

    python benchmarks/loop.py

prints steps per second on one core for 500-step and 5,000-step episodes, in turns so that both meet the same machine,
and the ratio of the two: it is 1 where a step costs the same however long the episode.

    python benchmarks/loop.py --profile

prints instead which rooms of the package a step's processor time is spent in, sampled by a timer.

    PYTHONHASHSEED=0 valgrind --tool=callgrind python benchmarks/loop.py --once 460

counts instructions, which no other work on the machine changes: those of 460 steps less those of 60, over 400.

    python benchmarks/loop.py --against ../another-checkout

compares the processor time of a step with another commit's: a process for each checkout, episodes in turns, and so 20
times, since the same code differs by 6 % from one pair of processes to the next.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import vendomini
from vendomini.config import expand, load_config
from vendomini.config.schema import EngineConfig
from vendomini.records import Results
from vendomini.runner import Progress, Runner


def steps_per_second(control: str, max_steps: int, episodes: int, p_shock: float) -> float:
    """Of ``episodes`` whole runs, one after another, set-up of the process not counted."""
    overrides = [
        f"agent.model.name=scripted/{control}",
        f"simulation.max_steps={max_steps}",
        f"pe_induction.p_shock={p_shock}",
        f"experiment.replications={episodes}",
    ]
    specs = list(expand(load_config("configs/base.yaml", overrides)))
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Results(Path(folder)), EngineConfig(), Progress())
        began = time.perf_counter()
        asyncio.run(runner.run_all(specs))
        return runner.counters.steps / (time.perf_counter() - began)


def profile(control: str, p_shock: float) -> None:
    """Prints the share of each room: that of the innermost frame of the package, with the libraries that it calls."""
    rooms: Counter[str] = Counter()
    package = Path(vendomini.__file__).parent

    def sample(_: int, frame: FrameType | None) -> None:
        while frame and not frame.f_code.co_filename.startswith(f"{package}/"):
            frame = frame.f_back
        rooms["/".join(Path(frame.f_code.co_filename).relative_to(package).parts[:-1]) if frame else "outside"] += 1

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    steps_per_second(control, 5000, 10, p_shock)
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(f"scripted/{control}, p_shock {p_shock:g}, {rooms.total():,} samples")
    for room, count in rooms.most_common():
        print(f"  {room:22} {count / rooms.total():5.1%}")


_EPISODES = 10
"""That either process of a pair does, after one that doesn't count."""

_SERVE = """
import sys, time
sys.path[:0] = ["", "benchmarks"]
import loop
loop.time.perf_counter = time.process_time
for line in sys.stdin:
    control, steps, p_shock = line.split()
    print(1 / loop.steps_per_second(control, int(steps), 1, float(p_shock)), flush=True)
"""


class _Checkout:
    """A process that runs episodes of the code in a folder when it is asked."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, control: str, steps: int, p_shock: float) -> float:
        """Processor time of a step."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(control, steps, p_shock, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def against(other: Path, control: str, p_shock: float, pairs: int) -> None:
    """Prints the ratio of a step's processor time here to that of another checkout."""
    ratios, costs = [], []
    for seed in range(pairs):
        here, there = _Checkout(Path(__file__).resolve().parents[1], seed), _Checkout(other.resolve(), seed)
        times = [[one.seconds(control, 500, p_shock) for one in (here, there)] for _ in range(1 + _EPISODES)][1:]
        ratios.append(statistics.median(a / b for a, b in times))
        costs.append([statistics.median(side) for side in zip(*times, strict=True)])
        here.close()
        there.close()
    ratios.sort()
    ours, theirs = (statistics.median(side) * 1e6 for side in zip(*costs, strict=True))
    error = statistics.stdev(ratios) / pairs**0.5
    print(f"scripted/{control}, p_shock {p_shock:g}, {pairs} pairs of processes: {ours:.0f} and {theirs:.0f} us a step")
    print(f"  ratio {statistics.mean(ratios):.3f} +- {error:.3f}, median {statistics.median(ratios):.3f},", end=" ")
    print(f"from {ratios[0]:.2f} to {ratios[-1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", default="oracle")
    parser.add_argument("--p-shock", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--pairs", type=int, default=20, help="of processes, for --against")
    parser.add_argument("--once", type=int, metavar="STEPS", help="one episode after a short one, for counting")
    arguments = parser.parse_args()
    if arguments.against:
        against(arguments.against, arguments.control, arguments.p_shock, arguments.pairs)
        return
    if arguments.once:
        for steps in (60, arguments.once):  # the first time costs more
            steps_per_second(arguments.control, steps, 1, arguments.p_shock)
        return
    steps_per_second(arguments.control, 500, 2, arguments.p_shock)  # warm
    if arguments.profile:
        profile(arguments.control, arguments.p_shock)
        return
    short, long = [], []
    for _ in range(arguments.rounds):
        short.append(steps_per_second(arguments.control, 500, 10, arguments.p_shock))
        long.append(steps_per_second(arguments.control, 5000, 1, arguments.p_shock))
    ratio = statistics.median(b / a for a, b in zip(short, long, strict=True))
    print(f"scripted/{arguments.control}, p_shock {arguments.p_shock:g}, median of {arguments.rounds} rounds")
    print(f"  500-step episodes   {statistics.median(short):10,.0f} steps/s")
    print(f"  5,000-step episodes {statistics.median(long):10,.0f} steps/s")
    print(f"  ratio               {ratio:10.2f}")


if __name__ == "__main__":
    main()
