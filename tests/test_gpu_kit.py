"""The kit for a machine with a GPU, tried on this one with a tiny model; nothing is said of how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.attention import read_bytes
from benchmarks.gpu.kit import _apart, main
from benchmarks.gpu.plan import TINY, Plan, loaded_model, write_model


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    parts = [
        word
        for part in (
            "machine",
            "attentions",
            "products",
            "packing",
            "prompts",
            "memory",
            "ours",
            "unrecorded",
            "continuous",
        )
        for word in ("--only", part)
    ]
    assert main(["--device", "cpu", "--tiny", "--out", str(folder), *parts]) == 0
    return folder


def test_every_part_has_its_figures_or_the_reason(out: Path) -> None:
    parts = json.loads((out / "figures.json").read_text())["parts"]
    assert [part for part, found in parts.items() if "failed" in found] == []
    found = parts["attentions"]["by_attention"]
    for name in ("sdpa", "eager"):
        assert [(step["context"], step["kind"]) for step in found[name]["steps"]] == [
            (context, kind) for context in TINY["contexts"] for kind in ("equal", "ragged")
        ]
        assert all(step["ms"] > 0 and step["share"] == step["ideal_ms"] / step["ms"] for step in found[name]["steps"])
    for name in ("flash_attention_2", "flash_attention_3"):
        assert "installed" in found[name]["failed"]
    assert [row["batch"] for row in parts["packing"]["batches"]] == list(TINY["batches"])
    assert parts["ours"]["tokens_s"] > 0
    assert parts["ours"]["cached"] > 0
    assert parts["continuous"]["tokens_s"] > 0


def test_predicted_bytes_are_those_of_the_tensors(out: Path, tmp_path: Path) -> None:
    found = json.loads((out / "figures.json").read_text())["parts"]["memory"]
    assert found["conversation"]["predicted"] == found["conversation"]["measured"]
    assert found["conversations"]["filled"] == TINY["most_rows"]
    plan = Plan("cpu", **TINY)
    loaded = loaded_model(plan, write_model(plan, tmp_path), "sdpa")
    everything = sum(tensor.numel() * 4 for tensor in loaded.model.state_dict().values())
    assert everything == found["weights"]["predicted"]
    assert read_bytes(loaded) == everything - loaded.model.config.vocab_size * TINY["shape"]["hidden"] * 4


def test_a_decode_step_reads_the_live_keys_and_values(out: Path) -> None:
    steps = json.loads((out / "figures.json").read_text())["parts"]["attentions"]["by_attention"]["sdpa"]["steps"]
    shape = TINY["shape"]
    token = 2 * shape["layers"] * shape["kv_heads"] * shape["hidden"] // shape["heads"] * 4
    live = {(step["context"], step["kind"]): step["kv_bytes"] // token for step in steps}
    assert (live[256, "equal"], live[256, "ragged"]) == (2 * 256, 128 + 256)


def test_the_table_says_what_was_measured_and_what_not(out: Path) -> None:
    table = (out / "table.md").read_text()
    assert "`python -m benchmarks.gpu --device cpu --tiny" in table
    assert "| attention | 64 equal | 64 ragged | 128 equal | 128 ragged | 256 equal | 256 ragged |" in table
    assert "| vLLM | not measured: no time was left |  |  |" in table
    widths = {line.count("|") for line in table.splitlines() if line.startswith("| sdpa") or "flash" in line[:8]}
    assert widths == {8}


def test_a_part_has_a_process_of_its_own(tmp_path: Path) -> None:
    """Started as the command is: what cannot be sent to the child fails only there."""
    code = (
        "from benchmarks.gpu import kit; kit._here = kit._apart; import runpy;"
        "runpy.run_module('benchmarks.gpu', run_name='__main__')"
    )
    command = ["--device", "cpu", "--tiny", "--only", "machine", "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, timeout=300)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["parts"]["machine"]["copy_gb_s"] > 0
    assert "Decoding: not measured: no time was left" in (tmp_path / "table.md").read_text()


def test_a_part_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    assert _apart("attentions", Plan("cpu", **TINY), tmp_path, 0.0) == {"failed": "stopped after 0 s"}
