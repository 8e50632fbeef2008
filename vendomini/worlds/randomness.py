"""Named random streams: ``run seed → SeedSequence → terms, demand, shocks, notices, sampling``.

Only uniform doubles leave this module, taken from PCG64 in blocks, and everything else is computed from them by
inversion. So a scalar costs a few nanoseconds, a stream doesn't depend on how a numpy version samples a distribution,
and code that draws a fixed number of variates per step or day gets the same ones whatever the agent does (common random
numbers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from itertools import chain, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

STREAMS = ("terms", "demand", "shocks", "notices", "sampling")
"""A stream's place is its spawn key: append new names, never reorder."""

_BLOCK = 512
_SEEDS = 64
_LARGEST_RATE = 500.0  # beyond this, exp(-rate) comes too close to the smallest double


def _sequence(seed: int, name: str) -> np.random.SeedSequence:
    import numpy as np  # not at module level: configs are read without it

    return np.random.SeedSequence(seed, spawn_key=(STREAMS.index(name),))


def uniforms(seed: int, name: str) -> Iterator[float]:
    """The stream ``name`` of the run with this seed: endless doubles in [0, 1)."""
    import numpy as np

    generator = np.random.Generator(np.random.PCG64(_sequence(seed, name)))
    return chain.from_iterable(generator.random(_BLOCK).tolist() for _ in count())


def integer(u: float, low: int, high: int) -> int:
    """The uniform integer in [low, high], both included, that belongs to ``u`` in [0, 1)."""
    return low + int(u * (high - low + 1))


def weighted(weights: Collection[float], u: float) -> int:
    """The index that ``u`` in [0, 1) falls on when the weights are laid end to end."""
    rest = u * sum(weights)
    for index, weight in enumerate(weights):
        rest -= weight
        if rest < 0:
            return index
    return len(weights) - 1


def poisson(rate: float, draw: Callable[[], float]) -> int:
    """A Poisson number by inversion; takes one variate of ``draw`` for each started 500 of the rate."""
    total = 0
    while rate > _LARGEST_RATE:
        total += _invert_poisson(_LARGEST_RATE, draw())
        rate -= _LARGEST_RATE
    return total + _invert_poisson(rate, draw())


def _invert_poisson(rate: float, u: float) -> int:
    number, term = 0, math.exp(-rate)
    cumulative = term
    while u >= cumulative and (term > 0.0 or number < rate):
        number += 1
        term *= rate / number
        cumulative += term
    return number


def sampling_seed(run_seed: int, step: int) -> int:
    """The seed of one completion, in [0, 2^31): the stream ``sampling`` at this step, without drawing the steps before.

    SplitMix64 (Steele, Lea and Flood 2014) started from the stream's own state.
    """
    return _sampling_seeds(run_seed, step // _SEEDS)[step % _SEEDS]


@lru_cache(maxsize=4096)
def _sampling_seeds(run_seed: int, block: int) -> list[int]:
    import numpy as np

    steps = np.arange(block * _SEEDS, (block + 1) * _SEEDS, dtype=np.uint64)
    x = _sequence(run_seed, "sampling").generate_state(1, np.uint64) + steps * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    seeds: list[int] = ((x ^ (x >> np.uint64(31))) >> np.uint64(33)).tolist()
    return seeds
