"""``vendomini prefetch``, from a hub on this machine into a cache of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.hub import Hub

pytest.importorskip("huggingface_hub")

INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
WHOLE = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors.index.json": INDEX,
    "model-1.safetensors": b"1" * 100,
    "model-2.safetensors": b"2" * 100,
    "pytorch_model.bin": b"the same again",
}


def _prefetch(cache: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "vendomini", "prefetch", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_downloads_what_a_compute_node_needs_and_no_more(tmp_path: Path) -> None:
    with Hub({"lab/whole": WHOLE}) as hub:
        before = _prefetch(tmp_path, hub.url, "lab/whole", "--check")
        assert before.returncode == 1
        assert "lab/whole is not in the Hugging Face cache" in before.stdout
        done = _prefetch(tmp_path, hub.url, "lab/whole", "--json")
        assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)
    assert sorted(file.name for file in Path(outcome["folder"]).iterdir()) == sorted(set(WHOLE) - {"pytorch_model.bin"})
    offline = _prefetch(tmp_path, "http://127.0.0.1:1", "lab/whole")
    assert (offline.returncode, "complete in" in offline.stdout) == (0, True), "it asked the hub again"
    (Path(outcome["folder"]) / "model-2.safetensors").unlink()
    torn = _prefetch(tmp_path, "http://127.0.0.1:1", "lab/whole", "--check")
    assert "it lacks model-2.safetensors: vendomini prefetch lab/whole" in torn.stdout


def test_one_model_that_can_not_be_had_does_not_keep_the_others(tmp_path: Path) -> None:
    with Hub({"lab/whole": WHOLE}, gated="lab/gated") as hub:
        done = _prefetch(tmp_path, hub.url, "lab/none", "lab/gated", "lab/whole")
    assert done.returncode == 1
    assert "there is no model lab/none on the Hub" in done.stdout
    assert "lab/gated is gated or private: accept its licence" in done.stdout
    assert "lab/whole: complete in" in done.stdout
    assert "Traceback" not in done.stderr


def test_without_internet(tmp_path: Path) -> None:
    done = _prefetch(tmp_path, "http://127.0.0.1:1", "lab/whole")
    assert done.returncode == 1
    assert "lab/whole could not be downloaded" in done.stdout
    assert "on the login node" in done.stdout


def test_the_models_of_a_phase(tmp_path: Path) -> None:
    done = _prefetch(tmp_path, "http://127.0.0.1:1", "phase1_large", "--check", "--json")
    assert [one["model"] for one in json.loads(done.stdout)] == [
        "Qwen/Qwen3-32B", "meta-llama/Llama-3.3-70B-Instruct", "openai/gpt-oss-20b", "Qwen/Qwen2.5-72B-Instruct"
    ]  # fmt: skip
