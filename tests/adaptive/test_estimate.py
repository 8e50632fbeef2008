"""``vendomini estimate --adaptive``: what would be saved is known before anything is spent."""

from __future__ import annotations

import json

import numpy
import pytest
from typer.testing import CliRunner

from vendomini.adaptive.sequential import Design
from vendomini.adaptive.simulate import Shape, decide_all, expected, make
from vendomini.cli import app
from vendomini.config import load_config

SMALL = "experiment.replications={min: 4, max: 12}"


def test_the_table_and_the_json() -> None:
    told = CliRunner().invoke(app, ["estimate", "demo", "-o", SMALL, "--adaptive", "--json"]).stdout
    (found,) = json.loads(told)["adaptive"]
    by_ratio = {one["ratio"]: one for one in found["by_hazard_ratio"]}
    assert list(by_ratio) == [1, 2, 3, 4, 8]
    assert found["max"] == 12
    assert by_ratio[1]["found"] < 0.1 < by_ratio[4]["found"] < by_ratio[8]["found"]
    assert all(4 <= one["blocks"] <= 12 and 0.3 < one["share"] <= 1 for one in by_ratio.values())
    assert by_ratio[8]["share"] < by_ratio[3]["share"]
    assert by_ratio[8]["gpu_hours"] is None, "scripted controls need none"
    shown = CliRunner().invoke(app, ["estimate", "demo", "-o", SMALL, "--adaptive"], env={"COLUMNS": "120"}).output
    assert all(f"{one['share']:.0%}" in shown for one in by_ratio.values()), "the same numbers every time"


def test_gpu_hours_are_a_share_of_those_of_all_seeds() -> None:
    asked = ["estimate", "phase1_small", "-o", SMALL, "--adaptive", "--json"]
    found = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)
    whole = sum(row["gpu_hours"] for row in found["rows"])
    for one in found["adaptive"][0]["by_hazard_ratio"]:
        assert one["gpu_hours"] == pytest.approx(one["share"] * whole)


def test_a_fixed_number_saves_nothing() -> None:
    result = CliRunner().invoke(app, ["estimate", "demo", "--adaptive"])
    assert result.exit_code
    assert "demo has a fixed number of replications" in str(result.exception)


def test_the_shape_is_that_of_the_grid() -> None:
    phase = load_config("configs/phases/phase1_small_models.yaml", [SMALL])
    assert Shape.of(phase) == Shape(doses=10, cells=4, at_zero=2, horizon=500)
    demo = load_config("configs/demo.yaml", [SMALL])
    assert Shape.of(demo) == Shape(doses=5, cells=1, at_zero=1, horizon=1000)


def test_costs_are_counted_run_by_run() -> None:
    """By hand: dose 0 goes on as long as any dose is open."""
    shape, design = Shape(2, 1, 1, 100), Design.every(5, 20, 0.05)
    made = make(shape, 20, 6.0, 1, numpy.random.default_rng(3))
    found = decide_all(made, design)
    blocks = [design.looks[end] for end in found.ends]
    taken = (
        sum(made.steps[0, dose, : blocks[dose]].sum() for dose in (0, 1)) + made.steps_at_zero[0, : max(blocks)].sum()
    )
    means = expected(made, found, design)
    assert means.share == pytest.approx(taken / (made.steps.sum() + made.steps_at_zero.sum()))
    assert means.blocks == sum(blocks) / 2


def test_half_of_the_runs_without_a_dose_end_in_an_event() -> None:
    made = make(Shape(1, 1, 1, 500), 40, 1.0, 200, numpy.random.default_rng(4))
    assert (made.steps_at_zero < 500).mean() == pytest.approx(0.5, abs=0.03)
