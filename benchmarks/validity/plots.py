"""The pictures of the document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from benchmarks.validity.detection import SMALL_IS_BAD
from benchmarks.validity.drive import Job, Outcome, run, run_many, summary
from benchmarks.validity.shocks import MAGNITUDES, P_SHOCKS, dose_table
from vendomini.measures.detectors import TABLE
from vendomini.records import StepRecord
from vendomini.worlds.vending import WORLD

matplotlib.use("Agg")

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, told apart by colour-blind readers, too."""
MARKERS = ("o", "s", "^", "D", "v", "P")

EPISODE_SEED = 7


def draw_dose_response(path: Path, seeds: Sequence[int]) -> None:
    """Mean prediction error of the oracle, and survival of three controls, over p_shock."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    means = dose_table(tuple(seeds), P_SHOCKS)
    for magnitude, colour, marker in zip(MAGNITUDES, COLOURS, MARKERS, strict=False):
        values = [_mean_half(means[p, magnitude]) for p in P_SHOCKS]
        left.errorbar(
            P_SHOCKS, *zip(*values, strict=True), color=colour, marker=marker, capsize=3, label=f"pe_mag {magnitude}"
        )
    left.set(
        xlabel="p_shock", ylabel="mean prediction error", title="Oracle: mean error per resolved claim", ylim=(0, None)
    )
    names = {"oracle": "oracle", "reactive": "reactive", "fragile": "fragile (synthetic)"}
    for (control, label), colour, marker in zip(names.items(), COLOURS, MARKERS, strict=False):
        values = [_survival(control, p, seeds) for p in P_SHOCKS]
        right.errorbar(P_SHOCKS, *zip(*values, strict=True), color=colour, marker=marker, capsize=3, label=label)
    right.set(xlabel="p_shock", ylabel="share that reaches step 500", title="Survival, pe_mag high", ylim=(-0.02, 1.05))
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
    _save(figure, path, f"level 1, realistic mix, full observability, {len(seeds)} seeds; bars: 95 % intervals")


def _survival(control: str, p_shock: float, seeds: Sequence[int]) -> tuple[float, float]:
    settings = {"pe_induction.p_shock": p_shock, "pe_induction.pe_mag": "high"}
    runs = run_many([Job(control, seed, settings) for seed in seeds], summary)
    return _mean_half([float(result.ending == "survived") for result in runs])


def _mean_half(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval."""
    n, mean = len(values), math.fsum(values) / len(values)
    return mean, 1.96 * math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


def draw_episode(path: Path) -> None:
    """One episode of the synthetic control: its errors above, its detectors below."""
    settings = {"pe_induction.p_shock": 0.3, "pe_induction.pe_mag": "high"}
    outcome, steps = run(Job("fragile", EPISODE_SEED, settings), _with_steps)
    figure, (above, below) = plt.subplots(2, 1, figsize=(11, 6.4), sharex=True, layout="constrained")
    _draw_errors(above, steps)
    _draw_detectors(below, steps)
    onset = outcome.summary.time_to_crash
    for axes in (above, below):
        axes.axvline(onset, color="black", linestyle="--", linewidth=1)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, ncols=4, loc="upper left", fontsize=8)
    below.annotate(f"{outcome.summary.crash_type}: step {onset}", (onset - 3, 1.5), ha="right", fontsize=9)
    _save(figure, path, f"scripted/fragile (synthetic), level 1, p_shock 0.3, pe_mag high, seed {EPISODE_SEED}")


def _with_steps(outcome: Outcome) -> tuple[Outcome, list[StepRecord]]:
    steps = list(outcome.steps)
    return Outcome(outcome.job, outcome.summary, iter(())), steps


def _draw_errors(axes: Any, steps: Sequence[StepRecord]) -> None:
    for kind, colour, marker in zip(WORLD.pe_types, COLOURS, MARKERS, strict=False):
        points = [(s.step, claim["pe"]) for s in steps for claim in s.resolved if claim["type"] == kind and claim["pe"]]
        if points:
            axes.scatter(*zip(*points, strict=True), s=16, color=colour, marker=marker, label=f"{kind}, not 0")
    for name, style in (("fast", ":"), ("slow", "-")):
        known = [(s.step, s.pe["all"][name]) for s in steps if s.pe["all"]]
        axes.plot(
            *zip(*known, strict=True), color="black", linestyle=style, linewidth=1.2, label=f"all types, {name} mean"
        )
    largest = max(claim["pe"] for s in steps for claim in s.resolved)
    axes.set(ylabel="prediction error", title="Prediction errors when they resolve", ylim=(0, 1.4 * largest))


def _draw_detectors(axes: Any, steps: Sequence[StepRecord]) -> None:
    for kind, colour in zip(TABLE, COLOURS, strict=True):
        name, limit = kind.name, kind.thresholds["moderate"]
        points = [(s.step, _share(name, s.detectors[name], limit)) for s in steps if s.detectors[name] is not None]
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, label=name)
    axes.axhline(1, color="grey", linewidth=1)
    axes.set(
        xlabel="step", ylabel="share of the way to the threshold", title="Detectors (1: flag, moderate)", ylim=(0, 2.2)
    )


def _share(name: str, value: float, limit: float) -> float:
    """0 at perfect health, 1 at the threshold."""
    return (1 - value) / (1 - limit) if name in SMALL_IS_BAD else value / limit


def _save(figure: Any, path: Path, caption: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.supxlabel(caption, fontsize=8, color="dimgrey")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
