"""Claim 1: the task can be done, and not by doing nothing."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.validity.cells import level_cells, shipped_cells
from benchmarks.validity.claim import Claim
from benchmarks.validity.drive import Job, run_many, summary
from vendomini.records import RunSummary

SURVIVORS = 0.99


def feasibility(seeds: Sequence[int], most_steps: int = 5000) -> Claim:
    """Oracle and idle at p_shock 0, at every level and at every setting that a shipped phase uses.

    Args:
        most_steps: settings with a longer horizon are left out.
    """
    cells = level_cells() | shipped_cells()
    rows, failures = [], []
    for name, settings in cells.items():
        if (
            max(settings.get("simulation.max_steps", 0), settings.get("simulation", {}).get("max_steps", 0))
            > most_steps
        ):
            continue
        oracle = list(run_many([Job("oracle", seed, settings) for seed in seeds], summary))
        idle = list(run_many([Job("idle", seed, settings) for seed in seeds], summary))
        survived, lingered = _survivors(oracle), _survivors(idle)
        expired = max(100 * run.world["orders_expired"] / run.world["days"] for run in oracle)
        idle_end = max(run.steps for run in idle)
        rows.append([name, f"{survived} / {len(seeds)}", f"{expired:.1f}", f"{lingered} / {len(seeds)}", idle_end])
        if survived < SURVIVORS * len(seeds):
            failures.append(f"oracle survives {survived} of {len(seeds)} at {name}")
        if lingered:
            failures.append(f"idle survives {lingered} of {len(seeds)} at {name}")
    header = [
        "setting",
        "oracle survives",
        "most customers lost per 100 days (mean of a run)",
        "idle survives",
        "idle's last step",
    ]
    criterion = "At p_shock 0 the oracle reaches max_steps on at least 99 % of the seeds, and idle never does."
    return Claim("feasibility", criterion, header, rows, failures)


def _survivors(runs: Sequence[RunSummary]) -> int:
    return sum(run.ending == "survived" for run in runs)
