"""A user's mistake gets one sentence and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice

import pytest

from tests.cli.command import demo, fails, one_open_run, vendomini


class TestMistakes:
    def test_missing_file(self):
        assert "there is no config file nope.yaml" in fails(vendomini("run", "-c", "nope.yaml"))

    def test_syntax_error(self, tmp_path):
        (tmp_path / "bad.yaml").write_text("grid: [\n")
        assert "bad.yaml:2: not valid YAML" in fails(vendomini("run", "-c", tmp_path / "bad.yaml"))

    def test_section_of_the_original(self, tmp_path):
        (tmp_path / "old.yaml").write_text("env:\n  initial_budget: 100\n")
        assert "old.yaml:1: unknown key env; this is simulation: now" in fails(
            vendomini("run", "-c", tmp_path / "old.yaml")
        )

    def test_value_out_of_range(self, tmp_path):
        assert "less than or equal to 1" in fails(demo(tmp_path, "-o", "pe_induction.p_shock=1.5"))

    def test_unknown_engine(self, tmp_path):
        assert "engine.backend is 'vlm'" in fails(demo(tmp_path, "-o", "engine=vlm"))

    def test_unknown_control(self, tmp_path):
        assert "reactive" in fails(demo(tmp_path, "-o", "agent.model.name=scripted/reactiv"))

    def test_unwritable_results(self):
        assert "choose another folder with --results" in fails(demo("/proc/results"))

    def test_damaged_log_is_named_and_the_rest_goes_on(self, tmp_path):
        results, run_id = one_open_run(tmp_path)
        steps = results.run(run_id).steps
        damaged = bytearray(steps.read_bytes())
        damaged[100] ^= 1
        steps.write_bytes(damaged)
        done = demo(tmp_path)
        assert done.returncode == 1
        assert f"{run_id}/steps.jsonl line 1 is damaged" in done.stdout
        assert sum(results.summary(name) is not None for name in results.run_ids()) == 11

    def test_log_of_an_older_schema(self, tmp_path):
        from vendomini.records import seal, unseal

        results, run_id = one_open_run(tmp_path)
        file = results.run(run_id).info
        info = json.loads(unseal(file.read_bytes().strip())) | {"schema": 0}
        file.write_bytes(seal(json.dumps(info).encode()))
        done = demo(tmp_path, "--limit", "1")
        assert done.returncode == 1
        assert "has schema version 0, this program writes 1" in done.stdout

    def test_model_that_is_not_in_the_cache(self, tmp_path):
        done = demo(tmp_path, "-o", "agent.model.name=nobody/nothing", HF_HOME=str(tmp_path / "hf"))
        assert "vendomini prefetch nobody/nothing" in fails(done)

    def test_cluster_outside_a_job(self):
        assert "vendomini submit configs/demo.yaml" in fails(
            vendomini("run", "-c", "configs/demo.yaml", "--cluster"), 2
        )

    def test_a_file_needs_its_ending(self):
        assert fails(vendomini("run", "-c", "configs/demo")).endswith(
            "there is no config file or results folder configs/demo; did you mean configs/demo.yaml?"
        )

    @pytest.mark.parametrize(
        ("words", "code"),
        [("-o +simulation.max_steps=5", 1), ("-o ++simulation.max_steps=5", 1), ("-o --simulation.max_steps=5", 1),
         ("-o simulation.max_steps:5", 1), ("-o simulation.max_steps = 5", 2), ("-o simulation.max_steps= 5", 2),
         ("--simulation.max_steps=5", 2), ("--simulation.max_steps 5", 2), ("simulation.max_steps=5", 2),
         ("+simulation.max_steps=5", 2)],
    )  # fmt: skip
    def test_a_parameter_set_as_other_tools_do(self, words, code):
        assert "write -o simulation.max_steps=5" in fails(vendomini("run", "demo", *words.split()), code)

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ("run demo -o max_steps=5", "unknown key max_steps; did you mean simulation.max_steps?"),
            ("run demo -o ~simulation.max_steps", "write key=value, for example -o agent.model.temperature=0.2"),
            ("submit phase1 max_steps=5", "run and submit set parameters with -o max_steps=5"),
        ],
    )
    def test_a_parameter_set_half_right(self, words, says):
        assert says in fails(vendomini(*words.split()))

    def test_a_mistyped_option_keeps_its_own_suggestion(self):
        """And a command without parameters names none."""
        assert "--limit" in vendomini("run", "demo", "--limti=4").stderr
        assert "-o" not in vendomini("report", "demo", "--a.b=3").stderr

    @pytest.mark.parametrize(
        ("key", "meant"), [("p_shok", "pe_induction.p_shock"), ("max_step", "simulation.max_steps"), ("seeds", "seed")]
    )
    def test_a_mistyped_key_of_only_has_a_suggestion(self, tmp_path, key, meant):
        assert fails(demo(tmp_path, "--only", f"{key}=0.1"), 2).endswith(f"no such parameter; did you mean {meant}?")

    def test_only_what_the_grid_has_not(self, tmp_path):
        assert "pe_induction.p_shock: 0.0, 0.05, 0.1" in fails(demo(tmp_path, "--only", "p_shock=0.25"), 2)

    def test_all_that_is_wrong_with_a_config(self, tmp_path):
        """YAML's null is called null; other commands say the first line and how many more there are."""
        bad = tmp_path / "bad.yaml"
        bad.write_text(
            "experiment: {name: x, replications: null}\nsimulation: {max_stepz: 5, initial_budget: -1}\n"
            "grid: {pe_induction.p_shock: 0.5, agent.model.name: [scripted/oracle]}\n"
        )
        lines = vendomini("config", "check", bad).stderr.splitlines()
        assert sorted(line.partition("bad.yaml:")[2] for line in lines) == [
            "1: experiment.replications is null: must be a whole number",
            "2: simulation.initial_budget is -1: must be greater than or equal to 0",
            "2: unknown key simulation.max_stepz; did you mean max_steps?",
            "3: grid.pe_induction.p_shock is 0.5: the grid wants a list of values (a single value belongs under fixed)",
        ]
        assert "(and 3 more: vendomini config check lists them)" in fails(vendomini("run", bad))

    def test_mistakes_of_every_kind_at_once(self, tmp_path):
        bad = tmp_path / "bad.yaml"
        bad.write_text(
            "fixed: {simulation.complexity_leve: 3}\n"
            "grid:\n"
            "  agent.model.name: [scripted/reactve, org/a]\n"
            "  pe_induction.p_shok: [0.0]\n"
            "  pe_induction.pe_mag: [low, hig]\n"
            "models: {org/a: {agent.model.temperature: hot}, org/b: {}}\n"
            "analysis: {primary: [{factor: pe_induction.p_shocks}]}\n"
        )
        said = vendomini("config", "check", bad).stderr
        wrong = ("complexity_leve'", "reactve", "p_shok'", "'hig'", "'hot'", "'org/b'", "p_shocks")
        assert [word in said for word in wrong] == [True] * len(wrong), said
        assert len(said.splitlines()) == len(wrong)

    def test_usage(self):
        assert vendomini("run").returncode == 2
        misspelt = vendomini("statsu")
        assert (misspelt.returncode, "Did you mean 'status'?" in misspelt.stderr) == (2, True)

    @pytest.mark.parametrize("arguments", [("estimate", "phase1"), ("run", "-c", "configs/demo.yaml", "--dry-run")])
    def test_a_reader_that_goes_away(self, arguments):
        """As ``| head`` does, before anything could be said."""
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-m", "vendomini", *arguments], stdout=write, stderr=subprocess.PIPE, text=True
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (0, "")

    def test_work_goes_on_without_a_reader(self, tmp_path):
        """And stops when it is told to, though nobody hears it say so."""
        long = ("-c", "configs/demo.yaml", "-o", "simulation.max_steps=100000", "-r", str(tmp_path))
        command = [sys.executable, "-m", "vendomini", "run", *long]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert "240 to do" in running.stdout.readline()
            running.stdout.close()
            while not any(log.stat().st_size for log in tmp_path.glob("runs/*/steps.jsonl")):
                assert running.poll() is None
                time.sleep(0.05)
            (seen,) = json.loads(vendomini("status", "--results", tmp_path, "--json").stdout)
            assert seen["running"] == 1
            running.send_signal(signal.SIGINT)
            assert (running.wait(60), running.stderr.read()) == (130, "")
        (seen,) = json.loads(vendomini("status", "--results", tmp_path, "--json").stdout)
        assert (seen["running"], seen["interrupted"]) == (0, 1)

    def test_ctrl_c_while_python_itself_ends_is_no_traceback(self):
        code = (
            "import atexit, sys, time\n"
            "atexit.register(lambda: (print('ending', flush=True), time.sleep(60)))\n"
            "sys.argv = ['vendomini', '--version']\nfrom vendomini.cli import main; main()"
        )
        command = ["env", "--default-signal=INT", sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ending:
            assert "ending" in list(islice(ending.stdout, 2))[-1]
            ending.send_signal(signal.SIGINT)
            assert (ending.wait(10), ending.stderr.read()) == (-signal.SIGINT, "")

    def test_a_bug_leaves_a_log_and_code_3(self, tmp_path):
        code = (
            "import sys, vendomini.cli.run as m\n"
            "def run() -> None: raise ZeroDivisionError('boom')\n"
            "m.run = run; sys.argv = ['vendomini', 'run']\nfrom vendomini.cli import main; main()"
        )
        environ = os.environ | {"TMPDIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
        assert "this is a bug in vendomini" in fails(done, 3)
        (log,) = tmp_path.glob("vendomini-*.log")
        assert "ZeroDivisionError: boom" in log.read_text()
