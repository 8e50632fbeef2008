"""The command line as a person meets it: what it prints, its exit codes, and that mistakes get one sentence."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.tiny_model import make_tiny_model
from vendomini.cli import COMMANDS
from vendomini.cluster.tasks import encoded, root, write_tasks
from vendomini.config import load_config
from vendomini.records import (
    Manifest,
    Results,
    RunInfo,
    RunSummary,
    Shard,
    ShardArray,
    StepLog,
    read_record,
    read_steps,
    write_record,
)


def vendomini(*arguments, cwd=None, **environ):
    return subprocess.run(
        [sys.executable, "-m", "vendomini", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "120"} | environ,
        timeout=300,
    )


def demo(folder, *arguments, **environ):
    small = ("-o", "simulation.max_steps=20", "-o", "experiment.replications=1")
    return vendomini("run", "--config", "configs/demo.yaml", "--results", folder, *small, *arguments, **environ)


def fails(done, code=1):
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


class TestHelp:
    def test_lists_every_command(self):
        done = vendomini("--help")
        assert done.returncode == 0
        assert all(name in done.stdout for name in COMMANDS)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_an_example(self, name):
        done = vendomini(name, "--help") if name != "config" else vendomini(name, "schema", "--help")
        assert done.returncode == 0, done.stderr
        assert f"vendomini {name}" in done.stdout

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
        demo(tmp_path, "--limit", "1")
        results = Results(tmp_path)
        (run_id,) = results.run_ids()
        files = results.run(run_id)
        files.summary.unlink()
        damaged = bytearray(files.steps.read_bytes())
        damaged[100] ^= 1
        files.steps.write_bytes(damaged)
        done = demo(tmp_path)
        assert done.returncode == 1
        assert f"{run_id}/steps.jsonl line 1 is damaged" in done.stdout
        assert sum(results.summary(name) is not None for name in results.run_ids()) == 11

    def test_log_of_an_older_schema(self, tmp_path):
        from vendomini.records import seal, unseal

        demo(tmp_path, "--limit", "1")
        files = Results(tmp_path).run(Results(tmp_path).run_ids()[0])
        files.summary.unlink()
        info = json.loads(unseal(files.info.read_bytes().strip())) | {"schema": 0}
        files.info.write_bytes(seal(json.dumps(info).encode()))
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
            "there is no config file configs/demo; did you mean configs/demo.yaml?"
        )

    @pytest.mark.parametrize(
        ("key", "meant"),
        [("p_shok", "pe_induction.p_shock"), ("max_step", "simulation.max_steps"), ("seeds", "seed")],
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
            "1: experiment.replications is null: must be a valid integer",
            "2: simulation.initial_budget is -1: must be greater than or equal to 0",
            "2: unknown key simulation.max_stepz; did you mean max_steps?",
            "3: grid.pe_induction.p_shock is 0.5: the grid wants a list of values (a single value belongs under fixed)",
        ]
        assert "(and 3 more: vendomini config check lists them)" in fails(vendomini("run", bad))

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


class TestPlacesThatFail:
    """A disk, a quota or an output that takes no more is one sentence, and what can go on does."""

    @pytest.fixture
    def small_disk(self, tmp_path):
        """A file system of 200 KiB, and how to make it larger."""
        place = tmp_path / "disk"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("only root may mount a small file system")
        yield place, lambda: subprocess.run(["mount", "-o", "remount,size=50m", place], check=True)
        subprocess.run(["umount", place], check=True)

    def test_a_full_disk_fails_the_runs_that_it_struck_and_they_go_on_when_there_is_room(self, small_disk, tmp_path):
        place, make_room = small_disk
        done = demo(place)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.count("no space left for") == 1
        assert "runs failed; the same command tries them again: vendomini run --config" in done.stdout
        make_room()
        assert demo(place).returncode == 0
        demo(tmp_path / "undisturbed")
        logs = [{file.parent.name: file.read_bytes() for file in folder.glob("runs/*/steps.jsonl")}
                for folder in (place, tmp_path / "undisturbed")]  # fmt: skip
        assert len(logs[0]) == 12
        assert logs[0] == logs[1]

    def test_a_quota_that_is_noticed_when_a_log_is_closed(self, tmp_path):
        """As NFS does it. The library stands between the program and libc, and fails one run's log."""
        compiler = shutil.which("gcc")
        if compiler is None:
            pytest.skip("there is no gcc")
        (tmp_path / "close.c").write_text(FAILING_CLOSE)
        library = tmp_path / "close.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "close.c", "-ldl"], check=True)
        (failing, *_) = json.loads(demo(tmp_path, "--dry-run", "--json").stdout)["run_ids"]
        done = demo(tmp_path, LD_PRELOAD=str(library), FAILING=f"{failing}/steps.jsonl")
        assert (done.returncode, done.stderr) == (1, "")
        assert f"{failing} failed: no space left for" in done.stdout
        assert demo(tmp_path).returncode == 0

    def test_a_file_in_the_place_of_a_run_folder(self, tmp_path):
        first, *_ = json.loads(demo(tmp_path, "--dry-run", "--json").stdout)["run_ids"]
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / first).write_text("mine")
        done = demo(tmp_path)
        assert (done.returncode, done.stderr) == (1, "")
        assert f"there is a file where {tmp_path}/runs/{first} should be a folder: move it away" in done.stdout
        assert sum(Results(tmp_path).summary(name) is not None for name in Results(tmp_path).run_ids()) == 11
        assert (tmp_path / "runs" / first).read_text() == "mine"

    @pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&-"])
    def test_a_closed_output_stops_nothing(self, tmp_path, closed):
        small = f"-c configs/demo.yaml --limit 2 -o simulation.max_steps=5 -r {tmp_path}"
        for command in (f"run {small}", f"run {small} --json", f"status --results {tmp_path}"):
            line = f"exec {sys.executable} -m vendomini {command} {closed}"
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
            assert (done.returncode, done.stdout, "rror" in done.stderr) == (0, "", False)
        assert len(list(tmp_path.glob("runs/*/summary.json"))) == 2

    def test_a_full_output_is_one_sentence_after_the_work(self, tmp_path):
        run = ("run", "-c", "configs/demo.yaml", "--limit", "2", "-o", "simulation.max_steps=5", "-r", str(tmp_path))
        for command in (run, ("status", "--results", str(tmp_path)), ("estimate", "phase1", "--json")):
            with open("/dev/full", "w") as full:
                done = subprocess.run(
                    [sys.executable, "-m", "vendomini", *command], stdout=full, stderr=subprocess.PIPE, text=True
                )
            assert (done.returncode, done.stderr.count("\n")) == (1, 1)
            assert done.stderr == "error: can't write the output (No space left on device): send it somewhere else\n"
        assert len(list(tmp_path.glob("runs/*/summary.json"))) == 2

    def test_an_output_in_latin_1(self, tmp_path):
        command = [sys.executable, "-m", "vendomini", "run", "-c", "configs/demo.yaml", "--limit", "2", "-r", tmp_path]
        short, environ = ["-o", "simulation.max_steps=5"], os.environ | {"PYTHONIOENCODING": "latin-1"}
        done = subprocess.run([*command, *short], capture_output=True, env=environ)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"2 to do ? " in done.stdout


FAILING_CLOSE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int close(int fd) {
  int (*real)(int) = dlsym(RTLD_NEXT, "close");
  char link[64], path[PATH_MAX + 1] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX);
  int result = real(fd);
  if (length > 0 && getenv("FAILING") && strstr(path, getenv("FAILING"))) { errno = EDQUOT; return -1; }
  return result;
}
"""


class TestAnotherVersion:
    """A half-done run goes on under the prompt, version and engine that began it, or not at all."""

    @pytest.fixture
    def half_done(self, tmp_path):
        demo(tmp_path, "--limit", "1")
        results = Results(tmp_path)
        (run_id,) = results.run_ids()
        files = results.run(run_id)
        files.summary.unlink()
        whole = files.steps.read_bytes()
        files.steps.write_bytes(b"".join(whole.splitlines(keepends=True)[:7]))
        return results, run_id, whole

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"system_prompt": "Another."}, "begun under another system prompt: it is left alone"),
            ({"prompt_head": "<s>"}, "another beginning of its prompts: it is"),
            ({"reply_format": "harmony"}, "another reply format (harmony, now "),
            ({"made_with": {}}, "another version (not recorded, now 0."),
            ({"code": "0" * 16}, f"another code ({'0' * 16}, now "),
            ({"engine": "hf"}, "another engine (hf, now scripted)"),
            ({"context length": 512}, "another context length (512, now "),
            ({"chat template": "1" * 16}, "another chat template ("),
        ],
    )
    def test_is_refused_by_name_or_begun_anew(self, half_done, changed, named):
        results, run_id, whole = half_done
        files = results.run(run_id)
        info = results.info(run_id)
        fields = {name: value for name, value in changed.items() if hasattr(info, name)}
        fields.setdefault("made_with", info.made_with | {k: v for k, v in changed.items() if k not in fields})
        write_record(files.info, replace(info, **fields))
        before = files.steps.read_bytes()
        done = demo(results.root, "--limit", "1")
        assert (done.returncode, done.stderr) == (1, "")
        assert f"[WARNING] {run_id} was " in done.stdout
        assert named in done.stdout
        assert "--restart-changed" in done.stdout
        assert files.steps.read_bytes() == before
        done = demo(results.root, "--limit", "1", "--restart-changed")
        assert done.returncode == 0, done.stdout
        assert files.steps.read_bytes() == whole
        assert (files.folder / "steps.1.jsonl").read_bytes() == before
        assert results.summary(run_id).attempt == 2

    @pytest.mark.parametrize("restart", [False, True])
    def test_a_job_does_as_it_was_sent(self, half_done, restart):
        results, run_id, whole = half_done
        info = results.info(run_id)
        write_record(results.run(run_id).info, replace(info, system_prompt="Another."))
        phase = load_config("configs/demo.yaml", ["simulation.max_steps=20", "experiment.replications=1"])
        shards = [ShardArray(job_name="job", gpus=0, shards=[Shard(model="m", run_ids=[run_id], seconds=1)])]
        config = phase.config.model_dump(mode="json")
        manifest = Manifest(
            id="sent", name="demo", config=config, created_at="", retries=0, arrays=shards, restart_changed=restart
        )
        write_tasks(results, manifest)
        command = [results.submissions / "sent", root(encoded(manifest, 0)), "0"]
        done = subprocess.run([sys.executable, "-m", "vendomini.cluster.job", *command], capture_output=True, text=True)
        assert (done.returncode, "another system prompt" in done.stdout) == ((0, False) if restart else (1, True))
        assert (results.run(run_id).steps.read_bytes() == whole) == restart

    def test_goes_on_where_nothing_changed(self, half_done):
        results, run_id, whole = half_done
        assert demo(results.root, "--limit", "1", "--restart-changed").returncode == 0
        assert results.run(run_id).steps.read_bytes() == whole
        assert not (results.run(run_id).folder / "steps.1.jsonl").exists()

    def test_edited_code_is_another_version(self):
        code = (
            "import shutil, sys, tempfile, pathlib, vendomini\n"
            "place = pathlib.Path(tempfile.mkdtemp()) / 'vendomini'\n"
            "shutil.copytree(pathlib.Path(vendomini.__file__).parent, place)\n"
            "sys.argv[1:] and (place / sys.argv[1]).open('a').write('# edited\\n')\n"
            "for name in [name for name in sys.modules if name.startswith('vendomini')]: del sys.modules[name]\n"
            "sys.path.insert(0, str(place.parent))\n"
            "from vendomini.runner.provenance import versions; print(versions()['code'])\n"
            "shutil.rmtree(place.parent)"
        )

        def digest(*edited):
            return subprocess.check_output([sys.executable, "-c", code, *edited], text=True).strip()

        same = digest()
        assert (len(same), digest(), digest("analysis/__init__.py")) == (16, same, same)
        assert same not in (digest("agent/prompt.py"), digest("measures/detectors.py"))


class TestOneFolderOneExperiment:
    """Runs of another horizon or plan are never in the folder of an experiment."""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("trials")
        (folder / "own.yaml").write_text(
            "experiment: {name: own}\nsimulation: {max_steps: 5}\n"
            "grid: {agent.model.name: [scripted/idle, scripted/oracle], pe_induction.p_shock: [0.0, 0.5]}\n"
        )
        assert cls.call(folder, "run", "own.yaml").returncode == 0
        return folder

    @staticmethod
    def call(folder: Path, *words: str, **more) -> subprocess.CompletedProcess[str]:
        return vendomini(*words, cwd=folder, PYTHONPATH=str(Path.cwd()), **more)

    def test_an_override_that_changes_it_has_a_folder_of_its_own(self, place):
        """And the same command resumes there; one that names its folder is refused."""
        short = ("run", "own.yaml", "-o", "simulation.max_steps=3")
        done = self.call(place, *short, "--limit", "1")
        assert "→ results/own@max_steps=3\n[*] the overrides change the experiment" in done.stdout
        assert "1 already ended, 1 to do" in self.call(place, *short, "--limit", "2").stdout
        assert "max_steps is 5 there and 3 here. Name a folder" in fails(
            self.call(place, *short, "--results", "results/own", "--dry-run"), 2
        )
        again = self.call(place, "run", "results/own@max_steps=3", "--limit", "3")
        assert "2 already ended, 1 to do → results/own@max_steps=3" in again.stdout
        assert len(Results(place / "results" / "own").run_ids()) == 4

    def test_an_edited_file_is_not_mixed_in(self, place):
        """As in snakemake, where a changed parameter silently redoes or mixes."""
        (place / "edited.yaml").write_text(
            (place / "own.yaml").read_text().replace("0.0, 0.5", "0.5, 0.7").replace("5}", "9}", 1)
        )
        assert "simulation.max_steps is 5 there and 9 here" in fails(self.call(place, "run", "edited.yaml"), 2)

    def test_a_larger_grid_is_the_same_experiment(self, place):
        more = ("-o", "pe_induction.p_shock=0.7", "-o", "experiment.replications=1", "-o", "engine.max_num_seqs=2")
        done = self.call(place, "run", "own.yaml", *more, "--dry-run")
        assert "results: results/own\n" in done.stdout

    @pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch to get that far")
    def test_a_mistyped_model_leaves_nothing(self, place, tmp_path):
        done = self.call(place, "run", "own.yaml", "-o", "agent.model.name=nobody/nothing", "--results", "none")
        assert "vendomini prefetch nobody/nothing" in fails(done)
        assert not (place / "none").exists()

    def test_forgetting_asks_first(self, place):
        shutil.copytree(place / "results" / "own", place / "results" / "gone")
        done = subprocess.run(
            [sys.executable, "-m", "vendomini", "forget", "gone"], cwd=place, input="n\n", capture_output=True,
            text=True, env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
        assert "1 plan, 4 begun runs, 4 of them ended, its submissions and report" in done.stdout
        assert done.returncode == 1
        assert "2 begun runs" in self.call(place, "forget", "gone", "--only", "p_shock=0.5", "--yes").stdout
        assert len(Results(place / "results" / "gone").run_ids()) == 2
        (place / "results" / "gone" / "notes.txt").write_text("mine")
        assert self.call(place, "forget", "gone", "--yes").returncode == 0
        assert [file.name for file in (place / "results" / "gone").iterdir()] == ["notes.txt"]

    def test_what_is_being_written_is_not_forgotten(self, place):
        results = Results(place / "results" / "own")
        run_id = results.run_ids()[0]
        log = StepLog(results.run(run_id).steps)
        try:
            assert f"{run_id} is being written" in fails(self.call(place, "forget", "own", "--yes"))
        finally:
            log.close()
        assert len(results.run_ids()) == 4
        assert "names 0 plans; here are" in fails(self.call(place, "forget", "own", "--plan", "x"), 2)


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

    root = Path(__file__).parent.parent
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


class TestNames:
    """An experiment has three names: its phase, its YAML file and its results folder. Every command takes each."""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("named")
        (folder / "own.yaml").write_text(
            "experiment: {name: own}\nsimulation: {max_steps: 5}\ngrid: {pe_induction.p_shock: [0.0, 0.5]}\n"
        )
        assert cls.call(folder, "run", "own.yaml").returncode == 0
        return folder

    @staticmethod
    def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return vendomini(*words, cwd=folder, PYTHONPATH=str(Path.cwd()))

    @pytest.mark.parametrize("name", ["own", "own.yaml", "results/own"])
    @pytest.mark.parametrize(
        "command", [("run",), ("run", "--config"), ("status",), ("report", "--no-figures"), ("config", "check")]
    )
    def test_each_command_takes_each_name(self, place, command, name):
        done = self.call(place, *command, name)
        assert (done.returncode, "error" in done.stderr) == (0, False)

    def test_a_shipped_config_needs_no_path(self, place):
        done = self.call(place, "run", "demo", "--limit", "3", "--dry-run")
        assert done.stdout.startswith("3 runs, 0 ended, 3 to do")

    @pytest.mark.parametrize(
        ("command", "wrong", "hint"),
        [
            ("run", "results/onw", "did you mean results/own?"),
            ("report", "onw", "did you mean results/own?"),
            ("status", "dmeo", "did you mean demo?"),
            ("report", "phase1_lagre_models", "did you mean phase1_large_models?"),
        ],
    )
    def test_a_mistyped_name_has_a_suggestion(self, place, command, wrong, hint):
        done = self.call(place, command, wrong)
        assert done.returncode == 1
        assert hint in done.stderr
        assert done.stderr.count("\n") == 1

    def test_a_name_of_two_phases_is_not_guessed(self, place):
        done = self.call(place, "run", "phase1")
        assert done.returncode == 2
        assert "phase1_large_models and phase1_small_models" in done.stderr

    def test_nothing_named_or_two_names_is_usage(self, place):
        for words in [(), ("demo", "--config", "demo")]:
            done = self.call(place, "run", *words)
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
            (("x", "--p-shock", "0,2"), "less than or equal to 1", 1),
            (("x", "--p-shock", "much"), "write numbers between 0 and 1", 2),
            (("a/b", "-m", "scripted/idle"), "can't write a/b.yaml", 1),
        ],
    )
    def test_an_answer_that_can_not_be_leaves_no_file(self, call, tmp_path, words, says, code):
        assert says in fails(call(*words), code)
        assert list(tmp_path.iterdir()) == []

    def test_a_copied_phase_finds_what_it_inherits(self, tmp_path, monkeypatch):
        shutil.copy("configs/phases/phase1_small_models.yaml", tmp_path / "copy.yaml")
        monkeypatch.chdir(tmp_path)
        assert load_config("copy.yaml").config.analysis.primary
