"""How fast, and in how much memory, step logs become tables: ``python benchmarks/aggregate.py --runs 1000``.

Makes runs of real records (the simulation's own, repeated under other ids), reads them with each number of workers,
then once more with everything read already, and prints steps a second and the largest process.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from vendomini.analysis.tables import aggregate
from vendomini.records import Results, RunSummary, read_record, write_record


def copies(source: Path, target: Path, runs: int) -> int:
    """Fills ``target`` with ``runs`` runs, copied in turn from the finished ones of ``source``; bytes of step logs."""
    finished = [run_id for run_id in Results(source).run_ids() if Results(source).summary(run_id)]
    results, size = Results(target), 0
    results.create()
    for number in range(runs):
        origin = Results(source).run(finished[number % len(finished)])
        paths = results.run(f"copy-{number:06d}")
        paths.folder.mkdir()
        shutil.copyfile(origin.steps, paths.steps)
        summary = read_record(origin.summary, RunSummary)
        write_record(paths.summary, msgspec.structs.replace(summary, run_id=paths.folder.name))
        size += paths.steps.stat().st_size
    return size


def measure(results: Path, out: Path, workers: int) -> tuple[float, float, float, int]:
    """(seconds, CPU seconds, MiB of the largest process, steps) of one aggregation in a process of its own."""
    command = [sys.executable, __file__, "--child", str(results), str(out), str(workers)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    seconds, cpu, mebibytes, steps = printed
    return float(seconds), float(cpu), float(mebibytes), int(steps)


def child(results: str, out: str, workers: str) -> None:
    begun = time.perf_counter()
    tables = aggregate([Path(results)], Path(out), workers=int(workers))
    seconds = time.perf_counter() - begun
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    peak = max(usage.ru_maxrss for usage in usages)
    print(seconds, cpu, peak / 1024, int(tables.runs()["steps"].sum()))


def floor(results: Path) -> float:
    """CPU seconds to only read and decode every log: what no aggregation can go below."""
    from vendomini.records import read_steps

    begun = time.process_time()
    for run_id in Results(results).run_ids():
        for _ in read_steps(Results(results).run(run_id).steps):
            pass
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="results folder with finished runs to copy")
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results, out = Path(folder, "results"), Path(folder, "out")
        size = copies(options.source, results, options.runs)
        print(f"{options.runs} runs, {size / 2**20:.0f} MiB of step logs")
        least = floor(results)
        print(f"reading and decoding alone: {least:.1f} CPU s")
        for workers in (1, 2):
            seconds, cpu, peak, steps = measure(results, out / str(workers), workers)
            print(f"{workers} workers: {seconds:.1f} s, {steps / seconds:,.0f} steps/s; {cpu:.1f} CPU s "
                  f"({cpu / least:.2f} × reading alone); {peak:.0f} MiB in the largest process")  # fmt: skip
        seconds, cpu, peak, _ = measure(results, out / "2", 2)
        print(f"again, nothing new: {cpu:.1f} CPU s, {peak:.0f} MiB")
        tables = sum(path.stat().st_size for path in (out / "2").rglob("*") if path.is_file())
        print(f"tables: {tables / 2**20:.0f} MiB")


if __name__ == "__main__":
    child(*sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main()
