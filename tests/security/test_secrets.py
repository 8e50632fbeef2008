"""Keys from the environment: they reach the server they are for, and nothing that is left behind or printed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import http_server
from tests.security.traps import python
from vendomini.config import load_config
from vendomini.engines.vllm.process import HostProcess
from vendomini.errors import ConfigError

NAMES = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VENDOMINI_KEY", "AWS_SECRET_ACCESS_KEY")
KEYS = {name: f"planted-{name.lower()}-1f0c2d9e" for name in NAMES}
CRASH = (
    "import sys, vendomini.cli.run as m\n"
    "def run() -> None: raise ZeroDivisionError('boom')\n"
    "m.run = run; sys.argv = ['vendomini', 'run']\nfrom vendomini.cli import main; main()"
)
PROBE = "from vendomini.probe import probe; print(probe().as_json())"  # of doctor, but for imports that take long


class Handler(http_server.Handler):
    server: Server

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        if self.path.startswith("/away/"):
            self.reply(302, b"", {"Location": f"{self.server.away}/models"})
        else:
            self.reply(200, {"data": [{"id": "served/model"}]})

    def do_POST(self) -> None:
        self.reply(401, {"error": f"no such key: {self.headers['Authorization']}"})


class Server(http_server.Server):
    """Knows a model, refuses to run it, and repeats the key when it does; sends ``/away/`` to another server."""

    handler = Handler

    def __init__(self, away: str = "") -> None:
        super().__init__()
        self.away = away
        self.keys: list[str | None] = []


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with Server() as away, Server(away.url) as server:
        yield server, away


def test_no_key_is_printed_or_left_behind(servers: tuple[Server, Server], tmp_path: Path) -> None:
    server, away = servers
    here = load_config("configs/demo.yaml").path.absolute()
    partition = {"name": "gpu", "default": True, "time_limit": "2-00:00:00", "nodes": 1, "gres": "gpu:8", "state": "up"}
    slurm = {"version": "23.02", "partitions": [partition]}
    (tmp_path / "cluster.json").write_text(json.dumps({"capabilities": {"slurm": slurm}}))
    openai = ["-c", here, "-o", "grid.agent.model.name=[served/model]", "-o", "engine.backend=openai", "--limit", "1"]

    def vendomini(*arguments: str | Path, code: int = 0) -> str:
        done = python("-m", "vendomini", *arguments, cwd=tmp_path, **KEYS)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    said = [
        vendomini("run", *openai, "-o", f"engine.base_url={server.url}", "-r", "served", code=1),
        vendomini("run", *openai, "-o", f"engine.base_url={server.url}/away", "-r", "away", code=1),
        vendomini("run", "-c", here, "--limit", "1", "-o", "simulation.max_steps=5", "-r", "results/demo"),
        vendomini("status", "--json"),
        vendomini("report", "results/demo", "--no-figures", "--steps-csv"),
        vendomini("traces", "results/demo", "--export", "inspect"),
        vendomini("submit", here, "-r", "sent", "--dry-run", "--describe", "cluster.json", "--json"),
        python("-c", PROBE, cwd=tmp_path, **KEYS).stdout,
        python("-c", CRASH, cwd=tmp_path, **KEYS).stderr,
    ]
    (log,) = tmp_path.glob("vendomini-*.log")
    assert log.stat().st_mode & 0o777 == 0o600
    assert server.keys.count(f"Bearer {KEYS['OPENAI_API_KEY']}") == len(server.keys) == 2, "it is sent where it belongs"
    assert away.keys == [None], "and nowhere else"
    assert "<OPENAI_API_KEY>" in said[0], "what the server repeats of it is taken out"
    assert "transformers" in said[-2]
    left = [file.read_bytes().decode(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    assert len(left) > 10
    for key in KEYS.values():
        assert not [text for text in [*said, *left] if key in text]


@pytest.mark.parametrize("value", ["engine.base_url=https://me:pass@host/v1", "engine.engine_args={hf_token: hf_x}"])
def test_a_config_with_a_secret_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="in the environment") as refused:
        load_config("configs/demo.yaml", [value])
    assert "pass" not in str(refused.value).replace("password", "")


# ------------------------------------------------------------------------------------------ who else may look


@pytest.mark.parametrize(("umask", "forbidden"), [(0o077, 0o077), (0o022, 0o022)])
def test_results_are_as_private_as_the_umask_says(tmp_path: Path, umask: int, forbidden: int) -> None:
    here = load_config("configs/demo.yaml").path.absolute()
    arguments = ("run", "-c", here, "--limit", "1", "-o", "simulation.max_steps=5")
    assert python("-m", "vendomini", *arguments, cwd=tmp_path, umask=umask).returncode == 0
    written = list((tmp_path / "results").rglob("*"))
    assert len(written) > 5
    assert not [path for path in written if path.stat().st_mode & forbidden]


def test_the_log_of_vllm_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = os.umask(0)

    async def begin() -> int:
        host = await HostProcess.begin(os.environ)
        try:
            return host.log.stat().st_mode & 0o777
        finally:
            await host.end()

    try:
        assert asyncio.run(begin()) == 0o600
    finally:
        os.umask(before)
