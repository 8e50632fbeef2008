"""Jobs run what their user sent, and their scripts say what was meant."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.described import offers
from tests.security.traps import Bomb, python, submission
from vendomini.cluster.launch import launch, offers_of
from vendomini.cluster.script import scripts
from vendomini.cluster.submit import Request, Submission
from vendomini.config import load_config
from vendomini.errors import ConfigError, UsageError
from vendomini.records import Manifest, Results, read_record, write_record


def job_command(script: str) -> list[str]:
    """What srun would start."""
    words = shlex.split(script.strip().splitlines()[-1])
    python = next(k for k, word in enumerate(words) if sys.executable in word)
    return words[python + 1 :]


@pytest.fixture
def sent(tmp_path: Path) -> tuple[Submission, list[str]]:
    """A submission as it lies in a folder to which others can write, with a trap for each way in."""
    one = submission(Results(tmp_path / "results"))
    one.folder(0).mkdir(parents=True)
    write_record(one.manifest_file, one.manifest)
    return one, job_command(scripts(one)[0])


def test_a_job_unpickles_nothing_and_imports_nothing_from_its_folder(sent: Any, tmp_path: Path, mark: Path) -> None:
    one, command = sent
    for name in ("4711_submitted.pkl", "4711_0_submitted.pkl"):
        (one.folder(0) / name).write_bytes(pickle.dumps(Bomb(mark)))
        os.chmod(one.folder(0) / name, 0o666)
    for module in ("numpy", "msgspec", "submitit", "vendomini"):
        (tmp_path / f"{module}.py").write_text(f"open({str(mark)!r}, 'w')")
    done = python(*command, cwd=tmp_path, SLURM_JOB_ID="4711", SUBMITIT_EXECUTOR="slurm")
    assert "2 ended" in done.stdout, done.stdout + done.stderr
    assert not mark.exists()


def test_a_job_runs_only_the_manifest_that_was_sent(sent: Any, tmp_path: Path) -> None:
    one, command = sent
    changed = read_record(one.manifest_file, Manifest)
    changed.config["agent"]["model"]["trust_remote_code"] = True
    write_record(one.manifest_file, changed)
    done = python(*command, cwd=tmp_path)
    assert (done.returncode, "is not what was submitted" in done.stdout) == (1, True)
    assert not one.results.runs.exists()


NAMES = [
    "$(touch {mark})",
    "`touch {mark}`",
    "; touch {mark} ;",
    "'; touch {mark} #",
    '"; touch {mark} #',
    "| touch {mark}",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_run_by_the_script_it_stands_in(tmp_path: Path, name: str) -> None:
    hostile = name.format(mark="mark")
    here = offers(account=hostile, comment=hostile)
    (script,) = scripts(submission(Results(tmp_path / hostile), here, agent__model__name="scripted/oracle"))
    directives = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert len([line for line in directives if "touch" in line]) == 3, "account, comment and output, a line each"
    quiet = script.replace("\nsrun ", "\necho ")
    subprocess.run(["bash", "-c", quiet], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["a\ntouch mark", "a\r#SBATCH --wrap=x", "a\u2028b", "a\x00b"])
def test_no_name_begins_a_line_of_its_own(tmp_path: Path, name: str) -> None:
    described = tmp_path / "cluster.json"
    row = {"name": name, "default": True, "time_limit": "1:00", "nodes": 1, "gres": "", "state": "up"}
    described.write_text(json.dumps({"capabilities": {"slurm": {"version": "23.02", "partitions": [row]}}}))
    with pytest.raises(UsageError, match="control character"):
        offers_of(None, described, None, {})(0)
    described.write_text(described.read_text().replace(json.dumps(name), '"gpu"'))
    with pytest.raises(UsageError, match="control character"):
        offers_of(None, described, None, {"account": name})(0)
    phase = load_config("configs/demo.yaml")
    with pytest.raises(UsageError, match="control character"):
        launch(phase, Results(tmp_path / name), offers(), Request(), dry_run=True)
    with pytest.raises(UsageError, match="%"):
        launch(phase, Results(tmp_path / "100%j"), offers(), Request(), dry_run=True)
    with pytest.raises(ConfigError, match=r"experiment\.name"):
        load_config("configs/demo.yaml", [f"experiment.name={json.dumps(name)}"])


@pytest.mark.parametrize("name", ["..", "../x", "/tmp/x", "a/b", "-x", "", "a b", "$(x)", "x;y", "x'y", "x" * 101, "é"])
def test_an_experiment_is_named_so_that_it_is_a_plain_folder(name: str) -> None:
    with pytest.raises(ConfigError, match=r"experiment\.name"):
        load_config("configs/demo.yaml", [f"experiment.name={json.dumps(name)}"])
