"""``vendomini report`` and ``vendomini traces`` as a user calls them."""

import json
import os
import re
import signal
import subprocess
import sys
from urllib.request import urlopen

import pytest

from tests.analysis.synthetic import config, write_results
from vendomini.records import Results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("commands")
    write_results(root, config(replications=1, max_steps=20))
    return root


def vendomini(*arguments, **options):
    command = [sys.executable, "-m", "vendomini", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def test_report_says_where_it_is(folder, tmp_path):
    done = vendomini("report", folder, "--out", tmp_path, "--no-figures")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Report: {tmp_path / 'report.html'}\n"
    assert (tmp_path / "runs.csv").exists()


def test_report_for_scripts(folder, tmp_path):
    done = vendomini("report", folder, "--out", tmp_path, "--no-figures", "--json")
    assert json.loads(done.stdout)["report"] == str(tmp_path / "report.html")
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["report", "traces"])
def test_a_folder_without_runs_is_one_sentence(tmp_path, command):
    done = vendomini(command, tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: \S+ holds no runs: give a folder that .*\n", done.stderr)


def test_report_without_its_packages_names_the_command(folder, tmp_path):
    (tmp_path / "lifelines.py").write_text("raise ImportError(name='lifelines')")
    done = vendomini("report", folder, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert 'pip install "vendomini[report]"' in done.stderr


def test_the_trace_page_is_served_until_interrupted(folder):
    # A background shell starts its children deaf to Ctrl-C; a person's shell doesn't.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "vendomini", "traces", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = re.search(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline()).group(0)
    with urlopen(f"{url}api/runs") as answer:
        assert len(json.load(answer)) == 9
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.communicate()


def test_static_export_and_their_mistakes(folder, tmp_path):
    run_id = Results(folder).run_ids()[0]
    done = vendomini("traces", folder, "--run", run_id, "--static", tmp_path / "e.html")
    assert done.returncode == 0, done.stderr
    assert run_id in (tmp_path / "e.html").read_text()
    assert vendomini("traces", folder, "--static", tmp_path / "e.html").returncode == 2
    assert vendomini("traces", folder, "--run", "../x", "--static", tmp_path / "x.html").returncode == 1
    done = vendomini("traces", folder, "--run", run_id, "--export", "jsonl", "--out", tmp_path / "s.jsonl")
    assert json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])["run_id"] == run_id
    done = vendomini("traces", folder, "--model", "scripted/fragile", "--export", "inspect", "--out", tmp_path)
    assert done.stdout.startswith(f"Wrote {tmp_path / 'scripted-fragile_'}")
