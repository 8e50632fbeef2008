"""Inspect AI reads what we export, whatever its length."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from zipfile import ZipFile

import pandas
import pytest
from click.testing import CliRunner
from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries

from tests.analysis.synthetic import PROMPT, config, summary, write_results, write_steps
from vendomini.analysis.tables.dataset import write_dataset
from vendomini.analysis.tables.trackers import send
from vendomini.analysis.traces.export import export_inspect, export_jsonl
from vendomini.cli import load_command
from vendomini.config.grid import expand
from vendomini.config.load import build_phase
from vendomini.errors import ResultsError, UsageError
from vendomini.records import Results, read_steps, write_record


@pytest.fixture
def folder(tmp_path):
    """Three runs of one model × 50 steps, none of which crashes."""
    tree = config(replications=1, max_steps=50, models=["Qwen/Qwen3-32B"])
    write_results(tmp_path / "r", tree, ratio=lambda _: 1e-9)
    return tmp_path / "r"


def chosen(folder):
    return [(Results(folder), run_id) for run_id in Results(folder).run_ids()]


def test_three_runs_of_fifty_steps(folder, tmp_path):
    (path,) = export_inspect(chosen(folder), tmp_path / "logs")
    log = read_eval_log(str(path))
    assert log.status == "success"
    assert log.eval.model == "Qwen/Qwen3-32B"
    assert [sample.id for sample in log.samples] == Results(folder).run_ids()
    assert [len(sample.messages) for sample in log.samples] == [101] * 3
    assert log.samples[0].messages[0].text == PROMPT
    assert log.samples[0].scores["event"].value == 0.0
    assert len(read_eval_log_sample_summaries(str(path))) == 3


def test_usage_explanations_and_failed_calls_are_inspects_own(folder, tmp_path):
    run_id = Results(folder).run_ids()[0]
    paths = Results(folder).run(run_id)
    paths.steps.unlink()
    refused = {"ok": False, "error": {"code": "insufficient_funds", "message": "The order costs more than the budget."}}
    write_steps(paths.steps, 50, result=refused)
    (path,) = export_inspect(chosen(folder), tmp_path / "logs")
    log = read_eval_log(str(path))
    assert log.stats.model_usage["Qwen/Qwen3-32B"].input_tokens == 3 * 50_000
    sample = next(sample for sample in log.samples if sample.id == run_id)
    assert sample.model_usage["Qwen/Qwen3-32B"].output_tokens == 80 * 50
    assert "no event in 50 steps: right-censored there" in sample.scores["event"].explanation
    tools = [event for event in sample.events if event.event == "tool"]
    assert {event.error.message for event in tools} == {"insufficient_funds: The order costs more than the budget."}
    assert all(event.failed for event in tools)
    whole = next(sample for sample in log.samples if sample.id != run_id)
    assert not any(event.error for event in whole.events if event.event == "tool")


def test_a_model_event_carries_only_the_new_turn(folder, tmp_path):
    (path,) = export_inspect(chosen(folder), tmp_path / "logs")
    sample = read_eval_log_sample(str(path), id=Results(folder).run_ids()[0])
    models = [event for event in sample.events if event.event == "model"]
    logged = list(read_steps(Results(folder).run(sample.id).steps))
    assert len(models) == 50
    assert all(len(event.input) == 1 for event in models)
    assert models[7].output.completion == logged[7].completion
    assert models[7].input[0].text.startswith("RESULT {")
    assert models[7].output.usage.input_tokens == 1000
    tools = [event for event in sample.events if event.event == "tool"]
    assert json.loads(tools[7].result) == logged[7].result


def test_five_thousand_steps_grow_in_proportion(folder, tmp_path):
    spec = next(iter(expand(build_phase(config(replications=1, max_steps=50, models=["Qwen/Qwen3-32B"])))))
    paths = Results(folder).run(spec.run_id)
    sizes = {}
    for length in (500, 5000):
        write_steps(paths.steps, length)
        write_record(paths.summary, summary(spec, "survived", length, length))
        (path,) = export_inspect([(Results(folder), spec.run_id)], tmp_path / str(length))
        with ZipFile(path) as log:
            sizes[length] = log.getinfo(f"samples/{spec.run_id}_epoch_1.json").file_size
    assert sizes[5000] < 11 * sizes[500]
    assert len(read_eval_log(str(path)).samples[0].messages) == 10_001


def test_an_agent_that_sent_anything_at_all_is_exported(folder, tmp_path):
    run_id = Results(folder).run_ids()[0]
    paths = Results(folder).run(run_id)
    paths.steps.unlink()
    length = Results(folder).summary(run_id).steps
    sent = {"tool": None, "arguments": ["a", 1], "card": None, "completion": "\x00\u2028</script>"}
    counted = {"finish_reason": "length", "cached_tokens": None, "latency_s": None}
    write_steps(paths.steps, length, parse="unparsable", **sent, **counted)
    (path,) = export_inspect([(Results(folder), run_id)], tmp_path / "logs")
    sample = read_eval_log(str(path)).samples[0]
    tool = next(event for event in sample.events if event.event == "tool")
    assert (tool.function, tool.arguments) == ("unparsable", {"sent": ["a", 1]})
    assert sample.messages[2].text == "\x00\u2028</script>"
    assert next(event for event in sample.events if event.event == "model").output.stop_reason == "max_tokens"


def test_one_log_a_model(tmp_path):
    write_results(tmp_path / "r", config(replications=1, max_steps=9))
    logs = export_inspect(chosen(tmp_path / "r"), tmp_path / "logs")
    assert {read_eval_log(str(path), header_only=True).eval.model for path in logs} == {
        "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-32B", "scripted/fragile (synthetic)",
    }  # fmt: skip


def test_json_lines_are_the_log_without_its_seal(folder, tmp_path):
    lines = export_jsonl(chosen(folder), tmp_path / "steps.jsonl").read_text().splitlines()
    assert len(lines) == 150
    first = json.loads(lines[0])
    assert first["run_id"] == Results(folder).run_ids()[0]
    assert first["completion"] == '{"thought": "Step 1."}'
    assert "crc" not in first


def test_a_run_that_has_not_ended_is_named(folder, tmp_path):
    run_id = Results(folder).run_ids()[0]
    Results(folder).run(run_id).summary.unlink()
    with pytest.raises(ResultsError, match="has not ended yet"):
        export_inspect(chosen(folder), tmp_path / "logs")


def test_a_hugging_face_dataset_with_its_card(tmp_path):
    """Read by the hub's own card parser; both tables join."""
    hub = pytest.importorskip("huggingface_hub")
    write_results(tmp_path / "a", config(name="a.b", replications=2, max_steps=30))
    write_results(tmp_path / "b", config(name="b", replications=1, max_steps=20))
    out = write_dataset([tmp_path / "a", tmp_path / "b"], tmp_path / "set")
    card = hub.DatasetCard.load(out / "README.md")
    assert card.data.pretty_name == "a.b, b"
    assert [entry["config_name"] for entry in card.data.to_dict()["configs"]] == ["runs", "steps"]
    runs, steps = pandas.read_parquet(out / "runs.parquet"), pandas.read_parquet(out / "steps")
    assert len(runs) == 27
    assert f"| {len(steps):,} |" in card.text
    assert "scripted/fragile" in card.text
    joined = steps.merge(runs, on=["folder", "run_id"])
    assert len(joined) == len(steps)
    with pytest.raises(ResultsError, match="name a new folder with --out"):
        write_dataset([tmp_path / "a"], out)


# ---------------------------------------------------------------------------------- experiment trackers


@pytest.fixture
def two_cells(tmp_path):
    """One model, two doses, four runs each; most have an event at the second."""
    tree = config(name="doses", replications=4, max_steps=30, models=["Qwen/Qwen3-32B"], shocks=(0.0, 0.4))
    write_results(tmp_path / "doses", tree, ratio=lambda p: 1e-9 if p["pe_induction"]["p_shock"] == 0 else 500)
    return tmp_path / "doses"


def expected(folder):
    """(last survival, restricted mean) of the second cell, from its runs alone."""
    runs = pandas.read_parquet(folder / "report" / "runs.parquet")
    runs = runs[runs["pe_induction.p_shock"] == 0.4]
    assert (runs["event_observed"] == 1).all()  # so the mean is the restricted mean
    return runs["time_to_crash"].mean()


def test_wandb_gets_a_run_for_each_cell(two_cells, tmp_path, monkeypatch):
    """Offline, by W&B's own client."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    where = send([two_cells], "wandb", "survival")
    wandb.teardown()  # as when Python exits: what is not written yet is written
    assert where == f"{tmp_path}/wandb/offline-run-*"
    runs = sorted((logged(path) for path in tmp_path.glob("wandb/offline-run-*/*.wandb")), key=lambda run: run["name"])
    assert [run["name"] for run in runs] == ["p_shock 0", "p_shock 0.4"]
    assert {(run["project"], run["group"]) for run in runs} == {("survival", "doses")}
    calm, shocked = runs
    assert calm["config"]["pe_induction"]["p_shock"] == 0.0
    assert shocked["config"]["agent"]["model"]["name"] == "Qwen/Qwen3-32B"
    assert calm["history"]["survival"] == dict.fromkeys(range(31), 1.0)
    assert shocked["history"]["survival"][0] == 1.0
    assert shocked["history"]["survival"][max(shocked["history"]["survival"])] == 0.0
    assert shocked["summary"]["rmst"] == pytest.approx(expected(two_cells))
    assert (calm["summary"]["events"], shocked["summary"]["events"]) == (0, 4)
    assert "median" not in calm["summary"]
    assert calm["summary"]["episodes.nrows"] == 4


def logged(path):
    """What the file of an offline run holds."""
    from wandb.proto import wandb_internal_pb2

    run = {"history": {}, "summary": {}}
    for data in blocks(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.HasField("run"):
            run |= {"name": record.run.display_name, "project": record.run.project, "group": record.run.run_group}
            run["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        values = {key_of(item): json.loads(item.value_json) for item in record.history.item}
        for key in values.keys() - {"_step"}:
            run["history"].setdefault(key, {})[values["_step"]] = values[key]
        run["summary"] |= {key_of(item): json.loads(item.value_json) for item in record.summary.update}
    return run


def key_of(item):
    return item.key or ".".join(item.nested_key)


def blocks(data):
    """The records of a file in LevelDB's log format: 32 KiB blocks, each record with checksum, length and type."""
    place, record = 7, b""
    while place + 7 <= len(data):
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768


def test_mlflow_gets_a_run_for_each_cell(two_cells, tmp_path, monkeypatch):
    """In a folder of its own, by MLflow's own client."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    assert send([two_cells], "mlflow").endswith("/store, experiment doses")
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("doses").experiment_id])
    calm, shocked = sorted(runs, key=lambda run: run.info.run_name)
    assert calm.info.run_name == "p_shock 0"
    assert shocked.data.params["pe_induction.p_shock"] == "0.4"
    assert shocked.data.metrics["rmst"] == pytest.approx(expected(two_cells))
    assert shocked.data.metrics["survival"] == 0.0
    history = client.get_metric_history(calm.info.run_id, "survival")
    assert [(one.step, one.value) for one in history] == [(step, 1.0) for step in range(31)]
    assert "episodes.json" in {file.path for file in client.list_artifacts(calm.info.run_id)}


def test_mlflow_without_a_server_says_how_to_name_one(two_cells, tmp_path, monkeypatch):
    """The client alone has no store of its own; the whole package has a database."""
    pytest.importorskip("mlflow")
    if find_spec("sqlalchemy"):
        pytest.skip("SQLAlchemy is installed: MLflow has a database")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ResultsError, match=r"^MLflow refuses: .*; MLFLOW_TRACKING_URI names a server, as in http"):
        send([two_cells], "mlflow")


def test_a_tracker_that_refuses_is_one_sentence(two_cells, tmp_path):
    pytest.importorskip("wandb")
    command = [sys.executable, "-m", "vendomini", "export", str(two_cells), "--to", "wandb"]
    settings = {**os.environ, "WANDB_DIR": str(tmp_path), "WANDB_MODE": "somewhere"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=settings)
    assert done.returncode == 1
    assert re.fullmatch(r"error: W&B refuses: .* mode Input should be 'online', .*\n", done.stderr)


@pytest.mark.parametrize(("options", "said"), [
    (["--to", "wandb", "--out", "x"], "--out is for a dataset"), (["--project", "x"], "add --to wandb or --to mlflow"),
])  # fmt: skip
def test_an_option_of_another_destination_is_refused(tmp_path, options, said):
    done = CliRunner().invoke(load_command("export"), [str(tmp_path), *options])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
