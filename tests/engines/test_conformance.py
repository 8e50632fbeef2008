"""A few families of ``make conformance``, one for each way in which a model is unlike a Llama."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conformance.architectures import Dialogue, Plain, examine, make_model
from tests.engines.conftest import Conversation
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import SamplingParams
from vendomini.engines.hf.check import first_prompt
from vendomini.engines.hf.engine import HuggingFaceEngine
from vendomini.engines.hf.forward import CannotBatch
from vendomini.engines.hf.model import LoadedModel, load
from vendomini.errors import EngineStopped
from vendomini.probe import Capabilities


def test_a_family_that_can_be_batched_answers_as_generate_does() -> None:
    outcome = examine("mistral3")
    assert outcome.verdict == "batched", outcome.note


@pytest.mark.parametrize(
    ("family", "note"),
    [
        ("bloom", "keeping each conversation"),
        ("gpt_neo", "batching changes its answers"),
        ("phi3", "beyond 64 tokens its rotary factors depend on the longest row of a batch"),
        ("mamba", "computing each prompt anew"),
        ("nemotron_h", "keeping each conversation"),
        ("granitemoehybrid", "keeping each conversation"),
    ],
)
def test_other_families_answer_as_generate_does_one_at_a_time(family: str, note: str) -> None:
    outcome = examine(family)
    assert outcome.verdict == "one at a time", outcome.note
    assert note in outcome.note


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    make_model("llama", tmp_path)
    return tmp_path


def test_a_first_prompt_is_compared_with_the_model_run_plainly(llama: Path, here: Capabilities) -> None:
    loaded = load(Model(name=str(llama), dtype="float32"), EngineConfig(), here)
    ids = loaded.some_tokens(20)
    with torch.inference_mode():
        right = loaded.model(torch.tensor([ids])).logits[0, -1]
    first_prompt(loaded, ids, right)
    with pytest.raises(CannotBatch, match="after the first prompt, of 20 tokens"):
        first_prompt(loaded, ids, right.flip(0))


def misjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for a model that is batched right at the lengths that are tried, and wrong at that of the first prompt."""

    def wrong(loaded: LoadedModel, ids: list[int], got: Any) -> None:
        first_prompt(loaded, ids, got.flip(0))

    monkeypatch.setattr("vendomini.engines.hf.engine.first_prompt", wrong)


def test_a_first_prompt_that_differs_makes_the_engine_go_on_one_at_a_time(
    llama: Path, hugging_face: Callable[..., HuggingFaceEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    misjudged(monkeypatch)
    engine, lines = hugging_face(llama, context_length=512, max_num_seqs=3), list[str]()
    engine._say = lines.append
    dialogues = [Dialogue(number) for number in range(4)]
    greedy = SamplingParams(max_tokens=6, temperature=0)

    async def run() -> None:
        async with engine:
            plain = Plain(engine)
            for turn in range(2):
                prompts = [list(one.conversation.token_ids) for one in dialogues]
                answers = await asyncio.gather(*(engine.generate(one.conversation, greedy) for one in dialogues))
                for one, ids, answer in zip(dialogues, prompts, answers, strict=True):
                    said = plain.says(ids)
                    assert answer.text == engine.tokenizer.decode([t for t in said if t not in plain.loaded.eos])
                    one.hear(said, turn)

    asyncio.run(run())
    assert str(engine.info.details["batching"]).startswith("one conversation at a time, keeping each conversation")
    assert sum("batching changes its answers after the first prompt" in line for line in lines) == 1


def test_without_a_fallback_a_first_prompt_that_differs_ends_the_engine(
    llama: Path, hugging_face: Callable[..., HuggingFaceEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    misjudged(monkeypatch)

    async def run() -> None:
        async with hugging_face(llama, context_length=512, fallback="never") as engine:
            for _ in range(2):
                with pytest.raises(EngineStopped, match="engine.fallback is never"):
                    await engine.generate(Conversation([5, 6, 7]), SamplingParams(max_tokens=6))
            assert engine.gone is not None

    asyncio.run(run())


@pytest.mark.parametrize(("room", "verdict"), [(100, "batched"), (5, "refused")])
def test_a_check_that_takes_too_much_memory_is_left_out_where_a_short_one_passed(
    monkeypatch: pytest.MonkeyPatch, room: int, verdict: str
) -> None:
    """Stands for a GPU's memory: a pass over more than so many tokens runs out of it."""
    from transformers import LlamaForCausalLM

    forward, refused = LlamaForCausalLM.forward, []

    def limited(self: Any, input_ids: Any = None, **options: Any) -> Any:
        if input_ids.shape[1] > room:
            refused.append(input_ids.shape[1])
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(LlamaForCausalLM, "forward", limited)
    outcome = examine("llama")
    assert outcome.verdict == verdict, outcome.note
    assert refused
    assert ("CUDA out of memory" in outcome.note) == (verdict == "refused")
