"""Claim 10: tests of the report find nothing where there is nothing, and find what was put in.

Experiments have the shape of phase 1 for small models: 3 models, 11 doses, 2 magnitudes, 2 prediction modes, 5 seeds,
500 steps, and one cell at dose 0. Only the times of the events are made up; each test is the report's own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy
import pandas

from benchmarks.validity.claim import Claim
from benchmarks.validity.drive import pool
from vendomini.analysis.statistics.competing import association
from vendomini.analysis.statistics.cox import Covariate, cox, proportionality
from vendomini.analysis.statistics.estimate import CannotFit
from vendomini.analysis.statistics.paired import paired_difference, paired_slope
from vendomini.analysis.statistics.survival import logrank_statistic
from vendomini.analysis.statistics.time_models import discrete_hazards, weibull

SHAPE = {
    "model": ["m1", "m2", "m3"],
    "p_shock": [i / 10 for i in range(11)],
    "pe_mag": ["low", "high"],
    "prediction_mode": ["required", "optional"],
}
SEEDS = 5
HORIZON = 500
ALLOWED = (0.03, 0.07)
LEVEL = 0.05

COVARIATES = [Covariate(name, name, levels, numeric=name == "p_shock") for name, levels in SHAPE.items()]
Law = Callable[[numpy.random.Generator, pandas.DataFrame], numpy.ndarray]


def grid() -> pandas.DataFrame:
    """One row a run; pe_mag has no level at dose 0, where it does nothing."""
    cells = pandas.DataFrame(itertools.product(*SHAPE.values()), columns=list(SHAPE))
    cells = cells[~((cells["p_shock"] == 0) & (cells["pe_mag"] == "high"))]
    cells["pe_mag"] = cells["pe_mag"].where(cells["p_shock"] > 0, None)
    return cells.merge(pandas.DataFrame({"seed": range(SEEDS)}), how="cross")


def at_random(rng: numpy.random.Generator, runs: pandas.DataFrame) -> numpy.ndarray:
    """A constant hazard, the same for all."""
    return rng.exponential(600, len(runs))


def by_time(rng: numpy.random.Generator, runs: pandas.DataFrame) -> numpy.ndarray:
    """Half of the runs derail between step 80 and 100, whatever happens, the others never: heavy ties."""
    return numpy.where(rng.random(len(runs)) < 0.5, rng.integers(80, 101, len(runs)), HORIZON + 1)


def by_seed(rng: numpy.random.Generator, runs: pandas.DataFrame) -> numpy.ndarray:
    """Some seeds are harder than others, for all cells alike, as where a budget runs out."""
    hard = numpy.exp(rng.normal(0, 0.7, SEEDS))[runs["seed"]]
    return rng.exponential(600 / hard)


def never(_rng: numpy.random.Generator, runs: pandas.DataFrame) -> numpy.ndarray:
    return numpy.full(len(runs), HORIZON + 1.0)


def in_few_steps(rng: numpy.random.Generator, runs: pandas.DataFrame) -> numpy.ndarray:
    """A constant hazard, seen at 25 distinct steps only."""
    return numpy.ceil(rng.exponential(600, len(runs)) / 20) * 20


def harmful(rng: numpy.random.Generator, runs: pandas.DataFrame) -> numpy.ndarray:
    """The hazard doubles from dose 0 to dose 1, and is half as high again at high magnitude; seeds differ."""
    hard = numpy.exp(rng.normal(0, 0.3, SEEDS))[runs["seed"]]
    return rng.exponential(700 / hard / 2 ** runs["p_shock"] / numpy.where(runs["pe_mag"] == "high", 1.5, 1.0))


NULLS: dict[str, Law] = {"at random": at_random, "by time": by_time, "by seed": by_seed, "in few steps": in_few_steps,
                         "never": never}  # fmt: skip


def experiment(law: Law, number: int) -> dict[str, float]:
    """Test → p-value, of one experiment; tests that can't be had say so in the report, and are left out here."""
    rng = numpy.random.default_rng((14, number))
    runs = grid()
    times = numpy.maximum(numpy.ceil(law(rng, runs)), 1)
    runs["durations"], runs["event_observed"] = numpy.minimum(times, HORIZON), times <= HORIZON
    runs["crash type"] = rng.choice(["looping", "invalid_burst", "decoupling"], len(runs))
    found: dict[str, float] = {}
    for name, test in TESTS.items():
        if (name, law.__name__.replace("_", " ")) in NOT_NULL:
            continue
        try:
            found[name] = test(runs)
        except CannotFit:
            continue
    try:
        hazards = cox(runs, COVARIATES).hazards
        found |= {"dose, Cox": hazards[2].p, "pe_mag, Cox": hazards[3].p}
    except CannotFit:
        pass
    return found


def _chi(runs: pandas.DataFrame, factor: str, strata: str | None) -> float:
    from scipy.stats import chi2

    statistic, df = logrank_statistic(runs[runs[factor].notna()], factor, strata)
    return float(chi2.sf(statistic, df))


OTHERS = ["model", "p_shock", "prediction_mode"]
TESTS: dict[str, Callable[[pandas.DataFrame], float]] = {
    "dose, slope paired by seed (primary)": lambda runs: paired_slope(runs, "p_shock", SHAPE["p_shock"], 0.1).p,
    "pe_mag, difference paired by seed": lambda runs: paired_difference(runs, "pe_mag", ["low", "high"], OTHERS).p,
    "dose, log-rank within seeds": partial(_chi, factor="p_shock", strata="seed"),
    "pe_mag, log-rank within seeds": partial(_chi, factor="pe_mag", strata="seed"),
    "dose, log-rank": partial(_chi, factor="p_shock", strata=None),
    "pe_mag, log-rank": partial(_chi, factor="pe_mag", strata=None),
    "dose, proportional hazards": lambda runs: proportionality(runs, COVARIATES)[2].p,
    "dose, discrete-time model": lambda runs: discrete_hazards(runs, COVARIATES)[2].p,
    "crash type × pe_mag": lambda runs: association(runs[runs["event_observed"]], "crash type", "pe_mag").test.p,
    "constant hazard (Weibull)": lambda runs: weibull(runs).p,
}
UNPAIRED = {"dose, log-rank", "pe_mag, log-rank"}
"""Take runs as independent: with seeds that differ they are conservative."""
NOT_NULL = {("constant hazard (Weibull)", law) for law in ("by time", "by seed", "in few steps")}
"""The hazard is not constant there, or not seen to be."""


def nulls(experiments: int) -> Claim:
    """How often each test rejects at 5 % where nothing has an effect."""
    rates = {name: _rates(law, experiments) for name, law in NULLS.items()}
    low, high = _allowed(experiments)
    rows, failures = [], []
    for test in [*TESTS, "dose, Cox", "pe_mag, Cox"]:
        cells = []
        for law, found in rates.items():
            if (test, law) in NOT_NULL or not found.get(test, (0, 0))[1]:
                cells.append("–")
                continue
            rejected, made = found[test]
            rate = rejected / made
            cells.append(f"{rate:.1%}")
            conservative = test in UNPAIRED and law == "by seed"
            if rate > high or (rate < low and not conservative):
                failures.append(f"{test} rejects {rate:.1%} of {made} null experiments ({law})")
        rows.append([test, *cells])
    criterion = (
        f"At 5 % each test rejects {low:.1%} to {high:.1%} of {experiments:,} experiments in which nothing has an "
        "effect; less where it takes runs of one seed as independent and seeds differ."
    )
    return Claim("nulls", criterion, ["test", *(f"derail {law}" for law in NULLS)], rows, failures)


def power(experiments: int) -> Claim:
    """How often each test finds an effect that was put in."""
    found = _rates(harmful, experiments)
    null = {name for name in TESTS if "constant" in name or "proportional" in name or "crash type" in name}
    rows = [[test, f"{rejected / made:.0%}"] for test, (rejected, made) in found.items() if test not in null]
    share = found["dose, slope paired by seed (primary)"]
    failures = [] if share[0] >= 0.8 * share[1] else [f"the primary contrast finds {share[0]} of {share[1]}"]
    criterion = (
        f"Where the hazard doubles from dose 0 to 1 and is half as high again at high magnitude, the primary contrast "
        f"finds the dose in at least 80 % of {experiments:,} experiments."
    )
    return Claim("power", criterion, ["test", "found at 5 %"], rows, failures)


def _rates(law: Law, experiments: int) -> dict[str, tuple[int, int]]:
    rejected: Counter[str] = Counter()
    made: Counter[str] = Counter()
    for p_values in pool().map(partial(experiment, law), range(experiments), chunksize=5):
        made.update(p_values.keys())
        rejected.update(name for name, p in p_values.items() if p < LEVEL)
    return {name: (rejected[name], made[name]) for name in made}


def _allowed(experiments: int) -> tuple[float, float]:
    """3 to 7 % for 1,000 experiments, 2.9 standard errors; for fewer, as many standard errors around 5 %."""
    half = (ALLOWED[1] - ALLOWED[0]) / 2 * max((1000 / experiments) ** 0.5, 1.0)
    return max(LEVEL - half, 0.0), LEVEL + half
