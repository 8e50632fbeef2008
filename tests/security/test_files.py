"""Files from elsewhere: configs that would make objects or eat memory, results folders full of links."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.analysis.synthetic import config, write_results
from tests.security.traps import python, submission
from vendomini.analysis.tables.aggregate import aggregate
from vendomini.analysis.traces.episodes import Library
from vendomini.analysis.traces.export import export_inspect, export_jsonl
from vendomini.cluster.ledger import exclusively, jobs_of
from vendomini.config import load_config
from vendomini.config.grid import expand
from vendomini.config.source import MAX_BYTES
from vendomini.errors import ConfigError, ResultsError
from vendomini.records import Results, StepLog, read_record, write_record

MODEL = "agent: {model: {chat_template_kwargs: %s}}"

CONFIGS = {
    "object": ("x: !!python/object/apply:os.system ['touch {mark}']", "has no tags"),
    "object at the top": ("!!python/object/apply:os.system ['touch {mark}']", "has no tags"),
    "name": ("x: !!python/name:os.system", "has no tags"),
    "standard tag": (MODEL % "{a: !!binary /w==}", "has no tags"),
    "laughs": ("a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)),
        "entries, aliases expanded"),
    "alias of itself": (MODEL % "&a {a: *a}", "deep"),
    "size": ("# " + "x" * MAX_BYTES, "larger than 1 MiB"),
    "depth": (MODEL % ("{a: " * 100 + "1" + "}" * 100), "deep"),
    "depth of thousands": ("x: " + "[" * 5000, "deep"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_makes_nothing_but_values(tmp_path: Path, mark: Path, name: str) -> None:
    text, sentence = CONFIGS[name]
    (tmp_path / "phase.yaml").write_text(text.replace("{mark}", str(mark)))
    with pytest.raises(ConfigError, match=sentence):
        load_config(tmp_path / "phase.yaml")
    assert not mark.exists()


@pytest.mark.parametrize(
    "override",
    [
        "agent.model.chat_template_kwargs={a: !!python/name:os.system ''}",
        "agent.model.chat_template_kwargs={a: &a [*a]}",
        f"agent.model.chat_template_kwargs.{'a.' * 5000}a=1",
        "=".join(CONFIGS["laughs"][0].replace("\n", ",").split("=", 1)).join(["seed={", "}"]),
    ],
)
def test_an_override_makes_nothing_but_values(override: str) -> None:
    with pytest.raises(ConfigError):
        load_config("configs/demo.yaml", [override])


# ---------------------------------------------------------------------------------- paths, links and pipes


TRAPS = {
    "private": lambda file: file.symlink_to(file.parents[3] / "private"),
    "endless": lambda file: file.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "socket": lambda file: socket.socket(socket.AF_UNIX).bind(os.path.relpath(file)),
    "folder": os.mkdir,
}


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """A results folder from a colleague: some files are not what they seem."""
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    results = Results(tmp_path / "foreign")
    ids = write_results(results.root, config(replications=1, max_steps=8))
    (tmp_path / "private").write_bytes(results.run(ids[-1]).summary.read_bytes())
    for run_id, trap in zip(ids, TRAPS.values(), strict=False):
        paths = results.run(run_id)
        for file in (paths.summary, paths.info, paths.steps):
            file.unlink()
            trap(file)
    return results


def test_what_is_no_plain_file_is_not_read(foreign: Results, tmp_path: Path) -> None:
    tables = aggregate([foreign.root], tmp_path / "out", workers=1)
    rows = tables.runs().set_index("run_id")
    ids = list(rows.index)
    damaged = [run_id for run_id in ids if rows["status"][run_id] == "damaged"]
    assert len(damaged) == len(TRAPS)
    assert rows["reason"][damaged].str.contains("is a link, a folder or a device").all()
    library = Library([foreign.root])
    for run_id in damaged:
        assert library.runs()[ids.index(run_id)]["ending"] == "damaged"
        with pytest.raises(ResultsError):
            export_jsonl([(foreign, run_id)], tmp_path / "steps.jsonl")
        with pytest.raises(ResultsError):
            export_inspect([(foreign, run_id)], tmp_path / "logs")
        with pytest.raises(ResultsError, match="link, a folder or a device"):
            library.episode(0, run_id)


def test_no_link_is_written_through(tmp_path: Path) -> None:
    """A one-line file without a line end, such as a token, would pass for a torn step log, and be cut to nothing."""
    token, host = tmp_path / "token", os.uname().nodename
    token.write_text("hf_secret")
    results = Results(tmp_path / "results")
    ids = write_results(results.root, config(replications=1, max_steps=8))
    paths = results.run(ids[0])
    paths.steps.unlink()
    (results.submissions).mkdir()
    out = results.root / "report"
    (out / "figures").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for link in (paths.steps, paths.folder / f".summary.json.{host}.{os.getpid()}.tmp", results.submissions / ".lock",
                 out / "runs.csv", out / "steps.csv", tmp_path / "steps.jsonl"):  # fmt: skip
        link.symlink_to(token)
    (out / "steps").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResultsError):
        StepLog(paths.steps)
    paths.steps.unlink()
    paths.steps.symlink_to(tmp_path / "made")
    with pytest.raises(ResultsError):
        StepLog(paths.steps)
    assert not (tmp_path / "made").exists()
    with pytest.raises(ResultsError):
        write_record(paths.summary, read_record(paths.summary, type(results.summary(ids[1]))))
    with pytest.raises(ResultsError), exclusively(results):
        pass
    with pytest.raises(ResultsError, match="choose another folder"):
        aggregate([results.root], out, workers=1)
    (out / "steps").unlink()
    aggregate([results.root], out, workers=1)
    assert token.read_text() == "hf_secret"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_no_run_is_written_elsewhere(tmp_path: Path) -> None:
    results, phase = Results(tmp_path / "results"), load_config("configs/demo.yaml", ["simulation.max_steps=3"])
    results.create()
    (tmp_path / "elsewhere").mkdir()
    results.run(next(expand(phase)).run_id).folder.symlink_to(tmp_path / "elsewhere")
    arguments = ("-c", phase.path.absolute(), "-o", "simulation.max_steps=3", "--limit", "1", "-r", results.root)
    done = python("-m", "vendomini", "run", *arguments, cwd=tmp_path)
    assert (done.returncode, "can't write" in done.stdout) == (1, True), done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("run_id", ["../../private", "..", "/etc", "a/../b"])
def test_no_record_leads_out_of_its_folder(tmp_path: Path, run_id: str) -> None:
    results = Results(tmp_path / "results")
    (real, *_) = write_results(results.root, config(replications=1, max_steps=8))
    summary = results.summary(real)
    summary.run_id = run_id
    write_record(results.run(real).summary, summary)
    with pytest.raises(ResultsError):
        export_inspect([(results, real)], tmp_path / "logs")
    one = submission(results)
    one.folder(0).mkdir(parents=True)
    (tmp_path / "private").write_text("secret")
    (one.folder(0) / "1_0_0_log.out").symlink_to(tmp_path / "private")
    (job, *_) = jobs_of(results, [one.manifest], [])
    assert job.log() is None
    one.manifest.id, file = run_id, one.manifest_file
    write_record(file, one.manifest)
    with pytest.raises(ResultsError, match="move its folder away"):
        results.manifests()
