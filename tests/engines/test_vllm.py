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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import Conversation, machine
from tests.engines.test_hf import ids
from tests.thinking_model import ANSWER, DRAFT, make_thinking_model
from tests.tiny_model import make_tiny_model
from vendomini.config import expand, load_config
from vendomini.config.schema import EngineConfig, Model
from vendomini.config.shipped import phases
from vendomini.engines import Completion, Engine, SamplingParams
from vendomini.engines.hf.engine import HuggingFaceEngine
from vendomini.engines.resolve import start_engine
from vendomini.engines.vllm.engine import VllmEngine
from vendomini.engines.vllm.settings import CPU_BLOCK
from vendomini.errors import EngineError, EngineUnavailable
from vendomini.model_info.formats import FAMILIES, HARMONY
from vendomini.probe import Capabilities
from vendomini.records import Results, read_steps
from vendomini.runner import Counters, Stop
from vendomini.runner.episode import Episode

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


class Session:
    """An event loop that lives as long as the engine on it."""

    def __init__(self, reply_format: str | None = None) -> None:
        self.reply_format = reply_format
        self.loop = asyncio.new_event_loop()
        self.lines: list[str] = []
        self.engine: Engine | None = None

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def start(self, folder: Path, found: Capabilities, context_length: int = 2048, **engine: Any) -> Engine:
        model = Model(name=str(folder), dtype="float32", context_length=context_length, reply_format=self.reply_format)
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


@pytest.fixture
def port_thief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin of vLLM, which it loads at every start."""
    folder = tmp_path / "plugins"
    (folder / "port_thief-1.dist-info").mkdir(parents=True)
    (folder / "port_thief.py").write_text(THIEF)
    (folder / "port_thief-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: port-thief\nVersion: 1\n")
    entry = "[vllm.general_plugins]\nport_thief = port_thief:steal\n"
    (folder / "port_thief-1.dist-info" / "entry_points.txt").write_text(entry)
    monkeypatch.setattr("vendomini.engines.vllm.engine.START_AGAIN_S", (0.0, 0.0))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PORT_THIEF", str(folder / "stolen"))


@pytest.fixture(scope="module")
def session(tiny: Path, here: Capabilities) -> Iterator[Session]:
    opened = Session()
    opened.start(tiny, here)
    yield opened
    opened.close()


def hugging_face_says(folder: Path, prompt: list[int], ways: list[dict[str, Any]]) -> list[str]:
    async def ask() -> list[str]:
        model = Model(name=str(folder), dtype="float32", context_length=2048)
        async with HuggingFaceEngine(model, EngineConfig(max_num_seqs=1), machine(), [].append) as engine:
            return [(await engine.generate(Conversation(prompt), SamplingParams(24, **way))).text for way in ways]

    return asyncio.run(ask())


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

    def test_ways_of_sampling_are_those_of_the_hugging_face_engine(self, session: Session, tiny: Path) -> None:
        """Greedy, or with one token left, so that the same tokens must come out. vLLM holds back the bytes of a letter
        that is not complete."""
        ways: list[dict[str, Any]] = [
            {"temperature": 0, "presence_penalty": 1.5},
            {"temperature": 0, "frequency_penalty": 1.5},
            {"temperature": 0, "repetition_penalty": 1.5},
            {"temperature": 0.9, "top_k": 1},
            {"temperature": 0.9, "min_p": 1.0},
            {"temperature": 0},
        ]
        said = [session.ask(ids(50), **way).text for way in ways]
        assert said == [text.rstrip("\ufffd") for text in hugging_face_says(tiny, ids(50), ways)]
        *penalised, one_of_top, one_of_likely, plain = said
        assert one_of_top == one_of_likely == plain
        assert plain not in penalised

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


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory, here: Capabilities) -> Iterator[Session]:
    """A model whose thought never ends by itself, and which speaks as gpt-oss to a prompt that ends as gpt-oss's."""
    folder = make_thinking_model(
        tmp_path_factory.mktemp("thinking"),
        ["<think>", DRAFT, "</think>", ANSWER],
        loop=DRAFT,
        also=[["<|start|>assistant", HARMONY.start, "I wait.", HARMONY.end, HARMONY.header, ANSWER]],
    )
    opened = Session("think")
    opened.start(folder, here, context_length=8192)
    yield opened
    opened.close()


THINK = next(family for family in FAMILIES if family.name == "think")
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


@needs_vllm
class TestThoughts:
    def to(self, session: Session, *last: str) -> list[int]:
        assert session.engine is not None
        return [*ids(20), *session.engine.tokenizer.convert_tokens_to_ids([*last])]

    def test_an_episode_acts_on_the_answer_behind_a_thought_that_its_budget_ends(
        self, thinking: Session, tmp_path: Path
    ) -> None:
        assert thinking.engine is not None
        settings = {
            "grid": {}, "agent.model.name": thinking.engine.info.model, "agent.model.temperature": 0,
            "agent.model.max_tokens": 16, "agent.model.max_thinking_tokens": 6, "agent.model.context_length": 8192,
            "agent.interface.prediction_mode": "optional", "simulation.max_steps": 3, "demand.orders_per_day": 0,
        }  # fmt: skip
        given = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        spec = next(iter(expand(load_config(phases()["phase1_small_models"], given))))
        paths = Results(tmp_path).run(spec.run_id)
        thinking.run(Episode(spec, paths, thinking.engine, Counters()).run(Stop()))
        steps = list(read_steps(paths.steps))
        assert [(step.parse, step.tool) for step in steps] == [("ok", "tool_end_day")] * 3
        assert steps[0].completion == f"<think>{DRAFT * 6}</think>{ANSWER}"

    def test_without_a_budget_the_thought_is_cut_off(self, thinking: Session) -> None:
        prompt = self.to(thinking, "<|assistant|>") + thinking.engine.tokenizer.encode("\n")
        answer = thinking.ask(prompt, temperature=0, thinking=THINK)
        assert (answer.text, answer.finish_reason) == ("<think>" + DRAFT * 23, "length")

    def test_a_thought_that_the_prompt_opened_has_its_budget_and_leaves_the_schema_to_the_answer(
        self, thinking: Session
    ) -> None:
        opened = replace(THINK, opened=True)
        prompt = self.to(thinking, "<think>")
        given: dict[str, Any] = {"temperature": 0, "thinking": opened, "max_thinking_tokens": 5}
        assert thinking.ask(prompt, **given).text == f"{DRAFT * 5}</think>{ANSWER}"
        answer = thinking.ask(prompt, **given, json_schema=SCHEMA).text
        thought, _, rest = answer.partition("</think>")
        assert thought == DRAFT * 5
        assert set(json.loads(rest)) == {"ok"}

    def test_a_schema_waits_for_the_final_channel_of_gpt_oss(self, thinking: Session) -> None:
        prompt = self.to(thinking, "<|start|>assistant")
        answer = thinking.ask(prompt, temperature=0, thinking=HARMONY, json_schema=SCHEMA).text
        begin = f"{HARMONY.start}I wait.{HARMONY.end}{HARMONY.header}"
        assert answer.startswith(begin)
        assert set(json.loads(answer.removeprefix(begin))) == {"ok"}


def _kill_core(host: int) -> None:
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,args="], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        pid, group, args = line.split(None, 2)
        if int(group) == host and "EngineCore" in args:
            os.kill(int(pid), signal.SIGKILL)
            return
    raise AssertionError("no EngineCore runs")


@needs_vllm
def test_a_passing_failure_is_tried_again_and_a_lasting_one_falls_back_to_transformers_in_the_same_process(
    tmp_path: Path, here: Capabilities, port_thief: None
) -> None:
    """At first a port is taken. Then there is no kernel for heads of 16 dimensions, which vLLM finds out in a
    grandchild, at the first request: the cause is in the child's log. Nothing stays behind."""
    folder = make_tiny_model(tmp_path, heads=4)
    before = dict(os.environ)
    session = Session()
    try:
        engine = session.start(folder, here)
        loading, retry, warning, *fallback = session.lines
        assert loading == "[*] Loading model with vLLM (optimized inference)"
        assert retry.startswith("[WARNING] vLLM did not start (")
        assert "EADDRINUSE" in retry
        assert "trying again" in retry
        assert warning.startswith("[WARNING] vLLM initialization failed: ")
        assert "head_dim=16" in warning
        assert fallback == [
            "[*] Falling back to standard HuggingFace Transformers",
            "[*] Flash Attention not installed, using sdpa attention (slower)",
        ]
        assert engine.info.backend == "hf"
        assert "head_dim=16" in engine.info.rejected["vllm"]
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
