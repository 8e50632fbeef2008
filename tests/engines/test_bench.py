"""The benchmark command on a small random architecture; nothing is said of how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines.conftest import machine, wait
from vendomini.bench import Setting, bench, copy_bandwidth, write_random_model
from vendomini.cli.bench import bench as command
from vendomini.config.schema import Model
from vendomini.errors import UsageError

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 1024,
    "dtype": "float32",
}


@pytest.fixture
def random_model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return write_random_model(tmp_path / "config.json", tmp_path / "model")


def test_every_engine_has_a_row_measured_or_with_its_reason(random_model: Path) -> None:
    setting = Setting(batch=3, prompt_tokens=16, new_tokens=8)
    model = Model(name=str(random_model), context_length=512, max_tokens=64)
    report = wait(bench(model, setting, machine(), [].append))
    rows = {row.engine: row for row in report.rows}
    for name in ("Transformers, eager", "Transformers, sdpa"):
        assert rows[name].single > 0
        assert rows[name].batched > 0
    assert rows["Transformers, flash_attention_2"].reason == "no GPU here (not installed)"
    assert rows["vLLM"].reason == 'vLLM is not installed: pip install "vendomini[vllm]"'
    assert report.roofline == pytest.approx(report.bandwidth / report.weight_bytes)
    assert '| vLLM | – | not measured: vLLM is not installed: pip install "vendomini[vllm]" | |' in report.markdown()


def test_the_table_shows_the_fraction_of_the_roofline(random_model: Path) -> None:
    setting = Setting(batch=2, prompt_tokens=16, new_tokens=8)
    report = wait(bench(Model(name=str(random_model), context_length=512, max_tokens=64), setting, machine(), print))
    row = report.rows[1]
    assert f"{row.single:.1f} ({row.single / report.roofline:.0%})" in report.markdown()
    assert report.as_json()["roofline"] == report.roofline


def test_a_copy_has_a_bandwidth() -> None:
    assert copy_bandwidth() > 1e8


def test_random_weights_need_a_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--random-weights needs the config\.json"):
        write_random_model(tmp_path / "nothing.json", tmp_path / "model")


@pytest.mark.parametrize("given", [{}, {"model": "a/b", "random_weights": Path("c")}])
def test_one_of_model_and_random_weights_is_needed(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="name a model with --model"):
        command(**given)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_a_table_or_json(
    random_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    monkeypatch.setenv("VENDOMINI_USE_VLLM", "0")
    command(model=str(random_model), batch=2, prompt_tokens=8, new_tokens=8, as_json=as_json)
    shown = capsys.readouterr().out
    rows = json.loads(shown)["rows"] if as_json else shown
    assert len(rows) == 5 if as_json else "| vLLM | – | not measured: VENDOMINI_USE_VLLM=0 forbids it | |" in rows


def test_an_engine_that_fails_is_a_row_with_its_reason(random_model: Path) -> None:
    (random_model / "model.safetensors").write_bytes(b"no tensors")
    (random_model / "model.safetensors.index.json").write_text(
        '{"metadata": {"total_size": 9}, "weight_map": {"a": "b"}}'
    )
    model = Model(name=str(random_model), context_length=512, max_tokens=64)
    rows = wait(bench(model, Setting(2, 8, 8), machine(), [].append)).rows
    assert "can't load" in rows[0].reason


def test_a_wrong_dtype_is_a_usage_error(tiny: Path) -> None:
    with pytest.raises(UsageError, match="--dtype"):
        command(model=str(tiny), dtype="int4")
