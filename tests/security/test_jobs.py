"""Jobs run what their user sent, and their scripts say what was meant."""

from __future__ import annotations

import hashlib
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
from vendomini.cluster.tasks import encoded, read_task, root, task_file, write_tasks
from vendomini.config import load_config
from vendomini.errors import ClusterError, ConfigError, UsageError
from vendomini.records import Manifest, Results, Shard, ShardArray, seal, write_record


def job_command(script: str) -> list[str]:
    """What srun would start."""
    words = shlex.split(script.strip().splitlines()[-1])
    python = next(k for k, word in enumerate(words) if sys.executable in word)
    return words[python + 1 :]


@pytest.fixture
def sent(tmp_path: Path) -> tuple[Submission, list[str]]:
    """A submission as it lies in a folder to which others can write, with a trap for each way in."""
    one = submission(Results(tmp_path / "results"))
    write_tasks(one.results, one.manifest)
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


def change(record: bytes) -> bytes:
    changed = json.loads(record)
    changed["config"]["agent"]["model"]["trust_remote_code"] = True
    del changed["crc"]
    return seal(json.dumps(changed, separators=(",", ":")).encode()) + b"\n"


@pytest.mark.parametrize("older", [False, True])
def test_a_job_runs_only_what_was_sent(sent: Any, tmp_path: Path, older: bool) -> None:
    one, command = sent
    file = one.manifest_file if older else task_file(one.results, one.manifest.id, 0, 0)
    record, *beside = file.read_bytes().splitlines(keepends=True)
    if older:  # the command of a submission of an earlier version
        at = command.index(str(one.manifest_file.parent))
        command[at : at + 2] = [str(file), hashlib.sha256(record).hexdigest()]
    file.write_bytes(change(record) + b"".join(beside))
    done = python(*command, cwd=tmp_path)
    assert (done.returncode, "is not what was submitted" in done.stdout) == (1, True)
    assert not one.results.runs.exists()
    file.write_bytes(record + b"".join(beside))
    assert "2 ended" in python(*command, cwd=tmp_path).stdout


def test_no_job_takes_another_ones_file_or_a_longer_way_to_the_same_digest(tmp_path: Path) -> None:
    here = Results(tmp_path)
    shards = [Shard(model="m", run_ids=[f"run-{n}"], seconds=1, numbers=[n]) for n in range(5)]
    arrays = [ShardArray(job_name="a", gpus=0, shards=shards)]
    sent = Manifest(id="s", name="n", config={}, created_at="", retries=0, arrays=arrays)
    write_tasks(here, sent)
    digest = root(encoded(sent, 0))
    files = [task_file(here, "s", 0, n) for n in range(5)]
    assert [read_task(file, n, digest).shard for n, file in enumerate(files)] == shards
    contents = [file.read_bytes() for file in files]
    for n, file in enumerate(files):
        record, beside = contents[n].split(b"\n")[:2]
        left, _, rest = beside.partition(b" ")
        lies = [
            *(other for m, other in enumerate(contents) if m != n),
            record + b"\n",
            record + b"\n" + rest + b"\n",
            record + b"\n" + beside + b" " + left + b"\n",
            record + b"\n" + b"x" + beside[1:] + b"\n",
            record.replace(b"run-", b"run_") + b"\n" + beside + b"\n",
            b"",
        ]
        for lie in lies:
            file.write_bytes(lie)
            with pytest.raises(ClusterError, match="is not what was submitted"):
                read_task(file, n, digest)
        file.unlink()
        with pytest.raises(ClusterError, match="submit again"):
            read_task(file, n, digest)


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
