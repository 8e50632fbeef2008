"""The suppliers' terms: those that hold (*actual*) and those that they state (*advertised*).

Every change is a factor on a supplier's original terms, so changes never compound. A notice copies actual to
advertised. Prices are in cents, lead times in days.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from vendomini.worlds.randomness import integer

LEVELS = ((5, 2, 5), (10, 3, 6), (15, 4, 7), (20, 5, 8), (25, 6, 9))
"""complexity_level → SKUs, suppliers, longest lead time in days (the shortest is 1)."""

_PRICE_RANGE = (5.0, 50.0)
_RELIABILITY_RANGE = (0.85, 0.99)


def sku_ids(level: int) -> list[str]:
    return [f"SKU{number:02d}" for number in range(1, LEVELS[level][0] + 1)]


def supplier_ids(level: int) -> list[str]:
    return [f"SUP{number}" for number in range(1, LEVELS[level][1] + 1)]


class Market:
    """All suppliers of one episode.

    Args:
        level: complexity_level.
        draws: the stream ``terms``.

    Attributes:
        lowest: SKU → lowest original price over the suppliers: the catalogue price that sales and net worth go by.
            Shocks leave it alone, so that runs that differ in their shocks meet the same customers.
        unreliability: supplier → in (0.01, 0.15): what its reliability lacks to 1. Shocks pick suppliers in proportion.
        actual_factor, advertised_factor: supplier → factor on its original lead times.
        actual_until, advertised_until: supplier → SKU → the day from which the price is the original one again.
    """

    __slots__ = (
        "_lead",
        "_price",
        "actual_factor",
        "actual_until",
        "advertised_factor",
        "advertised_until",
        "lowest",
        "rise_percent",
        "skus",
        "suppliers",
        "unreliability",
    )

    def __init__(self, level: int, draws: Iterator[float], rise_percent: int) -> None:
        longest_lead = LEVELS[level][2]
        self.skus = sku_ids(level)
        self.suppliers = supplier_ids(level)
        self.rise_percent = rise_percent
        self._price: dict[str, dict[str, int]] = {}
        self._lead: dict[str, dict[str, int]] = {}
        self.unreliability: dict[str, float] = {}
        for supplier in self.suppliers:
            self._price[supplier] = {sku: round(100 * _scale(next(draws), *_PRICE_RANGE)) for sku in self.skus}
            self._lead[supplier] = {sku: integer(next(draws), 1, longest_lead) for sku in self.skus}
            self.unreliability[supplier] = 1.0 - _scale(next(draws), *_RELIABILITY_RANGE)
        self.lowest = {sku: min(prices[sku] for prices in self._price.values()) for sku in self.skus}
        self.actual_factor = dict.fromkeys(self.suppliers, 1.0)
        self.advertised_factor = dict.fromkeys(self.suppliers, 1.0)
        self.actual_until = {supplier: dict.fromkeys(self.skus, 0) for supplier in self.suppliers}
        self.advertised_until = {supplier: dict.fromkeys(self.skus, 0) for supplier in self.suppliers}

    def actual_price(self, supplier: str, sku: str, day: int) -> int:
        return self._price_until(supplier, sku, day, self.actual_until[supplier][sku])

    def advertised_price(self, supplier: str, sku: str, day: int) -> int:
        return self._price_until(supplier, sku, day, self.advertised_until[supplier][sku])

    def _price_until(self, supplier: str, sku: str, day: int, until: int) -> int:
        price = self._price[supplier][sku]
        return price if day >= until else (price * (100 + self.rise_percent) + 50) // 100

    def actual_lead(self, supplier: str, sku: str) -> int:
        return math.ceil(self._lead[supplier][sku] * self.actual_factor[supplier])

    def advertised_lead(self, supplier: str, sku: str) -> int:
        return math.ceil(self._lead[supplier][sku] * self.advertised_factor[supplier])

    def shift_leads(self, supplier: str, factor: float) -> float:
        """Sets the factor on this supplier's original lead times; returns their mean relative change."""
        before = [self.actual_lead(supplier, sku) for sku in self.skus]
        self.actual_factor[supplier] = factor
        after = [self.actual_lead(supplier, sku) for sku in self.skus]
        return sum(abs(new / old - 1) for old, new in zip(before, after, strict=True)) / len(before)

    def raise_prices(self, sku: str, spared: str, day: int, until: int) -> float:
        """Every supplier but ``spared`` sells this SKU dearer from ``day`` to before the day ``until``.

        Returns the share of these suppliers whose price was not raised already.
        """
        others = [self.actual_until[supplier] for supplier in self.suppliers if supplier != spared]
        fresh = sum(until_by_sku[sku] <= day for until_by_sku in others)
        for until_by_sku in others:
            until_by_sku[sku] = until
        return fresh / len(others)

    def advertise_prices(self, sku: str) -> None:
        for supplier in self.suppliers:
            self.advertised_until[supplier][sku] = self.actual_until[supplier][sku]

    def advertise_leads(self, supplier: str) -> None:
        self.advertised_factor[supplier] = self.actual_factor[supplier]


def _scale(u: float, low: float, high: float) -> float:
    return low + u * (high - low)
