"""Results folders become tables: once, in bounded memory, whatever state the runs are in."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from tests.analysis.synthetic import config, summary, write_results, write_steps
from vendomini.analysis.tables import parquet_cache as parts
from vendomini.analysis.tables.aggregate import aggregate, write_steps_csv
from vendomini.analysis.tables.study import open_study, show
from vendomini.config.grid import expand
from vendomini.config.load import build_phase
from vendomini.errors import CorruptRecordError, ResultsError
from vendomini.records import Results, last_steps, read_steps, write_record


@pytest.fixture
def folder(tmp_path):
    write_results(tmp_path / "r", config(replications=2, max_steps=40))
    return tmp_path / "r"


def gather(folder, out=None):
    return aggregate([folder], out or folder / "report", workers=1)


def spec_of(folder, run_id):
    tree = config(replications=2, max_steps=40)
    return next(spec for spec in expand(build_phase(tree)) if spec.run_id == run_id)


def test_every_run_and_every_step_is_in_the_tables(folder):
    made = gather(folder)
    runs, steps = made.runs(), made.steps().to_table().to_pandas()
    assert sorted(runs["run_id"]) == Results(folder).run_ids()
    assert steps.groupby("run_id").size().to_dict() == dict(zip(runs["run_id"], runs["steps"], strict=True))
    first = Results(folder).run_ids()[0]
    logged = list(read_steps(Results(folder).run(first).steps))
    rows = steps[steps["run_id"] == first].sort_values("step")
    assert rows["pe.all.fast"].tolist()[4:] == [record.pe["all"]["fast"] for record in logged[4:]]
    assert rows["pe.all.fast"].isna().tolist()[:5] == [True] * 4 + [False]
    assert rows["shock_types"].tolist()[4] == "temporal"
    assert pd.read_csv(folder / "report" / "runs.csv").shape == runs.shape


def test_missing_errors_are_null_and_never_zero(folder):
    steps = gather(folder).steps().to_table().to_pandas()
    assert steps.loc[steps["step"] <= 4, "pe.all.medium"].isna().all()
    assert steps.loc[steps["resolved"] == 0, "resolved.temporal"].isna().all()


def test_a_finished_run_is_read_once(folder):
    assert gather(folder).read == 18
    for run_id in Results(folder).run_ids():
        Results(folder).run(run_id).steps.unlink()  # reading it again would fail
    again = gather(folder)
    assert (again.read, again.reused) == (0, 18)
    assert again.runs()["status"].eq("finished").all()


def test_new_runs_are_added_to_what_is_there(folder, tmp_path):
    hidden = Results(folder).run_ids()[3]
    os.rename(folder / "runs" / hidden, tmp_path / "elsewhere")
    assert gather(folder).read == 17
    os.rename(tmp_path / "elsewhere", folder / "runs" / hidden)
    again = gather(folder)
    assert (again.read, again.reused) == (1, 17)
    assert again.steps().to_table().to_pandas()["run_id"].nunique() == 18


def test_a_run_that_was_redone_is_read_again(folder):
    gather(folder)
    run_id = Results(folder).run_ids()[0]
    paths = Results(folder).run(run_id)
    paths.steps.unlink()
    write_steps(paths.steps, 7)
    write_record(paths.summary, summary(spec_of(folder, run_id), "bankrupt", 7, 7))
    again = gather(folder)
    assert again.runs().set_index("run_id").loc[run_id, "time_to_crash"] == 7
    steps = again.steps().to_table().to_pandas()
    assert (steps["run_id"] == run_id).sum() == 7
    assert not steps.duplicated(["run_id", "step"]).any()


def test_a_removed_run_leaves_the_tables(folder, tmp_path):
    gather(folder)
    os.rename(folder / "runs" / Results(folder).run_ids()[0], tmp_path / "gone")
    again = gather(folder)
    assert len(again.runs()) == again.steps().to_table().to_pandas()["run_id"].nunique() == 17


def test_failed_runs_are_listed_and_never_analysed(folder):
    run_id = Results(folder).run_ids()[0]
    failed = summary(spec_of(folder, run_id), "failed", None, 3)
    failed.event_observed, failed.reason = None, "the engine died"
    write_record(Results(folder).run(run_id).summary, failed)
    made = gather(folder)
    study = open_study([folder], made)
    assert study.runs.set_index("run_id").loc[run_id, ["status", "reason"]].tolist() == ["failed", "the engine died"]
    assert run_id not in set(study.analysed["run_id"])
    assert run_id not in set(made.steps().to_table().to_pandas()["run_id"])


def test_a_damaged_run_is_named_and_left_out(folder):
    first, second, third = Results(folder).run_ids()[:3]
    log = Results(folder).run(first).steps
    content = bytearray(log.read_bytes())
    content[200] ^= 1
    log.write_bytes(content)
    Results(folder).run(second).summary.write_bytes(b'{"schema":1}')
    Results(folder).run(third).steps.unlink()
    made = gather(folder)
    runs = made.runs().set_index("run_id")
    assert runs.loc[[first, second, third], "status"].tolist() == ["damaged"] * 3
    assert "line 1 is damaged" in runs.loc[first, "reason"]
    assert "is missing although the run has ended" in runs.loc[third, "reason"]
    assert not {first, second, third} & set(open_study([folder], made).analysed["run_id"])


def test_a_log_shorter_than_its_summary_says_is_damage(folder):
    run_id = Results(folder).run_ids()[0]
    log = Results(folder).run(run_id).steps
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))
    assert "holds 3 steps where the summary counts" in gather(folder).runs().set_index("run_id").loc[run_id, "reason"]


def test_a_run_in_progress_is_censored_where_it_is(folder):
    alive, crashed = Results(folder).run_ids()[:2]
    for run_id, onset in ((alive, None), (crashed, 12)):
        paths = Results(folder).run(run_id)
        paths.summary.unlink()
        paths.steps.unlink()
        write_steps(paths.steps, 15, onset, "looping")
        with open(paths.steps, "ab") as file:
            file.write(b'{"step":16,"torn')
    study = open_study([folder], gather(folder))
    rows = study.analysed.set_index("run_id")
    assert rows.loc[alive, ["durations", "event_observed"]].tolist() == [15.0, False]
    assert rows.loc[crashed, ["durations", "event_observed", "outcome"]].tolist() == [12.0, True, "looping"]
    assert (study.count("running"), study.count("finished"), study.pending) == (2, 16, 0)


def test_partial_data_say_how_partial(folder, tmp_path):
    for run_id in Results(folder).run_ids()[:5]:
        os.rename(folder / "runs" / run_id, tmp_path / run_id)
    study = open_study([folder], gather(folder))
    assert (len(study.planned), study.pending, study.count("finished")) == (18, 5, 13)


def test_factors_are_what_the_grid_varies_in_its_order(tmp_path):
    tree = config(replications=1, max_steps=9, shocks=[0.4, 0.0], **{"pe_induction.pe_mag": ["low", "high", "medium"]})
    tree["max_steps_by_level"] = {1: 9, 2: 12}
    tree["grid"]["simulation.complexity_level"] = [1, 2]
    write_results(tmp_path, tree)
    factors = open_study([tmp_path], gather(tmp_path)).factors
    assert [factor.label for factor in factors] == ["model", "p_shock", "pe_mag", "complexity_level"]
    assert [factor.levels for factor in factors[1:]] == [[0.0, 0.4], ["low", "high", "medium"], [1, 2]]


def test_two_folders_make_one_table(folder, tmp_path):
    write_results(tmp_path / "s", config("other", replications=1, max_steps=20))
    made = aggregate([folder, tmp_path / "s"], tmp_path / "out", workers=1)
    assert made.runs()["results"].nunique() == 2
    assert len(made.runs()) == 27
    assert aggregate([tmp_path], tmp_path / "out", workers=1).reused == 27  # a folder of results folders


def test_workers_make_the_same_tables(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_RUNS", 5)
    one = aggregate([folder], tmp_path / "one", workers=1)
    two = aggregate([folder], tmp_path / "two", workers=2)
    assert [p.name for p in one.parts] == [p.name for p in two.parts]
    assert one.steps().to_table().equals(two.steps().to_table())
    assert (tmp_path / "one" / "runs.csv").read_bytes() == (tmp_path / "two" / "runs.csv").read_bytes()
    assert len(one.parts) == 4


def test_a_worker_that_is_killed_is_one_sentence(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_RUNS", 5)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -KILL $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ResultsError, match="was killed, perhaps for lack of memory"):
        aggregate([folder], tmp_path / "out", workers=2)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with 1"):  # a fault of ours, not of the machine
        aggregate([folder], tmp_path / "out", workers=2)


def test_a_plain_script_may_ask_for_a_report(folder, tmp_path, monkeypatch):
    """Workers never run the caller's script again, so it needs no guard."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\n"
        "from vendomini.analysis import aggregate\n"
        "from vendomini.analysis.tables import parquet_cache\n"
        "parquet_cache.PART_RUNS = 5\n"
        "print(aggregate([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]), workers=2).read)\n"
    )
    done = subprocess.run([sys.executable, script, folder, tmp_path / "out"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("18\n", "")


def test_the_steps_as_csv(folder, tmp_path):
    made = gather(folder)
    write_steps_csv(made, tmp_path / "steps.csv")
    assert len(pd.read_csv(tmp_path / "steps.csv")) == made.steps().count_rows()


def test_a_torn_part_is_made_anew(folder):
    made = gather(folder)
    made.parts[0].write_bytes(made.parts[0].read_bytes()[:500])
    assert gather(folder).read == 18


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="holds no runs: give a folder that `vendomini run` wrote"):
        gather(tmp_path)


@pytest.mark.parametrize("count", [1, 3, 200])
def test_the_tail_of_a_log_is_what_reading_all_of_it_gives(tmp_path, count):
    write_steps(tmp_path / "steps.jsonl", 100, thought="x" * 9000)
    steps = list(read_steps(tmp_path / "steps.jsonl"))
    assert last_steps(tmp_path / "steps.jsonl", count) == steps[-count:]
    with open(tmp_path / "steps.jsonl", "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"?")
    with pytest.raises(CorruptRecordError, match="damaged"):
        last_steps(tmp_path / "steps.jsonl", count)


def test_scripted_agents_are_named_as_synthetic():
    assert show("scripted/fragile") == "scripted/fragile (synthetic)"
    assert show("Qwen/Qwen3-32B") == "Qwen/Qwen3-32B"
    assert show(0.30000000000000004) == "0.3"
