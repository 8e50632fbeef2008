"""What packing runs by model saves: this planner's jobs beside one job a run, on a simulated cluster.

    python benchmarks/packing.py [--gpus 32] [--load 300] [--time 24:00:00]

Both sides take the hours of a run from the table in docs/engines.md (vLLM) and the same time to load a model, so that
only the packing differs. In favour of one job a run, its batch of one is taken to be as fast as a full one.
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import replace

from vendomini.cluster.offers import Offers
from vendomini.cluster.plan import Group, Limits, Shape, arrays, cut, group_runs
from vendomini.cluster.site import ASSUMED
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.slurm import minutes
from vendomini.config import expand, load_config
from vendomini.records import Shard

PHASES = ("configs/phases/phase1_large_models.yaml", "configs/phases/phase5_large_models.yaml")
SIGNAL_S = 300


def wall_hours(jobs: list[tuple[int, float]], gpus: int) -> float:
    """Until the last job has ended, started in order whenever enough GPUs are free.

    Args:
        jobs: GPUs and seconds of each.
        gpus: of the cluster.
    """
    now, free, running = 0.0, gpus, list[tuple[float, int]]()
    for wanted, seconds in jobs:
        while free < wanted:
            now, released = heapq.heappop(running)
            free += released
        free -= wanted
        heapq.heappush(running, (now + seconds, wanted))
    return max(end for end, _ in running) / 3600


def groups_of(path: str, load_s: float) -> list[Group]:
    """The phase's groups, with this time to load a model."""
    phase = load_config(path)
    sizing = Sizing(phase.config.engine, Offers(lambda _: ASSUMED, live=False), engines=phase.engines)
    groups = group_runs(expand(phase), sizing.shape, sizing.pace)
    return [replace(group, pace=replace(group.pace, load_s=load_s)) for group in groups]


def row(name: str, shards: list[tuple[Shape, Shard]], submissions: int, load_s: float, gpus: int) -> str:
    """One line of the table."""
    loading = sum(shape.gpus * load_s for shape, _ in shards) / 3600
    total = sum(shape.gpus * shard.seconds for shape, shard in shards) / 3600
    wall = wall_hours([(shape.gpus, shard.seconds) for shape, shard in shards], gpus)
    return f"| {name} | {len(shards):,} | {submissions:,} | {loading:,.1f} | {total:,.0f} | {wall:,.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=32, help="of the cluster")
    parser.add_argument("--load", type=float, default=300, help="seconds to load a model")
    parser.add_argument("--time", default="24:00:00", help="limit of a job")
    options = parser.parse_args()
    usable = dict.fromkeys(map(Shape, (0, 1, 2, 4, 8)), (minutes(options.time) or 1440) * 60.0 - SIGNAL_S)
    for path in PHASES:
        groups = groups_of(path, options.load)
        packed, single = (cut(groups, Limits(usable, runs_per_job=n)) for n in (None, 1))
        runs = sum(len(group.items) for group in groups)
        print(
            f"\n{path}: {runs} runs, {len(groups)} models, {options.gpus} GPUs, {options.load:.0f} s to load a model\n"
        )
        print("| | jobs = model loads | sbatch calls | GPU-hours loading | GPU-hours in all | hours to the end |")
        print("|---|---|---|---|---|---|")
        print(row("packed by model", packed, len(arrays(packed, 1001)), options.load, options.gpus))
        print(row("one job a run", single, len(single), options.load, options.gpus))


if __name__ == "__main__":
    main()
