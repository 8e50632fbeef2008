"""A start of real vLLM that does not go well at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.engines.conftest import Conversation, wait
from tests.engines.test_hf import ids, reference
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import SamplingParams
from vendomini.engines.vllm.engine import VllmEngine
from vendomini.probe import Capabilities

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")

THIEF = """
import os, pathlib, socket

def steal():
    "In every process of the first start, another one has the port at which vLLM's workers want to meet."
    mark = pathlib.Path(os.environ["PORT_THIEF"])
    try:
        with mark.open("x") as file:
            file.write(str(os.getpgrp()))
    except FileExistsError:
        if mark.read_text() != str(os.getpgrp()):
            return
    global taken
    taken = socket.create_server(("", 0))
    from vllm.v1.executor import multiproc_executor, uniproc_executor
    port = taken.getsockname()[1]
    multiproc_executor.get_open_port = lambda: port
    uniproc_executor.get_file_store_init_method = lambda: f"tcp://127.0.0.1:{port}"
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
def test_a_port_in_use_is_tried_again(
    tiny: Path, here: Capabilities, monkeypatch: pytest.MonkeyPatch, port_thief: None
) -> None:
    monkeypatch.setattr("vendomini.engines.vllm.engine.START_AGAIN_S", (0.0, 0.0))
    lines: list[str] = []

    async def run() -> str:
        model = Model(name=str(tiny), dtype="float32", context_length=1024)
        config = EngineConfig(enforce_eager=True, max_num_seqs=2)
        async with VllmEngine(model, config, here, lines.append) as engine:
            return (await engine.generate(Conversation(ids(50)), SamplingParams(8, temperature=0))).text

    assert wait(run()) == reference(tiny, ids(50), 8)
    assert len(lines) == 1
    assert "EADDRINUSE" in lines[0]
    assert "trying again" in lines[0]
