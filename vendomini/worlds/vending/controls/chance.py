"""Chance for a pure function: numbers that follow from the request's seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1


def mixed(seed: int, salt: int) -> int:
    """64 well-mixed bits; another ``salt`` gives another number of the same seed (SplitMix64's finaliser)."""
    x = (seed * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def uniform(seed: int, salt: int) -> float:
    """A number in [0, 1)."""
    return (mixed(seed, salt) >> 11) / (1 << 53)


def pick(items: Sequence[T], seed: int, salt: int) -> T:
    return items[mixed(seed, salt) % len(items)]
