"""Starts of real vLLM that do not go well at once, and what a job compiled for the jobs after it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import Conversation, wait
from tests.engines.test_hf import ids, reference
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import SamplingParams
from vendomini.engines.vllm.engine import VllmEngine
from vendomini.probe import Capabilities

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")

THIEF = """
import os, socket

def steal():
    "The race for a port, lost: another process has it between vLLM's choice and its use. Once."
    try:
        os.mkdir(os.environ["PORT_THIEF"])
    except OSError:
        return
    global taken
    taken = socket.create_server(("", 0))
    import vllm.v1.executor.uniproc_executor as executor
    executor.get_open_port = lambda: taken.getsockname()[1]
"""


@pytest.fixture
def port_thief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin of vLLM, which it loads at every start."""
    folder = tmp_path / "plugins"
    (folder / "port_thief-1.dist-info").mkdir(parents=True)
    (folder / "port_thief.py").write_text(THIEF)
    (folder / "port_thief-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: port-thief\nVersion: 1\n")
    entry = "[vllm.general_plugins]\nport_thief = port_thief:steal\n"
    (folder / "port_thief-1.dist-info" / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PORT_THIEF", str(tmp_path / "stolen"))


@needs_vllm
def test_a_port_in_use_and_then_a_warm_cache(
    tiny: Path, here: Capabilities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port_thief: None
) -> None:
    """Two jobs in a row: the first loses its port once, compiles, and keeps what it compiled; the second loads it."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("vendomini.engines.vllm.engine.START_AGAIN_S", (0.0, 0.0))

    def job() -> tuple[list[str], str, str]:
        lines: list[str] = []

        async def run() -> tuple[str, str]:
            model = Model(name=str(tiny), dtype="float32", context_length=1024)
            config: dict[str, Any] = {"max_num_seqs": 2, "startup_timeout": 500}
            async with VllmEngine(model, EngineConfig(**config), here, lines.append) as engine:
                answer = await engine.generate(Conversation(ids(50)), SamplingParams(8, temperature=0))
                assert engine._host is not None
                return answer.text, engine._host.log.read_text()

        return lines, *wait(run())

    lines, text, log = job()
    assert len(lines) == 1
    assert "in use" in lines[0]
    assert "trying again" in lines[0]
    assert text == reference(tiny, ids(50), 8)
    assert not loaded(log)
    (kept,) = (tmp_path / "home" / "vendomini" / "compiled").iterdir()
    assert any(kept.rglob("*"))
    lines, again, log = job()
    assert (lines, again) == ([], text)
    assert loaded(log)


def loaded(log: str) -> bool:
    """Whether vLLM says that it did not compile."""
    return "Directly load" in log
