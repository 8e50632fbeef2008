"""``vendomini pilot``: what it tries, what it says, and that nothing else counts it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.thinking_model import ANSWER, DRAFT, make_thinking_model
from tests.trained_model import obstacle, trained_model
from vendomini.cli import app
from vendomini.cluster.throughput import PILOTED, known_throughput
from vendomini.config import expand, load_config
from vendomini.config.load import Phase
from vendomini.config.paths import lookup
from vendomini.config.shipped import configs
from vendomini.pilot import doubts, judge, own_models, pilot_of
from vendomini.records import Results

SMALL = ["--steps", "12", "--episodes", "2", "--here"]


def piloted(config: str, folder: Path, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    """What the command says about each model."""
    asked = ["pilot", "-c", config, "-r", str(folder), *SMALL, "--json", *arguments]
    result = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert result.exit_code == code, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def written(folder: Path, **sections: object) -> str:
    """A small phase."""
    file = folder / "phase.yaml"
    file.write_text(json.dumps({"inherit": str(Path("configs/base.yaml").absolute()), **sections}))
    return str(file)


@pytest.mark.parametrize("name", sorted(configs()))
def test_every_shipped_config_has_a_pilot(name: str) -> None:
    phase = load_config(configs()[name])
    small = pilot_of(phase)
    specs = list(expand(small))
    horizon = next(expand(phase)).horizon
    assert {spec.horizon for spec in specs} == {min(30, horizon)}
    doses = {lookup(spec.parameters, phase.world.dose) for spec in specs}
    assert doses == {0, max(lookup(spec.parameters, phase.world.dose) for spec in expand(phase))}
    for model in own_models(phase):
        mine = [spec for spec in specs if spec.model == model]
        assert 8 <= len(mine) <= 60
        agents = [spec.parameters["agent"] for spec in mine]
        assert all(spec.parameters["agent"] in agents for spec in expand(phase) if spec.model == model)


def test_a_phase_that_varies_everything() -> None:
    """Its horizon, too, and its model by what is fixed; the other world's factors at their last value."""
    varied = ["grid.simulation.max_steps=[100, 900]", "grid.pe_induction.pe_mag=[low, high]",
              "grid.agent.interface.memory_tools=[none, full]"]  # fmt: skip
    phase = load_config("configs/base.yaml", [*varied, "fixed.agent.model.name=a/b", "engine.backend=hf"])
    specs = list(expand(pilot_of(phase, steps=40, episodes=3)))
    assert {spec.horizon for spec in specs} == {40}
    assert {spec.model for spec in specs} == {"a/b", "scripted/reactive"}
    assert {lookup(spec.parameters, "pe_induction.pe_mag") for spec in specs} == {"high"}
    assert len([spec for spec in specs if spec.model == "a/b"]) == 2 * 2


def test_a_sound_control_is_ok_and_its_pilot_is_no_part_of_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vendomini.analysis.tables.aggregate import find_results
    from vendomini.config.experiments import folders_of
    from vendomini.errors import ResultsError

    config = str(Path("configs/demo.yaml").absolute())
    monkeypatch.chdir(tmp_path)
    found = piloted(config, Path("results/demo"))
    assert [(one["model"], one["grade"], one["reasons"]) for one in found] == [
        ("scripted/reactive", "ok", []),
        ("scripted/fragile", "ok", []),
    ]
    figures = found[0]["figures"]
    assert (figures["replies"], figures["healthy_calls"], figures["healthy_ok"]) == (4 * 12, 2 * 12, 2 * 12)
    assert (figures["claims"] > 0, figures["error"]) == (True, 0.0), "it foresees what nothing disturbs"
    with pytest.raises(ResultsError, match="nothing was run or submitted"):
        folders_of((), None)
    with pytest.raises(ResultsError, match="holds no runs"):
        find_results([Path("results/demo")])
    before = {path: path.stat().st_mtime_ns for path in Path("results").rglob("*") if path.is_file()}
    assert piloted(config, Path("results/demo")) == found
    assert {path: path.stat().st_mtime_ns for path in Path("results").rglob("*") if path.is_file()} == before


def test_its_words_fit_a_narrow_terminal(tmp_path: Path) -> None:
    asked = ["pilot", "configs/demo.yaml", "-r", str(tmp_path), *SMALL]
    result = CliRunner().invoke(app, asked, env={"COLUMNS": "80"}, catch_exceptions=False)
    shown = result.output[result.output.index("demo: pilot in") :].splitlines()
    assert max(map(len, shown[1:])) <= 80
    assert "ok      scripted/reactive" in shown


def test_a_derailed_control_gets_a_look(tmp_path: Path) -> None:
    """All its replies can be read, but a detector fires where nothing is wrong."""
    looper = ["-o", "grid.agent.model.name=[scripted/looper]", "--steps", "110"]
    (verdict,) = piloted("configs/demo.yaml", tmp_path, *looper)
    assert verdict["grade"] == "look"
    assert verdict["reasons"][0].startswith("detectors fire at p_shock 0, where nothing is wrong: ")
    assert "looping in 2" in verdict["reasons"][0]


def test_a_model_that_can_not_run_is_no(tmp_path: Path) -> None:
    names = ["-o", "grid.agent.model.name=[scripted/reactive, ./nobody]"]
    sound, absent = piloted("configs/demo.yaml", tmp_path, *names, code=1)
    assert (sound["grade"], absent["grade"]) == ("ok", "no")
    assert absent["reasons"][0].startswith("it can't run here: ./nobody is no folder with a config.json")


def test_a_phase_set_otherwise_is_told_so(tmp_path: Path) -> None:
    """A real model's name on a control's runs: only the comparison of settings is looked at."""

    def phase(*overrides: str) -> Phase:
        return load_config("configs/demo.yaml", ["grid.agent.model.name=[scripted/reactive]", *overrides])

    results = Results(tmp_path)
    assert judge(phase(), results)[0].reasons == ["no pilot"]
    piloted("configs/demo.yaml", tmp_path, "-o", "grid.agent.model.name=[scripted/reactive]")
    assert judge(phase(), results)[0].grade == "ok"
    assert judge(phase("simulation.max_steps=77", "pe_induction.p_shock=0.7"), results)[0].grade == "ok"
    (other,) = judge(phase("agent.model.max_tokens=2048", "agent.interface.structured_output=true"), results)
    assert other.grade == "missing"
    assert other.reasons == [
        "piloted on other settings (agent.model.max_tokens: 512, now 2048; "
        "agent.interface.structured_output: False, now True)"
    ]
    (part,) = judge(phase('grid.agent.interface.prediction_mode=["required", "optional"]'), results)
    assert part.grade == "missing"


def test_controls_need_no_pilot_before_submit(tmp_path: Path) -> None:
    phase = load_config("configs/demo.yaml")
    assert doubts(phase, Results(tmp_path), own_models(phase)) == []
    models = load_config("configs/phases/phase1_small_models.yaml")
    found = doubts(models, Results(tmp_path), own_models(models)[:2])
    assert found == [f"{name}: no pilot" for name in own_models(models)[:2]]


def test_a_model_that_thinks_too_long_gets_a_look_at_its_limits(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model = make_thinking_model(tmp_path / "model", ["<think>", DRAFT, "</think>", ANSWER], loop=DRAFT)
    config = written(
        tmp_path,
        experiment={"name": "thinks"},
        engine={"backend": "hf"},
        grid={"pe_induction.p_shock": [0.0, 0.4]},
        fixed={
            "agent.model.name": str(model),
            "agent.model.temperature": 0,
            "agent.model.context_length": 8192,
            "agent.interface.prediction_mode": "optional",
        },
    )
    brief = ["--steps", "1", "--episodes", "1"]
    (verdict,) = piloted(config, tmp_path / "results", *brief)
    assert verdict["grade"] == "look"
    told, _, remedy = verdict["reasons"][0].partition(": ")
    assert told == "100% of its replies were cut off at 512 tokens"
    assert remedy == (
        "raise agent.model.max_tokens, give thoughts agent.model.max_thinking_tokens of their own, or set "
        "agent.model.chat_template_kwargs: {enable_thinking: false}"
    )
    assert verdict["figures"]["thought"] == pytest.approx(verdict["figures"]["tokens"], rel=0.05)
    (verdict,) = piloted(config, tmp_path / "results", *brief, "-o", "agent.model.max_thinking_tokens=20")
    assert (verdict["grade"], verdict["reasons"]) == ("ok", [])
    room = verdict["figures"]["engine"]
    assert room["max_model_len"] == 8192
    assert room["kv_tokens"] >= 8 * 8192, "a tiny model leaves room for many conversations"
    phase = load_config(config, ["agent.model.max_thinking_tokens=20"])
    assert {rate.source for rate in known_throughput(phase, Results(tmp_path / "results")).values()} == {PILOTED}


def test_a_small_trained_model_needs_structured_output(tmp_path: Path) -> None:
    if reason := obstacle():
        pytest.skip(reason)
    model = ["-o", f"agent.model.name={trained_model()}", "--steps", "1", "--episodes", "1"]
    unguided = ["-o", "agent.interface.structured_output=false", "-o", "agent.model.max_tokens=96"]
    (free,) = piloted("configs/demo_model.yaml", tmp_path, *model, *unguided, code=1)
    assert free["grade"] == "no"
    assert "of its replies can't be used" in free["reasons"][0]
    assert free["reasons"][0].endswith("set agent.interface.structured_output: true, or take another model")
    (held,) = piloted("configs/demo_model.yaml", tmp_path, *model)
    assert held["grade"] in ("ok", "look")
