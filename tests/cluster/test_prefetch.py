"""``vendomini prefetch``, from a hub on this machine into a cache of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.hub import Hub
from vendomini.model_info import hub

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
    assert "lab/none is not on the Hub, or private, or gated: the Hub doesn't say which" in done.stdout
    assert "lab/gated is gated: accept its licence on its page, then `hf auth login`" in done.stdout
    assert "lab/whole: complete in" in done.stdout
    assert "Traceback" not in done.stderr


def test_without_internet(tmp_path: Path) -> None:
    done = _prefetch(tmp_path, "http://127.0.0.1:1", "lab/whole")
    assert done.returncode == 1
    assert "lab/whole could not be downloaded" in done.stdout
    assert "where there is internet" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs an engine")
@pytest.mark.parametrize(("name", "says"), [("lab/gated", "accept its licence"), ("lab/none", "Check its name")])
def test_a_run_says_the_same_and_at_once(tmp_path: Path, name: str, says: str) -> None:
    """The loaders of engines retry for minutes, and call every refusal a lost connection."""
    environ = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    with Hub({}, gated="lab/gated") as hub:
        command = ["run", "demo", "-o", f"agent.model.name={name}", "-o", "engine=hf", "--results", tmp_path / "r"]
        done = subprocess.run(
            [sys.executable, "-m", "vendomini", *map(str, command)], env=environ | {"HF_ENDPOINT": hub.url},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert (done.returncode, says in done.stderr, "Retrying" in done.stderr) == (1, True, False)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt, bounded: a connection that is accepted and never answered."""
    monkeypatch.setattr(hub, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        told = hub.refusal("lab/whole", None)
    assert told
    assert "lab/whole could not be downloaded" in told


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root may change a name server")
def test_a_name_server_that_does_not_answer(tmp_path: Path) -> None:
    """The resolver waits far longer than anybody who asked: 60 s here, for each model."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\noptions timeout:30 attempts:2\n")
    ask = "from vendomini.model_info import hub; hub.DEADLINE_S = 0.5; print(hub.refusal('lab/whole', None))"
    line = f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec {sys.executable} -c "{ask}"'
    environ = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.53", 53))
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", line], capture_output=True, text=True, check=False, timeout=50,
            env=environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://hub.example"},
        )  # fmt: skip
    if "mount" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout.startswith("lab/whole could not be downloaded (no answer in 0.5 s): run")


def test_the_models_of_a_phase(tmp_path: Path) -> None:
    done = _prefetch(tmp_path, "http://127.0.0.1:1", "phase1_large", "--check", "--json")
    assert [one["model"] for one in json.loads(done.stdout)] == [
        "Qwen/Qwen3-32B", "meta-llama/Llama-3.3-70B-Instruct", "openai/gpt-oss-20b", "Qwen/Qwen2.5-72B-Instruct"
    ]  # fmt: skip
