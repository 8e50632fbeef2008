"""The client against servers as other people wrote them: on a tiny random model, llama.cpp's on a trained one.

``transformers serve`` runs wherever Transformers can serve, llama.cpp's server wherever ``xllamacpp`` is installed.
``vllm serve`` and LiteLLM take longer to start than the rest of this folder's tests: ``make servers`` runs them, too,
where they are installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.engines.chat_server import Asked
from tests.tiny_model import make_tiny_model
from tests.trained_model import obstacle, packed_model
from vendomini.cli import app
from vendomini.engines import Completion, SamplingParams
from vendomini.errors import PromptTooLong
from vendomini.records import read_steps

KEY = "sk-tests"
PATIENCE_S = 400
CONTEXT = 16_384
"""Tokens: the rules of the world are some thousands of this tokenizer's."""


@dataclass
class Server:
    """One that runs.

    Attributes:
        url: as ``engine.base_url`` takes it.
        model: its name there.
        request: what ``engine.request`` has to add.
    """

    kind: str
    url: str
    model: str
    request: dict[str, Any] = field(default_factory=dict)

    def ask(self, text: str = "Name a fruit.", **params: Any) -> Completion:
        return self.asked().once(SamplingParams(**{"max_tokens": 8} | params), [{"role": "user", "content": text}])

    def asked(self) -> Asked:
        return Asked(self.url, self.model, {"request": self.request, "request_timeout": 120})


def transformers_serve(port: int, folder: Path) -> list[str]:
    """The command ``transformers``, of this very Python."""
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()"]
    return [*command, "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]


def vllm_serve(port: int, folder: Path) -> list[str]:
    """``vllm serve`` under the name that the build for CPUs has, too, in one process; and without chunks, since on CPUs
    a seeded request whose prompt is fed in chunks kills it."""
    options = ["--dtype", "float32", "--max-model-len", str(CONTEXT), "--enforce-eager", "--max-num-seqs", "8"]
    options += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(CONTEXT)]
    options += ["--distributed-executor-backend", "uni", "--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *options]


LLAMA_CPP = """
import signal, sys, xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.n_ctx, params.n_parallel, params.use_jinja = int(sys.argv[3]), int(sys.argv[4]), True
server = xllamacpp.Server(params)
signal.pause()
"""
SLOTS, SLOT = 2, 8192


def llama_cpp(port: int, folder: Path) -> list[str]:
    """The server that ``llama-server`` starts, from the package that brings it as a library."""
    return [sys.executable, "-c", LLAMA_CPP, str(packed_model()), str(port), str(SLOTS * SLOT), str(SLOTS)]


def litellm(port: int, folder: Path) -> list[str]:
    """In front of ``transformers serve``, whose port is in its config."""
    return ["litellm", "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("small"), context=CONTEXT)


@pytest.fixture(scope="module")
def transformers_server(small: Path) -> Iterator[Server]:
    if reason := _lacks("fastapi", "uvicorn", "openai", "accelerate"):
        pytest.skip(f"transformers serve needs {reason}")
    with _running(transformers_serve, small, "/health") as url:
        sampling = {"generation_config": json.dumps({"do_sample": True})}
        yield Server("transformers", f"{url}/v1", str(small), sampling)


@pytest.fixture(scope="module")
def vllm_server(small: Path) -> Iterator[Server]:
    if reason := _lacks("vllm"):
        pytest.skip(f"vllm serve needs {reason}")
    environ = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    with _running(vllm_serve, small, "/health", **environ) as url:
        yield Server("vllm", f"{url}/v1", str(small))


@pytest.fixture(scope="module")
def llama_cpp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if reason := _lacks("xllamacpp") or obstacle():
        pytest.skip(f"llama.cpp's server needs {reason}")
    with _running(llama_cpp, tmp_path_factory.mktemp("llama_cpp"), "/health") as url:
        yield Server("llama.cpp", f"{url}/v1", "SmolLM2-135M-Instruct")


@pytest.fixture(scope="module")
def litellm_server(
    transformers_server: Server, small: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    if not shutil.which("litellm"):
        pytest.skip("the command litellm is not in PATH (pip install 'litellm[proxy]', in an environment of its own)")
    folder = tmp_path_factory.mktemp("litellm")
    behind = {"model": f"hosted_vllm/{small}", "api_base": transformers_server.url, "api_key": "none"}
    models = [{"model_name": "small", "litellm_params": behind}]
    (folder / "litellm.yaml").write_text(yaml.safe_dump({"model_list": models}))
    with _running(litellm, folder, "/health/liveliness", LITELLM_MASTER_KEY=KEY) as url:
        yield Server("litellm", f"{url}/v1", "small", transformers_server.request)


slow = pytest.mark.skipif("SERVERS" not in os.environ, reason="make servers runs it")


@pytest.fixture(
    params=["transformers", "llama_cpp", pytest.param("vllm", marks=slow), pytest.param("litellm", marks=slow)],
    scope="module",
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        yield request.getfixturevalue(f"{request.param}_server")


def _lacks(*modules: str) -> str:
    return ", ".join(module for module in modules if importlib.util.find_spec(module) is None)


@contextlib.contextmanager
def _running(make: Callable[[int, Path], list[str]], folder: Path, health: str, **environ: str) -> Iterator[str]:
    """A server from here to the end of the block, on a port of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"{make.__name__}.log"
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(make(port, folder), stdout=out, stderr=out, env=os.environ | offline | environ)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
    try:
        while not _answers(url + health):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def test_an_answer_and_what_it_cost(server: Server) -> None:
    answer = server.ask()
    assert answer.text
    assert answer.prompt_tokens > 5
    assert 0 < answer.completion_tokens <= 8


def test_seeds_decide(server: Server) -> None:
    """Of ``transformers serve`` only one request at a time: its seed is that of the process."""
    first, again, other = (server.ask(max_tokens=16, temperature=1.0, seed=seed).text for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_many_at_once(server: Server) -> None:
    assert all(answer.completion_tokens for answer in server.asked().together(8))


def test_what_a_server_does_not_know_is_left_out(server: Server) -> None:
    asked = server.asked()
    params = SamplingParams(8, 0.7, 0.9, top_k=20, min_p=0.05, repetition_penalty=1.1)
    assert asked.once(params).completion_tokens
    changes = asked.engine.info.details["changes"]
    if server.kind == "llama.cpp":
        assert changes == {"repetition_penalty": "asked for as repeat_penalty"}
        return
    unknown = [] if server.kind == "vllm" else ["min_p", "repetition_penalty", "top_k"]
    assert sorted(changes) == unknown
    assert len(asked.lines) == len(unknown)


def test_a_context_is_reported_or_not(server: Server) -> None:
    asked = server.asked()
    asked.once()
    known = {"vllm": CONTEXT, "llama.cpp": SLOT}.get(server.kind)
    assert asked.engine.context_length == known
    if known:
        with pytest.raises(PromptTooLong):
            server.ask("word " * CONTEXT)


def test_a_form_is_kept_or_ignored(server: Server) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    text = server.ask(max_tokens=60, temperature=0.0, json_schema=schema).text
    assert text.startswith("{") == (server.kind in {"vllm", "llama.cpp"}), (
        "docs/servers.md says which servers ignore it"
    )


def test_a_run(server: Server, tmp_path: Path) -> None:
    config = {
        "experiment": {"name": "served"},
        "engine": {"backend": "openai", "base_url": server.url, "request": server.request},
        "fixed": {"agent.model.name": server.model, "agent.model.max_tokens": 16, "simulation.max_steps": 3},
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(app, ["run", "-c", str(file), "-r", str(tmp_path / "results")])
    assert result.exit_code == 0, result.output
    (log,) = (tmp_path / "results").glob("runs/*/steps.jsonl")
    assert len(list(read_steps(log))) == 3
