"""Speed of the loop without a model: prompt, parse, world, measures, log on disk, with the scripted engine.

    python benchmarks/loop.py

prints steps per second on one core for 500-step and 5,000-step episodes, in turns so that both meet the same machine,
and the ratio of the two: it is 1 where a step costs the same however long the episode.

    python benchmarks/loop.py --profile

prints instead which rooms of the package a step's processor time is spent in, sampled by a timer.

    PYTHONHASHSEED=0 valgrind --tool=callgrind python benchmarks/loop.py --once 460

counts instructions, which no other work on the machine changes: those of 460 steps less those of 60, over 400.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", default="oracle")
    parser.add_argument("--p-shock", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--once", type=int, metavar="STEPS", help="one episode after a short one, for counting")
    arguments = parser.parse_args()
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
