"""Claim 11: error that shocks caused foretells crashes where shocks cause them, and nowhere else.

Episodes are run once, by the shipped runner, and experiments draw seeds from them. An agent that derails at random is
a healthy one whose event falls at a random step: what it met before is the same, and only that is in the covariate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import tee

import numpy
import pandas

from benchmarks.validity.claim import Claim
from benchmarks.validity.drive import Job, Outcome, pool, run_many
from vendomini.analysis.report.sections_errors import SCALES, foretold
from vendomini.analysis.statistics.estimate import CannotFit, holm
from vendomini.analysis.tables.digest import CausedErrors
from vendomini.worlds.vending.promises import caused_errors

DOSES = (0.0, 0.1, 0.2, 0.4)
STEPS = 500
WIDTH = 5
"""Steps of an interval of the Cox model."""
ONSET = 8
"""Steps from derailing to the flag; fewer than a detector's window, as for the shipped controls."""
NO_EVIDENCE = 0.93
FOUND = 0.8

Episode = tuple[dict[str, object], pandas.DataFrame]
Overlay = Callable[[numpy.random.Generator, pandas.DataFrame], numpy.ndarray]


def digest(outcome: Outcome) -> Episode:
    """(the run's row, its accumulated errors step by step)."""
    summary = outcome.summary
    name = f"{outcome.job.control}/{outcome.job.settings['pe_induction.p_shock']}/{outcome.job.seed}"
    errors, rows = CausedErrors(summary.time_to_crash or summary.steps), []
    steps, again = tee(outcome.steps)
    for step, caused in zip(steps, caused_errors(again), strict=True):
        rows.append({"run": name, "step": step.step, **errors.update(step.step, caused, step.resolved)})
    run = {
        "run": name, "seed": outcome.job.seed, "stratum": outcome.job.control,
        "durations": float(summary.time_to_crash or 0), "event_observed": bool(summary.event_observed),
    }  # fmt: skip
    log = pandas.DataFrame(rows)[["run", "step", *(f"caused.{scale}" for scale in SCALES)]]
    return run, log[log["step"] % WIDTH == 0]


def episodes(controls: list[str], doses: tuple[float, ...], seeds: range, steps: int) -> list[Episode]:
    settings = {"simulation.max_steps": steps, "pe_induction.pe_mag": "high"}
    jobs = [Job(control, seed, {**settings, "pe_induction.p_shock": dose})
            for control in controls for dose in doses for seed in seeds]  # fmt: skip
    return list(run_many(jobs, digest))


def at_random(rng: numpy.random.Generator, runs: pandas.DataFrame) -> numpy.ndarray:
    return numpy.ceil(rng.exponential(800, len(runs))) + ONSET


def by_time(rng: numpy.random.Generator, runs: pandas.DataFrame) -> numpy.ndarray:
    return rng.integers(80, STEPS, len(runs)).astype(float) + ONSET


def as_it_was(_rng: numpy.random.Generator, runs: pandas.DataFrame) -> numpy.ndarray:
    return numpy.where(runs["event_observed"], runs["durations"], numpy.inf)


def verdict(number: int, runs: pandas.DataFrame, steps: pandas.DataFrame, seeds: int, overlay: Overlay) -> bool:
    """Whether one experiment of so many seeds says "yes" on any time scale, after Holm."""
    rng = numpy.random.default_rng((15, number))
    drawn = rng.choice(runs["seed"].unique(), seeds, replace=False)
    part = runs[runs["seed"].isin(drawn)].reset_index(drop=True)
    times, horizon = overlay(rng, part), part["durations"].where(~part["event_observed"]).max()
    horizon = float(horizon) if horizon == horizon else float(part["durations"].max())
    part = part.assign(durations=numpy.minimum(times, horizon), event_observed=times <= horizon)
    p_values = []
    for scale in SCALES:
        try:
            p_values.append(foretold(steps, part, f"caused.{scale}", WIDTH).p)
        except CannotFit:
            continue
    return any(p < 0.05 for p in holm(p_values))


def caused(experiments: int) -> Claim:
    """The two experiments that once said "yes" without a cause, others like them, and one with a cause."""
    doses = DOSES
    seeds, drawn, slack = (range(60), 20, 0.0) if experiments >= 200 else (range(24), 12, 0.1)
    derailing = (["reactive", "invalid", "spender"], (0.0,), 140)
    cases: list[tuple[str, tuple[list[str], tuple[float, ...], int], int, Overlay, bool]] = [
        ("reactive, invalid and spender, no shocks", derailing, min(40, len(seeds)), as_it_was, False),
        ("derails at random, shocks at four doses", (["reactive"], doses, STEPS), drawn, at_random, False),
        ("derails by time, shocks at four doses", (["reactive"], doses, STEPS), drawn, by_time, False),
        ("never derails, shocks at four doses", (["reactive"], doses, STEPS), drawn, as_it_was, False),
        ("fragile: shocks derail it, four doses", (["fragile"], doses, STEPS), drawn, as_it_was, True),
    ]
    made: dict[str, list[Episode]] = {}
    rows, failures = [], []
    for name, (controls, levels, steps), count, overlay, effect in cases:
        key = repr((controls, levels, steps))
        if key not in made:
            made[key] = episodes(controls, levels, seeds, steps)
        runs, logs = pandas.DataFrame([run for run, _ in made[key]]), pandas.concat([log for _, log in made[key]])
        ask = partial(verdict, runs=runs, steps=logs, seeds=count, overlay=overlay)
        yes = sum(pool().map(ask, range(experiments), chunksize=max(experiments // 8, 1))) / experiments
        rows.append([name, "yes" if effect else "no", count, f"{yes:.1%}"])
        right = yes if effect else 1 - yes
        if right < (FOUND if effect else NO_EVIDENCE) - slack:
            failures.append(f"{name}: says yes in {yes:.1%}")
    criterion = (
        "The report says that error which shocks caused foretells the event in at most "
        f"{1 - NO_EVIDENCE + slack:.0%} of {experiments} experiments where it does not, and in at least "
        f"{FOUND - slack:.0%} where it does."
    )
    header = ["agents", "a cause was put in", "seeds of an experiment", "says yes (any time scale, Holm)"]
    return Claim("caused", criterion, header, rows, failures)
