"""A trained model that nobody here made, SmolLM2-135M-Instruct, through the real engine and its own chat template."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.engines.conftest import Conversation, machine, wait
from tests.trained_model import obstacle, trained_model
from vendomini.agent import History, output_schema, parse_completion, system_prompt
from vendomini.config.schema import Interface, Model
from vendomini.engines import Completion, SamplingParams
from vendomini.engines.hf.engine import HuggingFaceEngine
from vendomini.engines.hf.sampling import Grammars
from vendomini.measures.measured import MeasuredWorld
from vendomini.model_info import model_facts, own_sampling
from vendomini.worlds.conversation import user_turn
from vendomini.worlds.vending import WORLD
from vendomini.worlds.vending.config import VendingConfig

MakeEngine = Callable[..., HuggingFaceEngine]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    if reason := obstacle():
        pytest.skip(reason)
    return trained_model()


@pytest.fixture(scope="session")
def tokenizer(smollm2: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2)


def asked(tokenizer: Any, question: str) -> list[int]:
    messages = [{"role": "user", "content": question}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


def in_a_world(**interface: Any) -> tuple[Any, Interface]:
    config = VendingConfig.model_validate({"agent": {"interface": interface}})
    return WORLD(config), config.agent.interface


def first_turn(tokenizer: Any) -> History:
    """What an episode's first step asks."""
    config = VendingConfig()
    world = MeasuredWorld(WORLD(config), config, horizon=10)
    rules = system_prompt(world.world, config.agent.interface)
    history = History(rules, context_length=8192, max_tokens=256, tokenizer=tokenizer)
    history.add_user(user_turn(world.reset(seed=0), None))
    return history


def test_its_prompts_are_those_of_its_own_template(tokenizer: Any) -> None:
    history = first_turn(tokenizer)
    history.add_assistant('{"thought": "wait", "tool": "tool_end_day", "arguments": {}}')
    history.add_user("OBSERVATION {}")
    rendered = tokenizer.apply_chat_template(history.messages, add_generation_prompt=True, return_dict=False)
    assert history.token_ids == list(rendered)
    assert tokenizer.decode(history.token_ids).startswith("<|im_start|>system\nYou run a small vending warehouse")


def test_its_size_is_the_published_one(smollm2: Path) -> None:
    """134.5 million parameters; 30 layers, 3 KV heads of 64: 23,040 bytes of keys and values a token."""
    facts = model_facts(str(smollm2), None, machine())
    assert facts.parameters == pytest.approx(134.5e6, rel=0.01)
    assert facts.kv_bytes(1) == 30 * 2 * 3 * 64 * 2
    assert facts.context_length == 8192
    assert own_sampling(Model(name=str(smollm2)), machine()) == {}


def test_what_it_says_alone_it_says_in_a_batch_and_it_knows_the_capital(
    smollm2: Path, tokenizer: Any, hugging_face: MakeEngine
) -> None:
    questions = ["What is the capital of France?", "Name three colours.", "What is 2 + 2? Explain.", "Who was Mozart?"]
    prompts = [asked(tokenizer, question) for question in questions]
    greedy = SamplingParams(24, temperature=0)

    async def run() -> tuple[list[Completion], list[Completion]]:
        async with hugging_face(smollm2) as engine:
            together = await asyncio.gather(*(engine.generate(Conversation(prompt), greedy) for prompt in prompts))
            return list(together), [await engine.generate(Conversation(prompt), greedy) for prompt in prompts]

    together, alone = wait(run())
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert "Paris" in together[0].text


def test_a_schema_makes_its_replies_actions_with_the_thought_before_the_tool(
    smollm2: Path, tokenizer: Any, hugging_face: MakeEngine
) -> None:
    """Without one it does not follow the format; with one its thought may go on until it is cut off."""
    world, interface = in_a_world()
    schema, tools = output_schema(world, interface), [tool.name for tool in world.tools]

    async def run() -> list[Completion]:
        async with hugging_face(smollm2, context_length=8192) as engine:
            params = [SamplingParams(256, 0.7, seed=seed, json_schema=schema) for seed in range(1)]
            params.append(SamplingParams(8, 0.7, seed=0))
            history = [first_turn(engine.tokenizer) for _ in params]
            return list(await asyncio.gather(*map(engine.generate, history, params)))

    *bound, free = wait(run())
    for answer in bound:
        assert answer.text.startswith('{"thought":')
        if answer.finish_reason == "stop":
            jsonschema.validate(json.loads(answer.text, strict=False), schema)
            assert parse_completion(answer.text, tools).parse == "ok"
    assert not free.text.startswith('{"thought":')


def test_no_string_of_the_grammar_has_a_greatest_length(tokenizer: Any) -> None:
    """Counting characters costs tens of milliseconds a token at this vocabulary; without it a mask costs microseconds.
    The bound here is far from both."""
    import torch

    everything = in_a_world(memory_tools="full", recovery_tools="all", prediction_format="rich")
    schema = output_schema(*everything)
    assert "maxLength" not in json.dumps(schema)
    assert '"maxLength"' in system_prompt(*everything)
    grammars = Grammars(tokenizer, len(tokenizer))
    matcher = grammars.matcher(schema)
    tokens = tokenizer.encode(
        '{"thought": "' + "Stock is low, so I order more units now. " * 8, add_special_tokens=False
    )
    logits, costs = torch.zeros(1, len(tokenizer)), []
    for token in tokens:
        began = time.thread_time()
        grammars.mask(logits, [matcher])
        costs.append(time.thread_time() - began)
        assert matcher.accept_token(token)
    assert sorted(costs)[len(costs) // 2] < 0.004
