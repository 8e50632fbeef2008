"""``--gpu-hours``: what fits, and what will be missing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cluster.described import offers
from vendomini.cluster.budget import within
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.submit import Request, Submission, prepare
from vendomini.config import RunSpec, expand, load_config
from vendomini.config.paths import lookup
from vendomini.errors import UsageError
from vendomini.records import Results

DOSE = "pe_induction.p_shock"
CLUSTER = offers("gpu:h100:8")


def submission(
    folder: Path, hours: float | None, config: str = "configs/phases/phase1_small_models.yaml"
) -> Submission:
    phase = load_config(config)
    sizing = Sizing(phase.config.engine, CLUSTER, engines=phase.engines)
    return prepare(phase, list(expand(phase)), Results(folder), Request(gpu_hours=hours), CLUSTER, sizing)


def gpu_hours(sent: Submission) -> float:
    return sum(s.seconds * a.gpus * a.nodes for a in sent.manifest.arrays for s in a.shards) / 3600


def seeds(sent: Submission) -> Counter[int]:
    planned = set(sent.manifest.runs())
    return Counter(spec.seed for spec in expand(load_config("configs/phases/phase1_small_models.yaml"))
                   if spec.run_id in planned)  # fmt: skip


def test_phase_1_in_half_its_hours(tmp_path: Path) -> None:
    whole = submission(tmp_path, None)
    assert (whole.runs, whole.missing) == (630, "")
    half = submission(tmp_path, gpu_hours(whole) / 2)
    assert 0.4 * gpu_hours(whole) < gpu_hours(half) <= 0.5 * gpu_hours(whole)
    found = seeds(half)
    assert [found[0], found[1]] == [126, 126]
    assert 0 < found[2] < 126
    assert found[3] == found[4] == 0
    assert half.missing.startswith(f"{630 - half.runs} of 630 runs will be missing: p_shock ")
    assert half.missing.endswith(" of seed 2 and all of seeds 3 to 4")


def test_the_far_doses_come_first(tmp_path: Path) -> None:
    few = submission(tmp_path, 0.28 * gpu_hours(submission(tmp_path, None)))
    planned = set(few.manifest.runs())
    specs = list(expand(load_config("configs/phases/phase1_small_models.yaml")))
    doses = {lookup(spec.parameters, DOSE) for spec in specs if spec.seed == 1 and spec.run_id in planned}
    assert doses == {0.0, 0.1, 0.9, 1.0}
    assert few.missing.endswith("p_shock 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8 of seed 1 and all of seeds 2 to 4")


def test_all_of_it_fits_or_nothing_does(tmp_path: Path) -> None:
    assert submission(tmp_path, 10_000).missing == ""
    with pytest.raises(UsageError, match="seed 0 at the far ends of p_shock alone take "):
        submission(tmp_path, 0.1)
    assert submission(tmp_path, 0.0, "configs/demo.yaml").runs == 240, "controls need no GPU"


@settings(max_examples=60, deadline=None)
@given(hours=st.integers(1, 140), begun=st.sets(st.integers(0, 119), max_size=60))
def test_blocks_stay_whole(hours: int, begun: set[int]) -> None:
    """Whatever is done already: a seed is begun only when those before it are complete."""
    specs = list(expand(load_config("configs/demo.yaml", ["experiment.replications=10"])))
    left = [spec for place, spec in enumerate(specs) if place not in begun]

    def cost(runs: list[RunSpec]) -> float:
        return float(len(runs))

    try:
        fits = within(hours, left, DOSE, cost)
    except UsageError:
        return
    assert len(fits.runs) <= hours
    chosen = {spec.run_id for spec in fits.runs}
    complete = [all(s.run_id in chosen for s in left if s.seed == seed) for seed in range(10)]
    some = [any(s.run_id in chosen for s in left if s.seed == seed) for seed in range(10)]
    for seed in range(1, 10):
        assert not some[seed] or all(complete[:seed])
    assert bool(fits.missing) is (len(chosen) < len(left))
