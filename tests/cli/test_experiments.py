"""Experiments: one in a folder, three names for each, and one of your own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import fails, vendomini
from vendomini.config import load_config
from vendomini.records import Results, StepLog


def call_in(folder: Path, *words: str, **more) -> subprocess.CompletedProcess[str]:
    return vendomini(*words, cwd=folder, PYTHONPATH=str(Path.cwd()), **more)


def with_results(folder: Path, grid: str) -> Path:
    """The folder, with an experiment in own.yaml that has run."""
    (folder / "own.yaml").write_text(f"experiment: {{name: own}}\nsimulation: {{max_steps: 5}}\ngrid: {grid}\n")
    assert call_in(folder, "run", "own.yaml").returncode == 0
    return folder


class TestOneFolderOneExperiment:
    """Runs of another horizon or plan are never in the folder of an experiment."""

    @pytest.fixture(scope="class")
    @staticmethod
    def place(tmp_path_factory) -> Path:
        grid = "{agent.model.name: [scripted/idle, scripted/oracle], pe_induction.p_shock: [0.0, 0.5]}"
        return with_results(tmp_path_factory.mktemp("trials"), grid)

    def test_an_override_that_changes_it_has_a_folder_of_its_own(self, place):
        """And the same command resumes there; one that names its folder is refused."""
        short = ("run", "own.yaml", "-o", "simulation.max_steps=3")
        done = call_in(place, *short, "--limit", "1")
        assert "→ results/own@max_steps=3\n[*] the overrides change the experiment" in done.stdout
        assert "1 already ended, 1 to do" in call_in(place, *short, "--limit", "2").stdout
        assert "max_steps is 5 there and 3 here. Name a folder" in fails(
            call_in(place, *short, "--results", "results/own", "--dry-run"), 2
        )
        again = call_in(place, "run", "results/own@max_steps=3", "--limit", "3")
        assert "2 already ended, 1 to do → results/own@max_steps=3" in again.stdout
        assert len(Results(place / "results" / "own").run_ids()) == 4

    @pytest.mark.parametrize("command", ["status", "run", "report"])
    def test_a_folder_inside_or_one_with_only_a_pilot_names_the_right_one(self, place, command):
        run = next(place.glob("results/own/runs/*")).relative_to(place)
        assert fails(call_in(place, command, str(run))).endswith("did you mean results/own?")
        (place / "results/only").mkdir(exist_ok=True)
        for part in ("plans", "runs"):
            (place / "results/only/pilot" / part).mkdir(parents=True, exist_ok=True)
        assert fails(call_in(place, command, "results/only")).endswith("did you mean results/only/pilot?")

    def test_an_edited_file_is_not_mixed_in(self, place):
        """As in snakemake, where a changed parameter silently redoes or mixes."""
        (place / "edited.yaml").write_text(
            (place / "own.yaml").read_text().replace("0.0, 0.5", "0.5, 0.7").replace("5}", "9}", 1)
        )
        assert "simulation.max_steps is 5 there and 9 here" in fails(call_in(place, "run", "edited.yaml"), 2)

    def test_a_larger_grid_is_the_same_experiment(self, place):
        more = ("-o", "pe_induction.p_shock=0.7", "-o", "experiment.replications=1", "-o", "engine.max_num_seqs=2")
        done = call_in(place, "run", "own.yaml", *more, "--dry-run")
        assert "results: results/own\n" in done.stdout

    @pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch to get that far")
    def test_a_mistyped_model_leaves_nothing(self, place, tmp_path):
        done = call_in(place, "run", "own.yaml", "-o", "agent.model.name=nobody/nothing", "--results", "none")
        assert "vendomini prefetch nobody/nothing" in fails(done)
        assert not (place / "none").exists()

    def test_forgetting_asks_first(self, place):
        shutil.copytree(place / "results" / "own", place / "results" / "gone")
        done = subprocess.run(
            [sys.executable, "-m", "vendomini", "forget", "gone"], cwd=place, input="n\n", capture_output=True,
            text=True, env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
        assert "1 plan, 4 runs, 4 of them finished, its submissions and report" in done.stdout
        assert done.returncode == 1
        chosen = call_in(place, "forget", "gone", "--only", "p_shock=0.5", "--yes")
        assert "2 runs, 2 of them finished" in chosen.stdout
        assert len(Results(place / "results" / "gone").run_ids()) == 2
        (place / "results" / "gone" / "notes.txt").write_text("mine")
        assert call_in(place, "forget", "gone", "--yes").returncode == 0
        assert [file.name for file in (place / "results" / "gone").iterdir()] == ["notes.txt"]

    def test_what_is_being_written_is_not_forgotten(self, place):
        results = Results(place / "results" / "own")
        run_id = results.run_ids()[0]
        log = StepLog(results.run(run_id).steps)
        try:
            assert f"{run_id} is being written" in fails(call_in(place, "forget", "own", "--yes"))
        finally:
            log.close()
        assert len(results.run_ids()) == 4
        assert "names 0 plans; here are" in fails(call_in(place, "forget", "own", "--plan", "x"), 2)


class TestNames:
    """An experiment has three names: its phase, its YAML file and its results folder. Every command takes each."""

    @pytest.fixture(scope="class")
    @staticmethod
    def place(tmp_path_factory) -> Path:
        return with_results(tmp_path_factory.mktemp("named"), "{pe_induction.p_shock: [0.0, 0.5]}")

    @pytest.mark.parametrize("name", ["own", "own.yaml", "results/own"])
    @pytest.mark.parametrize(
        "command", [("run",), ("run", "--config"), ("status",), ("report", "--no-figures"), ("config", "check")]
    )
    def test_each_command_takes_each_name(self, place, command, name):
        done = call_in(place, *command, name)
        assert (done.returncode, "error" in done.stderr) == (0, False)

    def test_a_shipped_config_needs_no_path(self, place):
        done = call_in(place, "run", "demo", "--limit", "3", "--dry-run")
        assert done.stdout.startswith("3 runs, 0 ended, 3 to do")

    @pytest.mark.parametrize(
        ("words", "hint"),
        [
            ("run results/onw", "did you mean results/own?"),
            ("report onw", "did you mean results/own?"),
            ("status dmeo", "did you mean demo?"),
            ("report phase1_lagre_models", "did you mean phase1_large_models?"),
        ],
    )
    def test_a_mistyped_name_has_a_suggestion(self, place, words, hint):
        done = call_in(place, *words.split())
        assert hint in fails(done)
        assert done.stderr.count("\n") == 1

    def test_a_name_of_two_phases_is_not_guessed(self, place):
        done = call_in(place, "run", "phase1")
        assert done.returncode == 2
        assert "phase1_large_models and phase1_small_models" in done.stderr

    def test_nothing_named_or_two_names_is_usage(self, place):
        for words in [(), ("demo", "--config", "demo")]:
            done = call_in(place, "run", *words)
            assert done.returncode == 2
            assert "name one config" in done.stderr

    def test_completion_knows_phases_and_results(self, place):
        environ = os.environ | {
            "PYTHONPATH": str(Path.cwd()),
            "_VENDOMINI_COMPLETE": "complete_bash",
            "COMP_WORDS": "vendomini report o",
            "COMP_CWORD": "2",
        }
        command = [Path(sys.executable).with_name("vendomini")]
        done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True)
        assert done.stdout.split() == ["own"]


class TestInit:
    @pytest.fixture
    @staticmethod
    def call(tmp_path):
        return lambda *words: vendomini("init", *words, cwd=tmp_path, PYTHONPATH=str(Path.cwd()))

    def test_a_phase_of_ones_own_is_valid_from_any_folder(self, call, tmp_path, monkeypatch):
        models = ("-m", "Qwen/Qwen3-8B", "-m", "Qwen/Qwen3-32B", "-m", "scripted/oracle")
        done = call("mine", *models, "--p-shock", "0,0.5", "--replications", "2")
        assert "Wrote mine.yaml: 12 runs" in done.stdout
        monkeypatch.chdir(tmp_path)
        phase = load_config("mine.yaml")
        assert phase.axes["pe_induction.p_shock"] == [0.0, 0.5]
        assert sorted(phase.own_settings()) == ["Qwen/Qwen3-32B", "Qwen/Qwen3-8B"]
        assert phase.own_settings()["Qwen/Qwen3-32B"]["agent.model.top_k"] == 20, "the shipped settings"
        assert "there is a file mine.yaml already" in fails(call("mine"), 2)

    @pytest.mark.parametrize(
        ("words", "says", "code"),
        [
            (("x", "--p-shock", "0,2"), "x.yaml was not written: pe_induction.p_shock is 2.0: must be less", 1),
            (("x y",), "x y.yaml was not written: experiment.name is 'x y': must begin with a letter or digit", 1),
            (("x", "-m", "scripted/idel"), "scripted/idel is no control; did you mean scripted/idle?", 1),
            (("x", "--p-shock", "much"), "write numbers between 0 and 1", 2),
            (("a/b", "-m", "scripted/idle"), "can't write a/b.yaml", 1),
        ],
    )
    def test_an_answer_that_can_not_be_leaves_no_file(self, call, tmp_path, words, says, code):
        assert says in fails(call(*words), code)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_s_name_is_the_experiment_s(self, call, tmp_path):
        assert "Wrote own.yaml: 20 runs" in call("own.yaml", "-m", "scripted/idle").stdout
        assert load_config(tmp_path / "own.yaml").name == "own"

    def test_a_copied_phase_finds_what_it_inherits(self, tmp_path, monkeypatch):
        shutil.copy("configs/phases/phase1_small_models.yaml", tmp_path / "copy.yaml")
        monkeypatch.chdir(tmp_path)
        assert load_config("copy.yaml").config.analysis.primary
