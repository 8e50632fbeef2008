"""The vLLM engine against real vLLM: on one engine in turn, since a start takes half a minute on a CPU."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import Conversation
from tests.engines.test_hf import ids
from tests.tiny_model import make_tiny_model
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import Completion, Engine, SamplingParams
from vendomini.engines.resolve import start_engine
from vendomini.engines.vllm.engine import VllmEngine
from vendomini.engines.vllm.settings import CPU_BLOCK
from vendomini.errors import EngineError, EngineUnavailable
from vendomini.probe import Capabilities

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")


class Session:
    """An event loop that lives as long as the engine on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.lines: list[str] = []
        self.engine: Engine | None = None

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def start(self, folder: Path, found: Capabilities, **engine: Any) -> Engine:
        model = Model(name=str(folder), dtype="float32", context_length=2048)
        config = EngineConfig(enforce_eager=True, max_num_seqs=8, **engine)
        self.engine = self.run(start_engine(model, config, found, self.lines.append))
        return self.engine

    def ask(self, prompt: list[int] | Conversation, **sampling: Any) -> Completion:
        conversation = prompt if isinstance(prompt, Conversation) else Conversation(prompt)
        params = SamplingParams(**({"max_tokens": 24} | sampling))
        assert self.engine is not None
        return self.run(self.engine.generate(conversation, params))

    def close(self) -> None:
        if self.engine is not None:
            self.run(self.engine.close())
        self.loop.close()


@pytest.fixture(scope="module")
def session(tiny: Path, here: Capabilities) -> Iterator[Session]:
    opened = Session()
    opened.start(tiny, here)
    yield opened
    opened.close()


def members(group: int) -> list[str]:
    """Processes of a process group that still run (zombies do not)."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [row[2] for row in rows if int(row[0]) == group and not row[1].startswith("Z")]


def gone(group: int) -> bool:
    """Whether the whole group ends within some seconds."""
    for _ in range(100):
        if not members(group):
            return True
        time.sleep(0.1)
    return False


@needs_vllm
class TestOneEngine:
    """In the order written: the last tests kill it."""

    def test_it_says_the_lines_of_the_contract(self, session: Session) -> None:
        assert session.lines == [
            "[*] Loading model with vLLM (optimized inference)",
            "[*] vLLM initialized successfully",
        ]
        info = session.engine.info
        assert (info.backend, info.rejected) == ("vllm", {})
        assert info.details["tensor_parallel_size"] == 1
        assert (session.engine.context_length, session.engine.max_num_seqs) == (2048, 8)
        assert len(session.engine.tokenizer) > 0

    def test_greedy_answers_are_those_of_transformers(self, session: Session, tiny: Path) -> None:
        from tests.engines.test_hf import reference

        assert session.ask(ids(50), temperature=0).text == reference(tiny, ids(50), 24)

    def test_seeds_repeat_alone_and_in_a_batch(self, session: Session) -> None:
        """In float32; with 16-bit weights a neighbour can change a rounding (docs/performance.md)."""
        prompts = [ids(20 + 9 * n, n) for n in range(6)]

        async def batch() -> list[Completion]:
            jobs = [
                session.engine.generate(Conversation(prompt), SamplingParams(24, 0.9, 0.95, seed=n))
                for n, prompt in enumerate(prompts)
            ]
            return list(await asyncio.gather(*jobs))

        batched = [answer.text for answer in session.run(batch())]
        alone = [session.ask(p, temperature=0.9, top_p=0.95, seed=n).text for n, p in enumerate(prompts)]
        assert batched == alone
        assert len(set(batched)) == 6

    def test_a_growing_conversation_is_served_from_the_prefix_cache(self, session: Session) -> None:
        conversation = Conversation(ids(3 * CPU_BLOCK + 10, 99))
        first = session.ask(conversation)
        conversation.token_ids = conversation.token_ids + ids(60, 98)
        second = session.ask(conversation)
        assert (first.cached_tokens, second.cached_tokens) == (0, 3 * CPU_BLOCK)
        assert second.prompt_tokens == 3 * CPU_BLOCK + 70

    def test_a_schema_constrains_the_answer(self, session: Session) -> None:
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
        schema["additionalProperties"] = False
        assert set(json.loads(session.ask(ids(20), max_tokens=40, json_schema=schema).text)) == {"ok"}

    def test_a_stop_string_ends_the_text_before_it(self, session: Session) -> None:
        whole = session.ask(ids(50), temperature=0).text
        stop = whole[5:8]
        answer = session.ask(ids(50), temperature=0, stop=(stop,))
        assert (answer.text, answer.finish_reason) == (whole[: whole.index(stop)], "stop")

    def test_a_prompt_that_does_not_fit_fails_alone(self, session: Session) -> None:
        with pytest.raises(EngineError, match="vLLM refused the request"):
            session.ask(ids(3000))
        assert session.ask(ids(20)).completion_tokens > 0

    def test_a_cancelled_request_leaves_the_engine_well(self, session: Session) -> None:
        async def cancel() -> None:
            task = asyncio.create_task(session.engine.generate(Conversation(ids(9)), SamplingParams(1500, seed=1)))
            await asyncio.sleep(0.2)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        session.run(cancel())
        assert session.ask(ids(20)).completion_tokens > 0

    def test_a_child_that_dies_fails_its_requests_and_the_engine_starts_again_once(self, session: Session) -> None:
        async def killed_in_flight() -> list[Any]:
            jobs = [
                asyncio.create_task(session.engine.generate(Conversation(ids(9, n)), SamplingParams(1500, seed=n)))
                for n in range(48)  # more than fit at once: some are under way or wait, however fast the machine
            ]
            await asyncio.sleep(0.2)
            _kill_core(session.engine._host.pid)
            return await asyncio.gather(*jobs, return_exceptions=True)

        failures = session.run(killed_in_flight())
        assert any(isinstance(failure, EngineError) for failure in failures)
        assert all(isinstance(failure, EngineError | Completion) for failure in failures)
        assert session.ask(ids(50), temperature=0).completion_tokens == 24
        assert any(line.startswith("[WARNING] vLLM died (") for line in session.lines)
        assert session.engine.gone is None

    def test_a_second_death_is_final_and_nothing_is_left(self, session: Session) -> None:
        group = session.engine._host.pid
        os.killpg(group, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(EngineError, match="vLLM died"):
                session.ask(ids(9), max_tokens=1500)
        assert session.engine.gone.startswith("vLLM died again and is given up: ")
        session.run(session.engine.close())
        assert gone(group)


def _kill_core(host: int) -> None:
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,args="], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        pid, group, args = line.split(None, 2)
        if int(group) == host and "EngineCore" in args:
            os.kill(int(pid), signal.SIGKILL)
            return
    raise AssertionError("no EngineCore runs")


@needs_vllm
def test_a_failed_start_falls_back_to_transformers_in_the_same_process(tiny: Path, here: Capabilities) -> None:
    """The context is longer than the model's: vLLM refuses, Transformers takes over, nothing stays behind."""
    before = dict(os.environ)
    session = Session()
    try:
        engine = session.start(tiny, here, max_model_len=1_000_000)
        warning = session.lines[1]
        assert session.lines[0] == "[*] Loading model with vLLM (optimized inference)"
        assert warning.startswith("[WARNING] vLLM initialization failed: ")
        assert "max_model_len" in warning
        assert session.lines[2:] == [
            "[*] Falling back to standard HuggingFace Transformers",
            "[*] Flash Attention not installed, using sdpa attention (slower)",
        ]
        assert engine.info.backend == "hf"
        assert "max_model_len" in engine.info.rejected["vllm"]
        assert session.ask(ids(20)).completion_tokens > 0
        assert dict(os.environ) == before
    finally:
        session.close()


@needs_vllm
def test_a_start_that_takes_too_long_is_ended_with_all_its_processes(tiny: Path, here: Capabilities) -> None:
    async def start() -> int:
        engine = VllmEngine(Model(name=str(tiny)), EngineConfig(startup_timeout=3), here, [].append)
        with pytest.raises(EngineUnavailable, match=r"did not start within 3 s \(engine.startup_timeout\)"):
            await engine.start()
        group = engine._host.pid
        await engine.close()
        return group

    assert gone(asyncio.run(start()))


@needs_vllm
def test_the_cause_of_a_failed_start_is_found_in_the_log_of_the_child(tmp_path: Path, here: Capabilities) -> None:
    """There is no kernel for heads of 16 dimensions, which vLLM finds out in a grandchild, at the first request."""
    folder = make_tiny_model(tmp_path, heads=4)

    async def start() -> None:
        model = Model(name=str(folder), dtype="float32", context_length=1024)
        engine = VllmEngine(model, EngineConfig(enforce_eager=True), here, print)
        try:
            await engine.start()
        finally:
            await engine.close()

    with pytest.raises(EngineUnavailable, match="head_dim=16"):
        asyncio.run(start())


PARENT = """
import asyncio, sys
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import SamplingParams
from vendomini.engines.vllm.engine import VllmEngine
from vendomini.probe import probe

class Conversation:
    messages, token_ids, epoch = [], list(range(5, 60)), 0

async def main():
    config = EngineConfig(enforce_eager=True, max_num_seqs=2, engine_args={"tensor_parallel_size": 2})
    model = Model(name=sys.argv[1], dtype="float32", context_length=1024)
    engine = VllmEngine(model, config, probe(), print)
    await engine.start()
    answer = await engine.generate(Conversation(), SamplingParams(4, temperature=0))
    print(engine._host.pid, engine.info.details["tensor_parallel_size"], answer.completion_tokens, flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


@needs_vllm
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="tensor parallelism on a CPU needs two cores")
def test_two_ranks_run_and_a_parent_killed_outright_takes_them_along(tiny: Path, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    cores = sorted(os.sched_getaffinity(0))[:2]
    environ = os.environ | {"VLLM_CPU_OMP_THREADS_BIND": f"{cores[0]}|{cores[1]}", "PYTHONPATH": os.getcwd()}
    parent = subprocess.Popen([sys.executable, script, tiny], env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        line = parent.stdout.readline()
        assert line, "vLLM did not start with two ranks"
        group, ranks, tokens = map(int, line.split())
        assert (ranks, tokens) == (2, 4)
        assert len([args for args in members(group) if "Worker" in args]) == 2
    finally:
        parent.kill()
        parent.wait()
    assert gone(group)
