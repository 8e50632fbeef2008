"""Runs → jobs, without a cluster."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendomini.cluster.plan import MARGIN, Group, Item, Limits, Pace, Shape, arrays, cut, group_runs
from vendomini.config import expand, load_config
from vendomini.config.schema import Model
from vendomini.errors import UsageError

PACE = Pace(load_s=300, step_s=0.36, concurrency=64, source="")
SINGLE = Pace(load_s=300, step_s=0.36, concurrency=1, source="")
DAY = dict.fromkeys(map(Shape, (0, 1, 2, 4, 8)), 86400.0)


def _group(runs: int, steps: int = 500, name: str = "m", gpus: int = 1, pace: Pace = PACE) -> Group:
    return Group(Model(name=name), Shape(gpus), pace, tuple(Item(f"{name}-{n}", steps) for n in range(runs)))


def test_a_short_job_loads_its_model_once() -> None:
    assert len(cut([_group(50)], Limits(DAY))) == 1


def test_jobs_are_long_enough_for_loading_to_cost_next_to_nothing() -> None:
    shards = [shard for _, shard in cut([_group(8800, pace=SINGLE)], Limits(DAY))]
    work = sum(shard.seconds for shard in shards)
    assert len(shards) > 100
    assert 0.02 < len(shards) * SINGLE.load_s / work < 0.04


def test_no_job_is_longer_than_its_time_limit() -> None:
    shards = cut([_group(10_560, pace=SINGLE)], Limits({Shape(1): 3600.0}))
    assert max(shard.seconds for _, shard in shards) <= 3600 * MARGIN


def test_no_job_runs_its_engine_half_empty() -> None:
    """It will stop, requeue itself and resume."""
    shards = cut([_group(260)], Limits({Shape(1): 600.0}))
    assert [len(shard.run_ids) for _, shard in shards] == [130, 130]


def test_runs_per_job_and_max_jobs() -> None:
    groups = [_group(220, name="a"), _group(220, name="b")]
    assert len(cut(groups, Limits(DAY, runs_per_job=3))) == 2 * 74
    for most in (2, 3, 7):
        limited = cut(groups, Limits(DAY, runs_per_job=1, max_jobs=most))
        assert len(limited) <= most
        assert {shard.model for _, shard in limited} == {"a", "b"}
    with pytest.raises(UsageError, match="2 models"):
        cut(groups, Limits(DAY, max_jobs=1))


def test_long_and_short_runs_are_dealt_evenly_and_long_ones_start_first() -> None:
    items = tuple(Item(f"r{n}", steps) for n, steps in enumerate([500] * 10 + [2500] * 10))
    shards = cut([Group(Model(name="m"), Shape(1), PACE, items)], Limits(DAY, runs_per_job=5))
    assert len({shard.seconds for _, shard in shards}) <= 2
    steps = {item.run_id: item.steps for item in items}
    for _, shard in shards:
        order = [steps[run_id] for run_id in shard.run_ids]
        assert order == sorted(order, reverse=True)


@given(
    runs=st.lists(st.integers(1, 400), min_size=1, max_size=5),
    usable=st.floats(60, 1e6),
    per_job=st.none() | st.integers(1, 50),
    most=st.none() | st.integers(5, 300),
    size=st.integers(1, 1001),
)
@settings(max_examples=200, deadline=None)
def test_every_run_is_in_exactly_one_shard(
    runs: list[int], usable: float, per_job: int | None, most: int | None, size: int
) -> None:
    groups = [_group(count, name=f"m{n}", gpus=2**n) for n, count in enumerate(runs)]
    shards = cut(groups, Limits({Shape(2**n): usable for n in range(5)}, per_job, most))
    assert Counter(i for _, shard in shards for i in shard.run_ids) == Counter(
        i.run_id for g in groups for i in g.items
    )
    assert all(shard.run_ids for _, shard in shards)
    assert most is None or len(shards) <= most
    cut_up = arrays(shards, size)
    assert all(len(some) <= size for _, some in cut_up)
    flat = [(gpus, id(shard)) for gpus, some in cut_up for shard in some]
    assert sorted(flat) == sorted((gpus, id(shard)) for gpus, shard in shards)


def test_runs_of_one_load_share_a_group() -> None:
    phase = load_config("configs/phases/phase1_large_models.yaml")
    groups = group_runs(expand(phase), lambda model: Shape(4), lambda model, shape, horizon: PACE)
    assert [len(group.items) for group in groups] == [210] * 4
    sampled = load_config("configs/phases/phase1_large_models.yaml", ["grid.agent.model.temperature=[0.0, 0.7]"])
    assert len(group_runs(expand(sampled), lambda model: Shape(4), lambda model, shape, horizon: PACE)) == 4


def test_a_hundred_thousand_runs() -> None:
    shards = cut([_group(25_000, name=f"m{n}") for n in range(4)], Limits(DAY, runs_per_job=10))
    cut_up = arrays(shards, 1001)
    assert [len(some) for _, some in cut_up] == [1001] * 9 + [991]
    assert len({run_id for _, some in cut_up for shard in some for run_id in shard.run_ids}) == 100_000


def test_array_indices_stay_below_the_limit() -> None:
    shards = cut([_group(25, name="a", gpus=1), _group(7, name="b", gpus=1)], Limits(DAY, runs_per_job=1))
    sizes = [len(some) for _, some in arrays(shards, 10)]
    assert sizes == [10, 10, 10, 2]
    assert list(itertools.chain.from_iterable(some for _, some in arrays(shards, 10))) == [shard for _, shard in shards]
