"""Does the cost of a run stay the same from a thousand runs to a million? Time and memory of each command, by size.

    python benchmarks/scale.py plan                    # expanding and cutting into jobs, up to a million runs
    python benchmarks/scale.py commands --sizes 1000 10000 100000
    python benchmarks/scale.py jobs                    # what a submission's jobs read to find their runs
    python benchmarks/scale.py flight                  # 16 and 512 episodes at once in one process
    python benchmarks/scale.py long                    # memory of 5,000-step episodes, several at once
    python benchmarks/scale.py tables                  # step logs into tables, by number of workers
    python benchmarks/scale.py bytes                   # of a logged step, and what compressing would save

Runs are real ones, made by the runner with scripted agents. Each measurement is a process of its own; times are CPU
seconds, its children included, since a busy machine stretches the others. Growth is cost per run at the largest size
over cost per run at the smallest whose cost stands out from that of nothing: 1 where a cost grows with the work.
"""

from __future__ import annotations

import argparse
import asyncio
import bz2
import gc
import hashlib
import itertools
import json
import lzma
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from vendomini.analysis.tables.aggregate import aggregate
from vendomini.cluster.job import _assigned, _runs
from vendomini.cluster.offers import Offers
from vendomini.cluster.plan import Limits, Shape, cut, group_runs
from vendomini.cluster.site import ASSUMED
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.submit import Request, prepare
from vendomini.cluster.tasks import encoded, root, task_file, write_tasks
from vendomini.config import Phase, expand, load_config
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import Completion, Engine, SamplingParams
from vendomini.engines.base import Prompt
from vendomini.engines.resolve import start_engine
from vendomini.engines.scripted import ScriptedEngine
from vendomini.records import Results, read_steps, write_record
from vendomini.runner import Progress, Runner, save_plan
from vendomini.runner.run import StartEngine

CONFIG = "configs/demo.yaml"
CELLS = 10
CLUSTER = {
    "commands": ["sbatch"], "version": "22.05", "max_array_size": 1001,
    "partitions": [{"name": "gpu", "default": True, "time_limit": "2-00:00:00", "nodes": 1000, "gres": "gpu:h100:8",
                    "state": "up"}],
}  # fmt: skip
"""As ``vendomini doctor --json`` describes one, for ``submit --dry-run --describe``."""


class OneByOne(ScriptedEngine):
    """A scripted agent that lets all other episodes answer first, as a model's batch does: all are in flight."""

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        await asyncio.sleep(0)
        return await super().generate(prompt, params)


async def one_by_one(model: Model, _: EngineConfig) -> Engine:
    return OneByOne(model.name)


def overrides(runs: int, steps: int) -> list[str]:
    """Of the demo's config: so many short runs in ten cells."""
    replications = max(runs // CELLS, 1)
    doses = "grid.pe_induction.p_shock=[0.0, 0.05, 0.1, 0.4, 0.8]"
    return [f"experiment.replications={replications}", f"simulation.max_steps={steps}", doses]


def make_runs(folder: Path, runs: int, steps: int, width: int = 16, start: StartEngine = start_engine) -> int:
    """Real finished runs; returns how many steps they took."""
    phase = load_config(CONFIG, overrides(runs, steps))
    save_plan(phase, Results(folder))
    return do(phase, Results(folder), width, start)


def do(phase: Phase, results: Results, width: int, start: StartEngine) -> int:
    runner = Runner(results, EngineConfig(max_num_seqs=width), Progress(), start=start)
    asyncio.run(runner.run_all(list(expand(phase))))
    return runner.counters.steps


# ------------------------------------------------------------------------------------- one measurement


def apart(*command: str) -> tuple[float, float]:
    """CPU seconds and MiB at most, of a process and of the children that it waited for; the least of three if short."""
    measured = [_apart(*command)]
    while measured[0][0] < 3 and len(measured) < 3:
        measured.append(_apart(*command))
    return min(measured)


def _apart(*command: str) -> tuple[float, float]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(said.decode())
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def here(*arguments: object) -> tuple[str, ...]:
    """A function of this file, in a process of its own."""
    return (sys.executable, __file__, "--child", *map(str, arguments))


def table(name: str, sizes: Sequence[int], measured: Sequence[tuple[float, float]], idle: tuple[float, float]) -> None:
    """A row: CPU seconds and MiB at each size, and how the cost of one run grows.

    Args:
        idle: of the same command with nothing to do, which is not the runs' cost.
    """
    cells = " | ".join(f"{cpu:.2f} s, {mebibytes:.0f} MiB" for cpu, mebibytes in measured)
    each = [(cpu - idle[0]) / size for size, (cpu, _) in zip(sizes, measured, strict=True)]
    base = next((cost for cost, (cpu, _) in zip(each, measured, strict=True) if cpu > 1.2 * idle[0]), each[-1])
    growth = f"{each[-1] / base:.2f}"
    print(f"| {name} | {idle[0]:.2f} s, {idle[1]:.0f} MiB | {cells} | {each[-1] * 1e6:.1f} µs | {growth} |", flush=True)


def head(sizes: Sequence[int]) -> None:
    print("| | nothing | " + " | ".join(f"{size:,} runs" for size in sizes) + " | a run, at most | growth |")
    print("|---|---|" + "---|" * (len(sizes) + 2))


# --------------------------------------------------------------------------------------------- blocks


def plan(sizes: Sequence[int]) -> None:
    sizes = sizes or (1000, 10_000, 100_000, 1_000_000)
    head(sizes)
    for name, axes in (("expand and plan, 10 cells", 1), ("expand and plan, a cell a run", 0)):
        idle = apart(*here("plan", 1, axes))
        table(name, sizes, [apart(*here("plan", size, axes)) for size in sizes], idle)


def child_plan(runs: str, few_cells: str) -> None:
    size = int(runs)
    chosen = overrides(size, 500)
    if few_cells == "0":
        horizons = min(size // CELLS, 1000)
        chosen = [
            *overrides(1, 500),
            f"grid.simulation.max_steps={list(range(100, 100 + max(horizons, 1)))}",
            f"grid.agent.model.temperature={[n / 100 for n in range(max(size // CELLS // max(horizons, 1), 1))]}",
        ]
    phase = load_config(CONFIG, chosen)
    sizing = Sizing(phase.config.engine, Offers(lambda _: ASSUMED, live=False), engines=phase.engines)
    groups = group_runs(expand(phase), sizing.shape, sizing.pace)
    assert sum(len(shard.run_ids) for _, shard in cut(groups, Limits({Shape(0): 86_100.0}))) == max(size, CELLS)


def commands(sizes: Sequence[int], keep: Path | None) -> None:
    """What a user types, over folders in which all runs have ended, and over one in which none has begun."""
    sizes = sizes or (1000, 10_000)
    vendomini = (sys.executable, "-m", "vendomini")
    with tempfile.TemporaryDirectory() as scratch:
        root = keep or Path(scratch)
        described = Path(scratch, "cluster.json")
        described.write_text(json.dumps({"capabilities": {"slurm": CLUSTER}}))
        for size in (CELLS, *sizes):
            if not (root / str(size)).is_dir():
                make_runs(root / str(size), size, 4)

        def submit(size: int, folder: Path) -> tuple[str, ...]:
            chosen = [part for text in overrides(size, 4) for part in ("-o", text)]
            dry = ("submit", CONFIG, "--dry-run", "--describe", str(described), *chosen)
            return (*vendomini, *dry, "-r", str(folder))

        def report(size: int, out: str) -> tuple[str, ...]:
            return (*vendomini, "report", str(root / str(size)), "--no-figures", "--out", f"{scratch}/{size}{out}")

        rows: dict[str, Callable[[int], tuple[str, ...]]] = {
            "submit --dry-run, none begun": lambda n: submit(n, Path(scratch, "none")),
            "submit --dry-run, all ended": lambda n: submit(n, root / str(n)),
            "status": lambda n: (*vendomini, "status", "-r", str(root / str(n))),
            "report, first time": lambda n: report(n, ""),
            "report, nothing new": lambda n: report(n, ""),
        }
        head(sizes)
        for name, command in rows.items():
            measure = _apart if "first" in name else apart  # a second time would find it done
            idle = measure(*command(CELLS))
            table(name, sizes, [measure(*command(size)) for size in sizes], idle)


def flight(steps: int = 60) -> None:
    print("| in flight | steps/s of a CPU | MiB | open files at most |\n|---|---|---|---|")
    rates = []
    for width in (16, 512):
        with tempfile.TemporaryDirectory() as folder:
            run = subprocess.run(here("flight", folder, width, 1024, steps), capture_output=True, text=True, check=True)
        rate, mebibytes, files = map(float, run.stdout.split())
        rates.append(rate)
        print(f"| {width} | {rate:,.0f} | {mebibytes:.0f} | {files:.0f} |", flush=True)
    print(f"\n512 over 16: {rates[1] / rates[0]:.2f}")


def child_flight(folder: str, width: str, runs: str, steps: str) -> None:
    most = 0

    class Counted(OneByOne):
        async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
            nonlocal most
            if params.seed is not None and params.seed % 64 == 0:
                most = max(most, len(os.listdir("/dev/fd")))
            return await super().generate(prompt, params)

    async def start(model: Model, _: EngineConfig) -> Engine:
        return Counted(model.name)

    begun = time.process_time()
    done = make_runs(Path(folder), int(runs), int(steps), int(width), start)
    rate = done / (time.process_time() - begun)
    print(rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, most)


def long(episodes: int = 8) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(here("long", folder, episodes), check=True)


def child_long(folder: str, episodes: str) -> None:
    """Resident memory each 500 steps, all episodes at the same step."""
    count, seen = int(episodes), [0]
    print("| step | MiB | steps/s of a CPU since the row before |\n|---|---|---|")
    began = time.process_time()

    class Watched(OneByOne):
        async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
            nonlocal began
            seen[0] += 1
            if seen[0] % (500 * count) == 0:
                gc.collect()
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                rate = 500 * count / (time.process_time() - began)
                print(
                    f"| {seen[0] // count} | {pages * os.sysconf('SC_PAGESIZE') / 2**20:.1f} | {rate:,.0f} |",
                    flush=True,
                )
                began = time.process_time()
            return await super().generate(prompt, params)

    async def start(_: Model, __: EngineConfig) -> Engine:
        return Watched("scripted/oracle")

    chosen = ["agent.model.name=scripted/oracle", "simulation.max_steps=5000", f"experiment.replications={count}"]
    do(load_config("configs/base.yaml", chosen), Results(Path(folder)), count, start)


def tables(runs: int = 100, steps: int = 1000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results")
        done = make_runs(results, runs, steps)
        begun = time.process_time()
        for run_id in Results(results).run_ids():
            for _ in read_steps(Results(results).run(run_id).steps):
                pass
        least = time.process_time() - begun
        print(f"{done:,} steps; reading and decoding alone: {least:.1f} CPU s")
        for workers in (1, 2):
            out = Path(folder, f"out{workers}")
            cpu, mebibytes = apart(*here("tables", results, out, workers))
            again, _ = apart(*here("tables", results, out, workers))
            print(f"{workers} workers: {cpu:.1f} CPU s ({cpu / least:.2f} × reading alone), {mebibytes:.0f} MiB in the "
                  f"largest process; again, nothing new: {again:.1f} CPU s")  # fmt: skip


def child_tables(results: str, out: str, workers: str) -> None:
    aggregate([Path(results)], Path(out), workers=int(workers))


def jobs(sizes: Sequence[int]) -> None:
    """What all jobs of a submission read to find their runs: each its own file, and as it was, each the manifest."""
    print("| runs | jobs | its own file, each | all jobs | CPU, each | the manifest, each | all jobs | CPU, each |")
    print("|---|---|---|---|---|---|---|---|")
    for size in sizes or (99_660, 1_000_000):
        phase = load_config("configs/phases/phase2_large_models.yaml", [f"experiment.replications={size // 604}"])
        offers = Offers(lambda _: ASSUMED, live=False)
        with tempfile.TemporaryDirectory() as folder:
            here = Results(Path(folder))
            sizing = Sizing(phase.config.engine, offers)
            sent = prepare(phase, list(expand(phase)), here, Request(runs_per_job=64), offers, sizing)
            write_tasks(here, sent.manifest)
            write_record(sent.manifest_file, sent.manifest)
            places = [(a, i) for a, one in enumerate(sent.manifest.arrays) for i in range(len(one.shards))]
            own = sum(task_file(here, sent.manifest.id, *place).stat().st_size for place in places)
            whole = sent.manifest_file.stat().st_size
            a, i = places[-1]
            digests = root(encoded(sent.manifest, a)), hashlib.sha256(sent.manifest_file.read_bytes()).hexdigest()
            costs = []
            for file, digest in zip((sent.manifest_file.parent, sent.manifest_file), digests, strict=True):
                begun = time.process_time()
                _, job = _assigned(file, digest, a, i)
                if file == sent.manifest_file:
                    job = msgspec.structs.replace(job, shard=msgspec.structs.replace(job.shard, numbers=[]))
                assert [spec.run_id for spec in _runs(job)[1]] == job.shard.run_ids
                costs.append(time.process_time() - begun)
        count = len(places)
        print(
            f"| {sent.runs:,} | {count:,} | {own / count / 1e3:.1f} kB | {own / 1e9:.3f} GB | {costs[0]:.3f} s"
            f" | {whole / 1e6:.1f} MB | {whole * count / 1e9:.1f} GB | {costs[1]:.2f} s |",
            flush=True,
        )


def bytes_() -> None:
    with tempfile.TemporaryDirectory() as folder:
        steps = make_runs(Path(folder), 10, 1000)
        logs = [Results(Path(folder)).run(run_id).steps for run_id in Results(Path(folder)).run_ids()]
        texts = [log.read_bytes() for log in logs]
        size = sum(map(len, texts))
        begun = time.process_time()
        for log in logs:
            for _ in read_steps(log):
                pass
        decode = (time.process_time() - begun) / steps * 1e6
        print(f"{steps:,} steps, {size / steps:,.0f} bytes each; read, checked and decoded in {decode:.1f} µs each\n")
        print("| | bytes a step | ratio | write, µs a step | read, µs a step |\n|---|---|---|---|---|")
        for name, pack, unpack in (
            ("zlib 1", lambda text: zlib.compress(text, 1), zlib.decompress),
            ("zlib 6", lambda text: zlib.compress(text, 6), zlib.decompress),
            ("bz2", bz2.compress, bz2.decompress),
            ("lzma 0", lambda text: lzma.compress(text, preset=0), lzma.decompress),
        ):
            moments = [time.process_time()]
            packed = [pack(text) for text in texts]
            moments.append(time.process_time())
            assert [unpack(text) for text in packed] == texts
            moments.append(time.process_time())
            write, read = ((b - a) / steps * 1e6 for a, b in itertools.pairwise(moments))
            small = sum(map(len, packed))
            print(f"| {name} | {small / steps:,.0f} | {size / small:.1f} | {write:.1f} | {read:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plan", "commands", "jobs", "flight", "long", "tables", "bytes"])
    parser.add_argument("--sizes", type=int, nargs="+", default=())
    parser.add_argument("--keep", type=Path, help="folder in which the runs of `commands` are made and left")
    options = parser.parse_args()
    blocks: dict[str, Callable[[], None]] = {
        "plan": lambda: plan(options.sizes), "commands": lambda: commands(options.sizes, options.keep),
        "jobs": lambda: jobs(options.sizes),
        "flight": flight, "long": long, "tables": tables, "bytes": bytes_,
    }  # fmt: skip
    blocks[options.what]()


CHILDREN = {"plan": child_plan, "flight": child_flight, "long": child_long, "tables": child_tables}

if __name__ == "__main__":
    CHILDREN[sys.argv[2]](*sys.argv[3:]) if sys.argv[1:2] == ["--child"] else main()
