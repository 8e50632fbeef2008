"""Looks at an adaptive phase: what counts, what is asked for, and that everybody comes to the same decisions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.analysis.synthetic import summary
from vendomini.adaptive.looks import State, look
from vendomini.api import choose
from vendomini.cli import app
from vendomini.config import Phase, RunSpec, build_phase, count, expand, load_config
from vendomini.config.paths import lookup
from vendomini.config.schema import Replications
from vendomini.errors import ConfigError, UsageError
from vendomini.records import Results, write_record

ADAPTIVE = {"min": 5, "max": 20}
MODELS = ["scripted/reactive", "scripted/fragile"]


def phase_of(replications: object = ADAPTIVE, **grid: list[object]) -> Phase:
    varied = {"agent.model.name": MODELS, "pe_induction.p_shock": [0.0, 0.2, 0.8], **grid}
    tree: dict[str, Any] = {"experiment": {"name": "adaptive", "replications": replications}, "grid": varied}
    return build_phase(tree | {"simulation": {"max_steps": 500}})


def end(results: Results, specs: list[RunSpec], time_of: Callable[[RunSpec], int], ending: str = "") -> None:
    """These runs have ended, at such a step; at step 500 they have survived."""
    for spec in specs:
        at = time_of(spec)
        paths = results.run(spec.run_id)
        paths.folder.mkdir(parents=True, exist_ok=True)
        name = ending or ("survived" if at == 500 else "bankrupt")
        record = summary(spec, name, at, at)
        record.event_observed = name == "bankrupt"
        write_record(paths.summary, record)


def dose(spec: RunSpec) -> float:
    return float(str(lookup(spec.parameters, "pe_induction.p_shock")))


def harmful(spec: RunSpec) -> int:
    """Seeds differ; in the fragile model a high dose costs 190 to 200 steps, and in the other nothing."""
    alone = 260 + 60 * (spec.seed % 5)
    return alone - 190 - 5 * (spec.seed % 3) if spec.model == MODELS[1] and dose(spec) == 0.8 else alone


def the_look(phase: Phase, results: Results) -> State:
    state = look(phase, results)
    assert state is not None
    return state


def verdicts(state: State) -> dict[tuple[str, float], tuple[str | None, int]]:
    return {(path.pair.model, path.pair.dose): (path.verdict, path.blocks) for path in state.paths}


def asked_for(state: State) -> Mapping[tuple[str, float], int]:
    cells: dict[tuple[str, float], int] = {}
    for spec in state.asked:
        cells[spec.model, dose(spec)] = cells.get((spec.model, dose(spec)), 0) + 1
    return cells


def to_the_end(phase: Phase, results: Results, time_of: Callable[[RunSpec], int]) -> State:
    """Runs what is asked for, look by look."""
    for _ in range(20):
        state = the_look(phase, results)
        if not state.open:
            return state
        before = len(state.asked)
        end(results, state.asked, time_of)
        after = the_look(phase, results)
        assert not after.open or len(after.asked) > before
    raise AssertionError("it never ends")


def test_whole_seeds_are_asked_for_until_all_is_decided(tmp_path: Path) -> None:
    phase, results = phase_of(), Results(tmp_path)
    state = the_look(phase, results)
    assert set(asked_for(state).values()) == {5}
    assert state.sentence == "0 of 4 doses are decided; 30 of at most 120 runs asked for"
    state = to_the_end(phase, results, harmful)
    assert verdicts(state) == {
        (MODELS[0], 0.2): ("futile", 15), (MODELS[0], 0.8): ("futile", 15),
        (MODELS[1], 0.2): ("futile", 15), (MODELS[1], 0.8): ("shorter", 10),
    }  # fmt: skip
    assert asked_for(state)[MODELS[1], 0.8] == 10
    assert asked_for(state)[MODELS[1], 0.0] == 15, "what is compared with it goes on"
    assert state.lines()[1] == f"{MODELS[1]}, p_shock 0.2 futile after 15 seeds; 0.8 shorter after 10 seeds"
    value, low, high = state.paths[3].effect
    assert low <= value <= high < 0
    assert value == pytest.approx(-195, abs=3)


def test_only_whole_seeds_in_order_count(tmp_path: Path) -> None:
    phase, results = phase_of(), Results(tmp_path)
    specs = the_look(phase, results).asked
    lacks = [spec for spec in specs if (spec.model, dose(spec), spec.seed) == (MODELS[1], 0.8, 3)]
    end(results, [spec for spec in specs if spec not in lacks], harmful)
    state = the_look(phase, results)
    assert [len(path.differences) for path in state.paths] == [5, 5, 5, 3]
    assert state.lines()[1].endswith("0.8 open, 3 of the 5 seeds before the next look")
    assert asked_for(state) == {(m, d): 5 if (m, d) == (MODELS[1], 0.8) else 10 for m in MODELS for d in (0, 0.2, 0.8)}
    end(results, lacks, lambda _: 7, ending="failed")
    assert [len(path.differences) for path in the_look(phase, results).paths] == [5, 5, 5, 3], "the machine's fault"
    results.run(lacks[0].run_id).summary.write_text("{}")
    assert [len(path.differences) for path in the_look(phase, results).paths] == [5, 5, 5, 3], "damaged"


def test_without_a_dose_a_model_without_its_seed_decides_nothing(tmp_path: Path) -> None:
    phase, results = phase_of(), Results(tmp_path)
    specs = the_look(phase, results).asked
    end(results, [spec for spec in specs if not (spec.model == MODELS[0] and not dose(spec))], harmful)
    assert [len(path.differences) for path in the_look(phase, results).paths] == [0, 0, 5, 5]


def test_decisions_do_not_depend_on_what_came_later_or_from_a_fixed_number(tmp_path: Path) -> None:
    phase, results = phase_of(), Results(tmp_path / "adaptive")
    state = to_the_end(phase, results, harmful)
    fixed, other = phase_of(20), Results(tmp_path / "fixed")
    end(other, list(expand(fixed)), harmful)
    assert verdicts(the_look(phase, other)) == verdicts(state)
    assert [spec.run_id for spec in the_look(phase, other).asked] == [spec.run_id for spec in state.asked]
    assert look(fixed, other) is None


def test_the_other_factors_are_averaged_over_seed_by_seed(tmp_path: Path) -> None:
    """Magnitudes have one cell without a dose, prediction modes one each."""
    both = {"pe_induction.pe_mag": ["low", "high"], "agent.interface.prediction_mode": ["required", "optional"]}
    phase, results = phase_of(**both), Results(tmp_path)
    worth = {"low": 10, "high": 30, "required": 100, "optional": 200}

    def time_of(spec: RunSpec) -> int:
        mode = worth[str(lookup(spec.parameters, "agent.interface.prediction_mode"))]
        magnitude = worth[str(lookup(spec.parameters, "pe_induction.pe_mag"))]
        return mode + spec.seed - (magnitude if dose(spec) else 0)

    assert count(phase) == 2 * (2 + 4 + 4) * 20
    end(results, the_look(phase, results).asked, time_of)
    assert [path.differences.tolist() for path in the_look(phase, results).paths] == [[-20.0] * 5] * 4


def test_a_run_that_was_censored_early_is_compared_up_to_there(tmp_path: Path) -> None:
    phase, results = phase_of(), Results(tmp_path)
    specs = the_look(phase, results).asked
    end(results, specs, lambda spec: 300 if dose(spec) else 400)
    cut = [spec for spec in specs if dose(spec) == 0.8 and spec.seed < 2]
    end(results, cut, lambda spec: (350, 100)[spec.seed], ending="cut_off")
    differences = [path.differences.tolist() for path in the_look(phase, results).paths if path.pair.dose == 0.8]
    assert differences == [[0.0, 0.0, -100.0, -100.0, -100.0]] * 2


def test_a_phase_of_another_seed_and_an_axis_less(tmp_path: Path) -> None:
    phase = load_config(
        "configs/demo.yaml", ["experiment.replications={min: 2, max: 3}", "experiment.seed=7",
                              "agent.model.name=scripted/oracle"],
    )  # fmt: skip
    state = the_look(phase, Results(tmp_path))
    assert {spec.seed for spec in state.asked} == {7, 8}
    assert state.design.looks == (2, 3)


def test_ids_are_those_of_a_fixed_number() -> None:
    adaptive = {spec.run_id for spec in expand(phase_of({"min": 2, "max": 3}))}
    assert adaptive == {spec.run_id for spec in expand(phase_of(3))}


@pytest.mark.parametrize(
    ("replications", "says"),
    [
        (
            "{min: 5, max: 5}",
            "experiment.replications.min (5) must be below max (5): for the same number in every cell,",
        ),
        ("{min: 5}", "experiment.replications.max is missing"),
        ("{min: 5, maxi: 9}", "unknown key experiment.replications.maxi; did you mean max?"),
        ("{min: 1, max: 9}", "experiment.replications.min is 1: must be greater than or equal to 2"),
        ("{min: 5, max: 9, alpha: 0.9}", "experiment.replications.alpha is 0.9: must be less than or equal to 0.2"),
        ("0", "experiment.replications is 0: must be greater than or equal to 1"),
        ("'5'", "experiment.replications is '5': must be a whole number, without quotes"),
    ],
)
def test_config_errors(replications: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("configs/demo.yaml", [f"experiment.replications={replications}"])
    assert says in " ".join(caught.value.lines or [str(caught.value)])


@pytest.mark.parametrize(
    "doses", ["grid.pe_induction.p_shock=[0.1, 0.2]", "pe_induction.p_shock=0", "grid.pe_induction.p_shock=[0]"]
)
def test_there_must_be_something_to_compare(doses: str) -> None:
    with pytest.raises(
        ConfigError, match="list 0 and at least one more in grid.pe_induction.p_shock, or write a plain"
    ):
        load_config("configs/demo.yaml", ["experiment.replications={min: 5, max: 40}", doses])


def test_config_check_says_how_many_there_may_be() -> None:
    asked = ["config", "check", "configs/demo.yaml", "-o", "experiment.replications={min: 5, max: 40}"]
    assert "configs/demo.yaml: at most 480 runs" in CliRunner().invoke(app, asked, catch_exceptions=False).output


def test_a_plain_number_stays_one() -> None:
    assert phase_of(5).config.experiment.most == 5
    assert phase_of().config.experiment.replications == Replications(min=5, max=20, alpha=0.05)


def test_only_chooses_among_what_is_asked_for(tmp_path: Path) -> None:
    phase, results = phase_of(), Results(tmp_path)
    assert len(choose(phase, ["p_shock=0.8"], None, results)) == 10
    with pytest.raises(UsageError, match="no run of"):
        choose(phase, ["seed=19"], None, results)


# ------------------------------------------------------------------------------------------- one machine

QUICK = ["-c", "configs/demo.yaml", "-o", "experiment.replications={min: 2, max: 8}", "-o", "simulation.max_steps=40",
         "-o", "grid.pe_induction.p_shock=[0, 0.8]", "-o", "experiment.name=quick"]  # fmt: skip
"""Nothing happens within 40 steps: pairs stop for futility as soon as that counts, after six of eight seeds."""


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "vendomini", "run", *QUICK, "-r", str(folder), "--json"]


def files(folder: Path) -> dict[str, bytes]:
    """The logs and the decisions."""
    found = [*folder.glob("runs/*/steps.jsonl"), folder / "looks.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed") / "results"
    done = subprocess.run(command(folder), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 of 2 doses are decided (2 futile); 24 of at most 32 runs asked for") == 1
    decided = json.loads((folder / "looks.json").read_text())["pairs"]
    assert [(one["verdict"], len(one["looks"])) for one in decided] == [("futile", 3)] * 2
    return files(folder)


def test_one_machine_stops_where_it_is_decided(undisturbed: dict[str, bytes]) -> None:
    assert len(undisturbed) == 24 + 1


def test_kills_and_two_at_once_change_no_decision(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Of two, each leaves to the other what that is writing; the same command then does what both have left."""
    folder = tmp_path / "results"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for ended in (3, 10):
        with subprocess.Popen(command(folder), **quiet) as process:
            limit = time.monotonic() + 120
            while len(list(folder.glob("runs/*/summary.json"))) < ended and process.poll() is None:
                assert time.monotonic() < limit
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
    both = [subprocess.Popen(command(folder), **quiet) for _ in range(2)]
    for process in both:
        process.wait(timeout=300)
    (folder / "looks.json").write_text("what is in here is for people, and never believed")
    assert subprocess.run(command(folder), capture_output=True, timeout=300).returncode == 0
    assert files(folder) == undisturbed


def test_status_shows_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    some = CliRunner().invoke(app, ["run", *QUICK, "-r", str(folder), "--limit", "3"], catch_exceptions=False)
    assert some.exit_code == 0, some.output
    shown = (
        CliRunner().invoke(app, ["status", "-r", str(folder)], env={"COLUMNS": "200"}, catch_exceptions=False).output
    )
    assert "3 of 8 runs done" in shown
    assert "0 of 2 doses are decided; 8 of at most 32 runs asked for" in shown
    assert "scripted/fragile, p_shock 0.8 open, 0 of the 2 seeds before the next look" in shown
    told = json.loads(CliRunner().invoke(app, ["status", "-r", str(folder), "--json"]).stdout)[0]
    assert [pair["verdict"] for pair in told["looks"]] == [None, None]
