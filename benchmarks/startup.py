"""Start-up: ``vendomini --help`` beside a bare Typer program, in turns.

    python benchmarks/startup.py

The ratio is what the project adds; the goal is at most 1.5.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import typer
app = typer.Typer()
@app.command()
def one(): "One."
@app.command()
def two(): "Two."
app()
"""
ROUNDS = 15


def seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as bare:
        Path(bare.name).write_text(BARE, encoding="utf-8")
        ours = (sys.executable, "-m", "vendomini", "--help")
        theirs = (sys.executable, bare.name, "--help")
        pairs = [(seconds(*ours), seconds(*theirs)) for _ in range(ROUNDS + 1)][1:]
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"vendomini --help   {statistics.median(a for a, _ in pairs) * 1000:6.0f} ms")
    print(f"bare Typer --help  {statistics.median(b for _, b in pairs) * 1000:6.0f} ms")
    print(f"ratio              {ratio:6.2f}  (median of {ROUNDS} pairs)")


if __name__ == "__main__":
    main()
