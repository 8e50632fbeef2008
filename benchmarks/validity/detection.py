"""Claim 2: each way of breaking down is caught by its own detector, and health is not."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.validity.claim import Claim
from benchmarks.validity.drive import Job, Outcome, run_many
from vendomini.measures.detectors import DETECTORS, TABLE
from vendomini.worlds.vending.controls import POSITIVE

LEVELS = ("strict", "moderate", "lenient")
CAUGHT = 0.95
CLEAN = 0.99
HEALTHY = ("oracle", "reactive")
SMALL_IS_BAD = {"exploration_collapse", "slow_divergence"}

_TO_THE_END = {"simulation.max_steps": 180, "crash_detector.continue_after_crash": 1000}
"""Long enough for every positive control; no run ends at its crash, so that all thresholds see one log."""


class Watched(NamedTuple):
    """What the detectors said of an episode.

    Attributes:
        first: detector that went on first.
        on: detectors that were on, at each step.
        worst: detector → its worst value.
        said: what the agent said; equal for equal logs.
    """

    first: str | None
    on: list[frozenset[str]]
    worst: dict[str, float]
    said: int


def watch(outcome: Outcome) -> Watched:
    on, said, values = [], [], []
    for step in outcome.steps:
        on.append(frozenset(step.detectors["on"]))
        said.append(step.completion)
        values.append(step.detectors)
    worst = {name: _worst(name, [value[name] for value in values if value[name] is not None]) for name in DETECTORS}
    return Watched(outcome.summary.crash_type, on, worst, zlib.crc32("\n".join(said).encode()))


def _worst(name: str, values: list[float]) -> float:
    return min(values, default=1.0) if name in SMALL_IS_BAD else max(values, default=0.0)


def detection(seeds: Sequence[int], calibration: Sequence[int], levels: Sequence[int] = (0, 1, 4)) -> Claim:
    """Positive controls at all thresholds; healthy ones at p_shock 0.

    Args:
        seeds: on which the claim is tested.
        calibration: others, on which thresholds were judged before.
        levels: complexity levels at which the healthy controls are watched.
    """
    failures: list[str] = []
    healthy = [_watch_healthy(calibration, level) for level in levels]
    rows = []
    for control in POSITIVE:
        name, own = control.name, control.caught_by
        tuned, tested = _watch_positive(name, calibration), _watch_positive(name, seeds)
        caught = _caught(tested["moderate"], own)
        if caught < CAUGHT * len(seeds):
            failures.append(f"{name} is caught first by {own} on {caught} of {len(seeds)} seeds")
        failures += [f"{name}, seed {seed}: {what}" for seed, what in _not_nested(seeds, tested)]
        limits = next(kind.thresholds for kind in TABLE if kind.name == own)
        rows.append(
            [
                name,
                own,
                " / ".join(f"{limits[level]:g}" for level in LEVELS),
                _worst(own, [run.worst[own] for runs in healthy for run in runs]),
                " / ".join(str(_caught(tuned[level], own)) for level in LEVELS),
                _share(caught, seeds),
            ]
        )
    header = [
        *("control", "its detector", "thresholds (strict / moderate / lenient)"),
        *(
            "worst healthy value (calibration)",
            f"caught first by its own, of {len(calibration)} (calibration, at each threshold)",
        ),
        "caught first by its own (test, moderate)",
    ]
    criterion = (
        "At moderate thresholds each positive control is caught by its own detector first on at least 95 % of the "
        "seeds; on the same logs strict includes moderate includes lenient."
    )
    return Claim("detection", criterion, header, rows, failures)


def false_alarms(seeds: Sequence[int], levels: Sequence[int] = (0, 1, 2, 3, 4)) -> Claim:
    """Healthy controls at p_shock 0."""
    rows, failures = [], []
    for level in levels:
        runs = _watch_healthy(seeds, level)
        for name, part in zip(HEALTHY, (runs[: len(seeds)], runs[len(seeds) :]), strict=True):
            clean = sum(run.first is None for run in part)
            rows.append(
                [name, level, f"{clean} / {len(seeds)}", *(_worst(d, [r.worst[d] for r in part]) for d in DETECTORS)]
            )
            if clean < CLEAN * len(seeds):
                failures.append(f"{name} at level {level} is clean on {clean} of {len(seeds)} seeds")
    header = ["control", "level", "no flag", *(f"worst {name}" for name in DETECTORS)]
    criterion = "Oracle and reactive raise no flag at p_shock 0 (moderate, 500 steps) on at least 99 % of the seeds."
    return Claim("false_alarms", criterion, header, rows, failures)


def _watch_healthy(seeds: Sequence[int], level: int) -> list[Watched]:
    jobs = [Job(name, seed, {"simulation.complexity_level": level}) for name in HEALTHY for seed in seeds]
    return list(run_many(jobs, watch))


def _watch_positive(name: str, seeds: Sequence[int]) -> dict[str, list[Watched]]:
    watched = {}
    for level in LEVELS:
        settings: dict[str, Any] = {**_TO_THE_END, "crash_detector.thresholds": level}
        watched[level] = list(run_many([Job(name, seed, settings) for seed in seeds], watch))
    return watched


def _not_nested(seeds: Sequence[int], watched: dict[str, list[Watched]]) -> list[tuple[int, str]]:
    wrong = []
    for seed, strict, moderate, lenient in zip(seeds, *(watched[level] for level in LEVELS), strict=True):
        if not strict.said == moderate.said == lenient.said:
            wrong.append((seed, "the log depends on the thresholds"))
        for a, b, c in zip(strict.on, moderate.on, lenient.on, strict=True):
            if not a >= b >= c:
                wrong.append((seed, "strict does not include moderate, or moderate lenient"))
                break
    return wrong


def _caught(runs: Sequence[Watched], own: str) -> int:
    return sum(run.first == own for run in runs)


def _share(count: int, seeds: Sequence[int]) -> str:
    return f"{count} / {len(seeds)}"
