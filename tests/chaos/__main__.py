"""A campaign, and its table as Markdown."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.chaos import cluster, local, models
from tests.chaos.experiment import Books

CAMPAIGNS: dict[str, tuple[Callable[[Path, Books, random.Random, int], None], int]] = {
    "vllm": (models.strike_vllm, 3),
    "cluster": (cluster.strike_cluster, 16),
    "sites": (cluster.strike_sites, 7),
    "scripted": (local.strike_scripted, 165),
    "transformers": (models.strike_transformers, 6),
    "served": (local.strike_served, 20),
}
"""Each with how many faults strike in it; those that take longest first."""

AT_ONCE = 2
"""Campaigns: most of their time is waiting for what was struck."""


def strike(name: str, folder: Path, seed: int, faults: int) -> Books:
    """One campaign, in a process of its own."""
    books, began = Books(), time.monotonic()
    CAMPAIGNS[name][0](folder / name, books, random.Random(seed), faults)
    print(f"{name}: {books.struck.total()} faults in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return books


def table(books: Books) -> str:
    columns = {
        "times": books.struck,
        "steps lost": books.lost,
        "steps twice": books.duplicated,
        "damage not named": books.unnamed,
        "tracebacks, wrong exit codes": books.rude,
    }
    rows = [f"| fault | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    kinds = dict.fromkeys(kind for column in columns.values() for kind in column)
    rows += [f"| {kind} | {' | '.join(str(column[kind]) for column in columns.values())} |" for kind in kinds]
    rows.append(f"| **all** | {' | '.join(f'**{column.total()}**' for column in columns.values())} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    for name, (_, faults) in CAMPAIGNS.items():
        parser.add_argument(f"--{name}", type=int, default=faults, metavar="FAULTS")
    arguments = parser.parse_args()
    wanted = {name: faults for name in CAMPAIGNS if (faults := getattr(arguments, name))}
    with tempfile.TemporaryDirectory(prefix="chaos") as folder, ProcessPoolExecutor(AT_ONCE) as pool:
        done = [pool.submit(strike, name, Path(folder), arguments.seed, faults) for name, faults in wanted.items()]
        books = sum((each.result() for each in done), Books())
    print(table(books))
    if books.details:
        sys.exit("\n\n".join(books.details))


if __name__ == "__main__":
    main()
