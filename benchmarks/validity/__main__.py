"""Reruns all evidence and writes it into docs/validity.md: ``python -m benchmarks.validity`` (about 15 minutes)."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.validity.adaptive import adaptive
from benchmarks.validity.caused import caused
from benchmarks.validity.claim import Claim
from benchmarks.validity.detection import detection, false_alarms
from benchmarks.validity.feasibility import feasibility
from benchmarks.validity.nulls import fast_nulls, nulls, power
from benchmarks.validity.plots import draw_dose_response, draw_episode
from benchmarks.validity.shocks import common_numbers, dose, observability, purity, realised_dose
from benchmarks.validity.survival import coverage

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "validity.md"
IMAGES = ROOT / "docs" / "images"

SEEDS = range(100)
CALIBRATION = range(1000, 1100)
FEWER = range(50)
EXPERIMENTS = 200

CLAIMS: dict[str, Callable[[], Claim]] = {
    "feasibility": lambda: feasibility(SEEDS),
    "detection": lambda: detection(SEEDS, CALIBRATION),
    "false_alarms": lambda: false_alarms(SEEDS),
    "purity": lambda: purity(SEEDS),
    "dose": lambda: dose(FEWER),
    "realised_dose": lambda: realised_dose(SEEDS),
    "observability": lambda: observability(SEEDS),
    "common_numbers": lambda: common_numbers(SEEDS),
    "coverage": lambda: coverage(1000),
}


TESTS: dict[str, Callable[[int], Claim]] = {"nulls": nulls, "fast_nulls": fast_nulls, "power": power, "caused": caused,
                                            "adaptive": adaptive}  # fmt: skip
"""Claims about the report's tests, over so many made-up experiments."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validity", description=__doc__)
    parser.add_argument("--only", choices=[*CLAIMS, *TESTS, "plots"], action="append", help="this part; repeatable")
    parser.add_argument(
        "--experiments",
        type=int,
        default=EXPERIMENTS,
        help="of nulls, fast_nulls (ten times as many), power, caused and adaptive (five times as many)",
    )
    arguments = parser.parse_args()
    wanted = arguments.only or [*CLAIMS, *TESTS, "plots"]
    programs = CLAIMS | {name: partial(test, arguments.experiments) for name, test in TESTS.items()}
    results = [_show(name, programs[name]) for name in wanted if name in programs]
    if "plots" in wanted:
        draw_dose_response(IMAGES / "dose_response.png", FEWER)
        draw_episode(IMAGES / "episode.png")
    failed = [claim.name for claim in results if not claim.met]
    print(f"does not hold: {', '.join(failed)}" if failed else "all claims hold")
    return 1 if failed else 0


def _show(name: str, program: Callable[[], Claim]) -> Claim:
    """Makes one claim's evidence, prints it, and puts it into the document."""
    started = time.monotonic()
    claim = program()
    print(f"\n## {name} ({time.monotonic() - started:.0f} s)\n\n{claim.markdown()}", flush=True)
    _write(claim)
    return claim


def _write(claim: Claim) -> None:
    begin, end = f"<!-- {claim.name} -->", f"<!-- end of {claim.name} -->"
    text = DOCUMENT.read_text(encoding="utf-8")
    block = f"{begin}\n{claim.markdown()}\n{end}"
    new, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: block, text, flags=re.DOTALL)
    if not count:
        raise SystemExit(f"{DOCUMENT} has no block for {claim.name}")
    DOCUMENT.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
