"""The test that may be looked at while seeds come in: published boundaries, few seeds, errors and intervals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy
import pytest

from vendomini.adaptive.sequential import (
    OPEN,
    VERDICTS,
    Design,
    Floats,
    StageWise,
    _flips,
    decide,
    futile_below,
    interval,
    spent,
)

FIVE = Design((40, 80, 120, 160, 200), 0.05, futility=False)
SHIPPED = Design.every(5, 40, 0.05)

# Lan & DeMets' spending function like O'Brien & Fleming's, two-sided 5 %, five equally spaced looks: as R's gsDesign
# (sfLDOF) and Lan & DeMets' own program have it (Reboussin, DeMets, Kim & Lan, Controlled Clinical Trials 21, 2000).
PUBLISHED = [4.877, 3.357, 2.680, 2.290, 2.031]
PUBLISHED_SPENT = [0.00000, 0.00079, 0.00762, 0.02442, 0.05]


def verdict_of(differences: Floats, design: Design = SHIPPED) -> tuple[str, int]:
    found = decide(differences[None], design)
    index = int(found.verdicts[0])
    return "open" if index == OPEN else VERDICTS[index], design.looks[int(found.ends[0])]


def test_a_look_comes_after_each_so_many_seeds() -> None:
    assert Design.every(5, 12, 0.05).looks == (5, 10, 12)
    assert Design.every(5, 10, 0.05).looks == (5, 10)


def test_what_is_spent_is_as_published() -> None:
    assert [spent(k / 5, 0.05) for k in range(1, 6)] == pytest.approx(PUBLISHED_SPENT, abs=5e-5)


def test_boundaries_are_the_published_ones_where_differences_are_normal() -> None:
    """On many seeds. Of 8,192 paths six may cross by the second look, so that boundary is known to a tenth only."""
    values = numpy.random.default_rng(3).normal(size=(24, 200))
    sizes = numpy.sqrt((values**2).cumsum(axis=1)[:, [looks - 1 for looks in FIVE.looks]])
    bounds = decide(values, FIVE).bounds / sizes
    assert numpy.isinf(bounds[:, 0]).all(), "one path in a million may cross"
    assert bounds[:, 1].mean() == pytest.approx(PUBLISHED[1], abs=0.15)
    bounds[numpy.isinf(bounds)] = math.nan  # of those that were found to differ before
    assert numpy.nanmean(bounds[:, 2:], axis=0) == pytest.approx(PUBLISHED[2:], abs=0.06)


def test_conditional_power() -> None:
    """At half of the seeds and a statistic of 0: normal theory by hand."""
    assert futile_below(0.5, 0.05) == pytest.approx(
        (1.95996 - 3.2415 / 2 - 0.38532 * math.sqrt(0.5)) / math.sqrt(0.5), abs=1e-4
    )
    assert futile_below(0.125, 0.05) < -3


def test_one_look_is_the_exact_sign_flip_test() -> None:
    """Against all 4,096 signs of 12 differences, where the p-value is not within chance of 5 %."""
    rng = numpy.random.default_rng(1)
    signs = numpy.array(list(itertools.product([-1, 1], repeat=12)))
    design, told = Design((12,), 0.05), []
    for shift in numpy.linspace(0, 1.2, 40):
        values = numpy.round(rng.normal(shift, 1, 12) * 100)
        exact = (abs(signs @ values) >= abs(values.sum())).mean()
        if abs(exact - 0.05) > 0.01:
            told.append(exact < 0.05)
            assert (verdict_of(values, design)[0] == "longer") == told[-1], exact
    assert 5 < sum(told) < len(told) - 5


def test_the_signs_are_the_same_everywhere() -> None:
    """Decisions of two machines would differ otherwise."""
    signs = _flips(40)
    assert (signs[:, 0] == 1).all()
    assert ["".join("+-"[int(sign < 0)] for sign in row[1:17]) for row in signs[:2]] == SIGNS
    assert abs(signs.mean()) < 0.004
    assert numpy.array_equal(_flips(12), signs[:12]), "whatever the most seeds are"


SIGNS = ["+-++++++-----+-+", "++++++++++--+---"]


@pytest.mark.parametrize(
    ("differences", "verdict", "seeds"),
    [
        ([-400.0] * 5, "open", 5),  # by chance once in 16 phases
        ([-400.0] * 10, "open", 10),
        ([-400.0] * 40, "shorter", 15),
        ([400.0] * 40, "longer", 15),
        ([0.0] * 40, "futile", 25),
        ([0.0] * 39 + [-100], "futile", 25),
        ([-300.0, 200.0] * 20, "futile", 30),
        ([-300.0, 260.0] * 20, "futile", 25),
        ([100.0, 90.0, -20.0] * 14, "longer", 20),
    ],
)
def test_decisions(differences: list[float], verdict: str, seeds: int) -> None:
    assert verdict_of(numpy.array(differences[:40])) == (verdict, seeds)


def test_a_decision_is_not_changed_by_later_seeds() -> None:
    values = numpy.random.default_rng(2).normal(-80, 200, (60, 40))
    whole = decide(values, SHIPPED)
    for seeds in (4, 5, 17, 20, 39):
        part = decide(values[:, :seeds], SHIPPED)
        looks = sum(1 for blocks in SHIPPED.looks if blocks <= seeds)
        decided = part.verdicts != OPEN
        assert numpy.array_equal(part.bounds[:, :looks], whole.bounds[:, :looks]), "all that came before"
        assert numpy.array_equal(part.verdicts[decided], whole.verdicts[decided])
        assert (whole.ends[~decided] >= looks).all()


@pytest.mark.parametrize("heavy", [False, True])
def test_errors_of_the_first_kind(heavy: bool) -> None:
    """Over all looks together, futility ignored: 5 % and chance, also where half of the differences are 0."""
    rng = numpy.random.default_rng(4)
    values = rng.choice([-450, 0, 0, 450], (400, 40)) if heavy else rng.normal(0, 200, (400, 40))
    either = [decide(values.astype(float), design) for design in (SHIPPED, replace(SHIPPED, futility=False))]
    wrong, without_futility = ((one.verdicts <= VERDICTS.index("longer")).mean() for one in either)
    assert 0.017 < without_futility < 0.083
    assert wrong <= without_futility


def test_an_interval_at_the_only_look_is_nearly_students() -> None:
    values = numpy.random.default_rng(5).normal(-50, 100, 40)
    design = Design((40,), 0.05)
    value, low, high = interval(values, design, decide(values[None], design).bounds[0], 0)
    reach = 2.0227 * values.std(ddof=1) / math.sqrt(40)
    assert value == pytest.approx(values.mean(), abs=1)
    assert (low, high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.06 * reach)


def test_intervals_hold_after_stopping() -> None:
    """Where the effect is large, most paths stop early, at a difference that is too large."""
    truth = -70.0
    values = numpy.random.default_rng(6).normal(truth, 120, (120, 40))
    found = decide(values, SHIPPED)
    assert (found.verdicts == 0).mean() > 0.8
    low = high = 0
    for row, bounds, end in zip(values, found.bounds, found.ends, strict=True):
        order = StageWise(row[: SHIPPED.looks[end]], SHIPPED, bounds, int(end))
        low, high = low + (order.below(truth) < 0.025), high + (order.above(truth) < 0.025)
    held = 1 - (low + high) / 120
    assert 0.89 < held <= 0.99


def test_an_interval_agrees_with_its_ends() -> None:
    values = numpy.random.default_rng(7).normal(-120, 120, 40)
    found = decide(values[None], SHIPPED)
    end = int(found.ends[0])
    assert SHIPPED.looks[end] < 40
    seen = values[: SHIPPED.looks[end]]
    value, low, high = interval(seen, SHIPPED, found.bounds[0], end)
    order = StageWise(seen, SHIPPED, found.bounds[0], end)
    assert low < value < high < 0, "it was found to be shorter"
    assert order.above(low) == pytest.approx(0.025, abs=0.002)
    assert order.below(high) == pytest.approx(0.025, abs=0.002)
    assert abs(value) < abs(seen.mean()) + 5


def test_too_few_that_differ_have_no_interval() -> None:
    values = numpy.array([0.0] * 20 + [-100.0] * 5)
    found = decide(values[None], SHIPPED)
    assert all(math.isnan(one) for one in interval(values, SHIPPED, found.bounds[0], int(found.ends[0])))
