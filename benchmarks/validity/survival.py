"""Claim 9: the statistics recover what is put in."""

from __future__ import annotations

import math

import numpy

from benchmarks.validity.claim import Claim
from benchmarks.validity.drive import pool

RATIO = 1.8
"""Hazard ratio between the two arms."""
SEEDS_PER_ARM = 100
HORIZON = 500
COVERAGE = (0.93, 0.97)


def coverage(draws: int) -> Claim:
    """How often the 95 % interval of the hazard ratio holds the ratio that the data were drawn with.

    Two arms share seeds, as runs do: times are exponential, in whole steps, and censored at the horizon.
    """
    fits = list(pool().map(_interval, range(draws), chunksize=20))
    covered = sum(low <= RATIO <= high for low, _, high in fits) / draws
    bias = math.fsum(math.log(value / RATIO) for _, value, _ in fits) / draws
    low, high = _allowed(draws)
    failures = [] if low <= covered <= high else [f"covered in {covered:.1%} of {draws} draws"]
    rows = [[f"two arms of {SEEDS_PER_ARM}", RATIO, draws, f"{covered:.1%}", f"{bias:+.3f}"]]
    header = ["data", "hazard ratio put in", "draws", "covered by the 95 % interval", "mean error of log ratio"]
    criterion = f"The interval of the shipped Cox model covers the true ratio in {low:.0%} to {high:.0%} of the draws."
    return Claim("coverage", criterion, header, rows, failures)


def _allowed(draws: int) -> tuple[float, float]:
    """93–97 % for 1,000 draws; for fewer, as many standard errors around 95 %."""
    half = (COVERAGE[1] - COVERAGE[0]) / 2 * math.sqrt(1000 / draws)
    return 0.95 - half, min(0.95 + half, 1.0)


def _interval(draw: int) -> tuple[float, float, float]:
    import pandas

    from vendomini.analysis.statistics.cox import Covariate, cox

    generator = numpy.random.default_rng((2026, draw))
    base = -math.log(0.5) / HORIZON
    frames = []
    for arm, hazard in enumerate((base, base * RATIO)):
        times = numpy.ceil(generator.exponential(1 / hazard, SEEDS_PER_ARM))
        columns = {"durations": numpy.minimum(times, HORIZON), "event_observed": times <= HORIZON, "arm": str(arm)}
        frames.append(pandas.DataFrame({**columns, "seed": range(SEEDS_PER_ARM)}))
    model = cox(pandas.concat(frames, ignore_index=True), [Covariate("arm", "arm", ["0", "1"], numeric=False)])
    ratio = model.hazards[0].ratio
    return ratio.lower, ratio.value, ratio.upper
