"""The main job: help, what a run prints, a real model, an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli.command import demo, vendomini
from tests.tiny_model import make_tiny_model
from vendomini.cli import COMMANDS
from vendomini.errors import counted
from vendomini.records import Results, RunInfo, RunSummary, read_record, read_steps


class TestHelp:
    def test_lists_every_command(self):
        done = vendomini("--help")
        assert done.returncode == 0
        assert all(name in done.stdout for name in COMMANDS)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_an_example_and_fills_its_lines(self, name):
        words = (name, "--help") if name != "config" else (name, "schema", "--help")
        done = vendomini(*words, COLUMNS="80")
        assert done.returncode == 0, done.stderr
        assert f"vendomini {name}" in done.stdout
        lines = [line.strip() for line in done.stdout.partition("╭")[0].splitlines()]
        early = [a for a, b in pairwise(lines) if a and b and len(f"{a} {b.split()[0]}") <= 78]
        assert not early, "broken before the end of a line"

    def test_help_says_where_results_go(self):
        """What stands in square brackets in a help text is markup, and is not shown."""
        assert "[default: (results/<experiment.name>)]" in vendomini("status", "--help").stdout

    def test_version(self):
        assert vendomini("--version").stdout.startswith("vendomini 0.")

    def test_completion_knows_commands_and_their_options(self):
        def complete(words, position):
            environ = {"_VENDOMINI_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
            code = "from vendomini.cli import app; app(prog_name='vendomini')"
            return subprocess.check_output([sys.executable, "-c", code], env=os.environ | environ, text=True).split()

        assert complete("vendomini su", 1) == ["submit"]
        assert "--dry-run" in complete("vendomini run --d", 2)

    def test_imports_nothing_heavy(self):
        code = (
            "import sys; sys.argv = ['vendomini', '--help']\n"
            "from vendomini.cli import main\ntry: main()\nexcept SystemExit: pass\n"
            "heavy = {'torch', 'numpy', 'pydantic', 'yaml', 'submitit', 'transformers', 'msgspec', 'asyncio'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "[]"


class TestRun:
    def test_prints_a_table_and_where_the_results_are(self, tmp_path):
        done = demo(tmp_path)
        assert done.returncode == 0, done.stderr
        assert "12 runs, 12 to do" in done.stdout
        assert "scripted/fragile" in done.stdout
        assert f"Results are in {tmp_path}" in done.stdout
        again = demo(tmp_path)
        assert "12 already ended, 0 to do" in again.stdout

    def test_dry_run_writes_nothing(self, tmp_path):
        done = demo(tmp_path / "new", "--dry-run")
        assert "12 runs, 0 ended, 12 to do; at most 240 steps" in done.stdout
        assert not (tmp_path / "new").exists()

    def test_dry_run_json_begins_with_the_number_of_runs(self, tmp_path):
        done = vendomini("run", "--config", "configs/phases/phase1_large_models.yaml", "--dry-run", "--json")
        assert done.stdout.splitlines()[1] == '  "runs": 840,'
        assert len(set(json.loads(done.stdout)["run_ids"])) == 840

    def test_dry_run_names_what_ids_do_not_say(self):
        done = vendomini("run", "phase1_small", "--limit", "6", "--dry-run")
        assert done.stdout.splitlines()[-1].endswith("  pe_mag low, prediction_mode optional")

    def test_only_and_limit(self, tmp_path):
        done = demo(tmp_path, "--dry-run", "--json", "--only", "p_shock=0.4", "--limit", "1")
        (run_id,) = json.loads(done.stdout)["run_ids"]
        assert run_id.startswith("reactive-p0.4-s0-")

    def test_json_is_json(self, tmp_path):
        done = demo(tmp_path, "--limit", "2", "--json")
        assert json.loads(done.stdout)["finished"] == 2

    def test_shipped_configs_are_found_from_anywhere(self, tmp_path):
        done = vendomini("run", "-c", "configs/demo.yaml", "--dry-run", "--json", cwd=tmp_path, PYTHONPATH=os.getcwd())
        assert json.loads(done.stdout)["runs"] == 240


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    model = make_tiny_model(folder / "model", context=16384)
    overrides = [f"agent.model.name={model}", "engine=hf", "simulation.max_steps=20", "agent.model.max_tokens=48"]
    arguments = [part for override in overrides for part in ("-o", override)]
    phase = ("run", "--config", "configs/phases/phase1_small_models.yaml", "--only", "seed=0", "--limit", "4")
    return Results(folder / "results"), vendomini(*phase, *arguments, "--results", folder / "results")


class TestRealModel:
    """The main job: a phase config on a Hugging Face model, here a tiny one made on the spot."""

    def test_ends_every_run(self, real_run):
        results, process = real_run
        assert process.returncode == 0, process.stdout + process.stderr
        summaries = [results.summary(run_id) for run_id in results.run_ids()]
        assert len(summaries) == 4
        assert {summary.engine["backend"] for summary in summaries} == {"hf"}
        assert all(summary.finished and summary.completion_tokens > 0 for summary in summaries)

    def test_logs_say_what_was_prompted_and_answered(self, real_run):
        results, _ = real_run
        files = results.run(results.run_ids()[0])
        steps = list(read_steps(files.steps))
        summary = read_record(files.summary, RunSummary)
        assert [record.step for record in steps] == list(range(1, summary.steps + 1))
        assert sum(record.completion_tokens for record in steps) == summary.completion_tokens
        assert all(record.latency_s > 0 for record in steps)
        assert steps[1].prompt_tokens > steps[0].prompt_tokens > 500
        assert "TOOLS" in read_record(files.info, RunInfo).system_prompt

    def test_names_the_attention_of_the_loaded_model(self, real_run):
        _, process = real_run
        assert process.stdout.count("[*] Flash Attention not installed, using sdpa attention (slower)") == 1


def test_the_folder_of_a_wheel_holds_configs_and_templates(tmp_path):
    """Built, unpacked and run without the checkout."""
    import zipfile

    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = vendomini("run", "-c", "configs/demo.yaml", "--dry-run", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert "240 runs" in done.stdout, done.stderr
    code = (
        "import vendomini.config as c; print(c.__file__); print(*sorted(p.name for p in c.shipped('slurm').iterdir()))"
    )
    listed = subprocess.check_output(
        [sys.executable, "-c", code], text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    )
    assert str(tmp_path) in listed
    assert "gpu4.sbatch" in listed


def test_counts_agree_with_their_nouns():
    assert [counted(number, "run") for number in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]
    assert [counted(number, "run is", "runs are") for number in (1, 2)] == ["1 run is", "2 runs are"]
    done = vendomini("run", "-c", "configs/demo.yaml", "--limit", "1", "-o", "simulation.max_steps=1", "--dry-run")
    assert done.stdout.startswith("1 run, 0 ended, 1 to do; at most 1 step\n")
