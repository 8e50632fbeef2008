"""The Hugging Face engine on real models: what it answers is what the model says, whoever else is in the batch."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import Conversation, wait
from tests.tiny_model import make_tiny_model, make_tokenizer
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import Completion, SamplingParams
from vendomini.engines.hf import engine as hf
from vendomini.engines.hf import model as hf_model
from vendomini.engines.hf.cache import common_prefix
from vendomini.engines.hf.engine import HuggingFaceEngine
from vendomini.engines.hf.model import LoadedModel
from vendomini.errors import EngineError, EngineUnavailable
from vendomini.probe import Capabilities

MakeEngine = Callable[..., HuggingFaceEngine]
GREEDY = SamplingParams(max_tokens=24, temperature=0)
ENDLESS = SamplingParams(max_tokens=100_000, seed=1, json_schema={"type": "string", "minLength": 9000})
"""Its grammar lets it end only long after every context of these tests."""


def ids(length: int, seed: int = 0) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(5, 250) for _ in range(length)]


def reference(folder: Path, prompt: list[int], new: int, attention: str = "sdpa", **options: Any) -> str:
    """What Transformers' own ``generate`` says, greedily."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32).eval()
    tensor = torch.tensor([prompt])
    options |= {"attention_mask": torch.ones_like(tensor), "max_new_tokens": new, "do_sample": False}
    output = model.generate(tensor, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = str(tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=False))
    return text.removesuffix(tokenizer.eos_token)


async def together(engine: HuggingFaceEngine, prompts: list[Conversation], params: SamplingParams) -> list[Completion]:
    return list(await asyncio.gather(*(engine.generate(prompt, params) for prompt in prompts)))


def completions(engine: HuggingFaceEngine, prompts: list[list[int]], params: SamplingParams) -> list[Completion]:
    async def run() -> list[Completion]:
        async with engine:
            return await together(engine, [Conversation(prompt) for prompt in prompts], params)

    return wait(run())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_batch_of_unequal_prompts_says_what_generate_says_for_each(
    tiny: Path, hugging_face: MakeEngine, attention: str
) -> None:
    prompts = [ids(length, length) for length in (3, 1, 40, 700, 17, 200)]
    answers = completions(hugging_face(tiny, attn_implementation=attention), prompts, GREEDY)
    assert [answer.text for answer in answers] == [reference(tiny, prompt, 24, attention) for prompt in prompts]


def test_a_repetition_penalty_is_that_of_generate_and_of_its_own_row_alone(
    tiny: Path, hugging_face: MakeEngine
) -> None:
    prompts = [ids(60, 1), ids(60, 2)]
    penalised = SamplingParams(40, temperature=0, repetition_penalty=1.5)

    async def run() -> list[Completion]:
        async with hugging_face(tiny) as engine:
            asked = [(Conversation(prompt), params) for prompt in prompts for params in (penalised, GREEDY)]
            return list(await asyncio.gather(*(engine.generate(*one) for one in asked)))

    answers = [answer.text for answer in wait(run())]
    expected = [(reference(tiny, p, 40, repetition_penalty=1.5), reference(tiny, p, 24)) for p in prompts]
    assert answers == [text for pair in expected for text in pair]
    assert all(strict[: len(free)] != free for strict, free in expected)


def other_model(folder: Path, kind: str) -> Path:
    """A tiny model of another architecture, with the tokenizer of the tests."""
    import torch
    import transformers

    tokenizer = make_tokenizer(512)
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    extra: dict[str, dict[str, Any]] = {
        "Mistral": {"sliding_window": 8},
        "Gemma3Text": {
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "Qwen3": {},
        "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        "DeepseekV3": {
            "head_dim": 8,
            "num_key_value_heads": 4,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 24,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
        },
        "Gemma2": {"sliding_window": 8, "attn_logit_softcapping": 0.5},
        "Qwen3Next": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    }
    names = {"Gemma3Text": "Gemma3ForCausalLM"}
    config = getattr(transformers, f"{kind}Config")(**(common | extra[kind]))
    torch.manual_seed(0)
    model = getattr(transformers, names.get(kind, f"{kind}ForCausalLM"))(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["Mistral", "Gemma3Text", "Qwen3", "Qwen3Moe", "DeepseekV3"])
def test_sliding_windows_experts_and_latent_attention_say_what_generate_says(
    tmp_path: Path, hugging_face: MakeEngine, kind: str
) -> None:
    folder = other_model(tmp_path, kind)
    prompts = [ids(length, length) for length in (30, 5, 61)]
    answers = completions(hugging_face(folder), prompts, GREEDY)
    assert [answer.text for answer in answers] == [reference(folder, prompt, 24) for prompt in prompts]


def test_an_architecture_with_a_recurrent_state_runs_one_conversation_at_a_time(
    tmp_path: Path, here: Capabilities
) -> None:
    folder, lines = other_model(tmp_path, "Qwen3Next"), []
    model = Model(name=str(folder), dtype="float32", context_length=1024, max_tokens=64)
    engine = HuggingFaceEngine(model, EngineConfig(), here, lines.append)
    prompts = [ids(length, length) for length in (30, 5, 61)]
    answers = completions(engine, prompts, GREEDY)
    assert [answer.text for answer in answers] == [reference(folder, prompt, 24) for prompt in prompts]
    assert "linear_attention keep a state" in engine.info.details["batching"]
    (warning,) = [line for line in lines if line.startswith("[WARNING]")]
    assert "runs one conversation at a time" in warning
    assert "tokens/s" in warning


def test_one_conversation_at_a_time_is_refused_where_nothing_slower_is_wanted(
    tmp_path: Path, hugging_face: MakeEngine
) -> None:
    with pytest.raises(EngineUnavailable, match=r"can't be batched .* engine\.fallback is never\. Run it with vLLM"):
        wait(hugging_face(other_model(tmp_path, "Qwen3Next"), fallback="never").start())


def test_a_seed_decides_alone_whoever_the_neighbours_are(tiny: Path, hugging_face: MakeEngine) -> None:
    params = [SamplingParams(24, temperature=0.9, top_p=0.95, seed=seed) for seed in range(6)]
    prompts = [ids(20 + 9 * n, n) for n in range(6)]

    async def run() -> tuple[list[str], list[str]]:
        async with hugging_face(tiny) as engine:
            batched = await asyncio.gather(
                *(engine.generate(Conversation(p), param) for p, param in zip(prompts, params, strict=True))
            )
            alone = [await engine.generate(Conversation(p), param) for p, param in zip(prompts, params, strict=True)]
            return [answer.text for answer in batched], [answer.text for answer in alone]

    batched, alone = wait(run())
    assert batched == alone
    assert len(set(batched)) == 6


def test_two_seeds_differ_and_one_repeats(tiny: Path, hugging_face: MakeEngine) -> None:
    async def run() -> list[str]:
        async with hugging_face(tiny) as engine:
            seeds = (1, 1, 2)
            return [(await engine.generate(Conversation(ids(9)), SamplingParams(24, seed=s))).text for s in seeds]

    first, again, other = wait(run())
    assert first == again != other


def test_a_conversation_keeps_its_keys_and_values_from_turn_to_turn(tiny: Path, hugging_face: MakeEngine) -> None:
    async def run() -> list[tuple[Completion, str]]:
        async with hugging_face(tiny, context_length=4096) as engine:
            conversation, seen = Conversation(ids(300)), []
            for turn in range(5):
                answer = await engine.generate(conversation, GREEDY)
                seen.append((answer, reference(tiny, conversation.token_ids, 24)))
                conversation.token_ids = conversation.token_ids + ids(150, turn + 1)
            return seen

    turns = wait(run())
    assert [answer.text for answer, _ in turns] == [expected for _, expected in turns]
    assert [answer.cached_tokens for answer, _ in turns] == [0, 300, 450, 600, 750]


def test_a_history_that_was_cut_is_computed_anew_from_where_it_differs(tiny: Path, hugging_face: MakeEngine) -> None:
    async def run() -> Completion:
        async with hugging_face(tiny) as engine:
            conversation = Conversation(ids(40) + ids(200, 1))
            await engine.generate(conversation, GREEDY)
            conversation.token_ids = ids(40) + ids(90, 2)
            conversation.epoch += 1
            return await engine.generate(conversation, GREEDY)

    answer = wait(run())
    assert answer.text == reference(tiny, ids(40) + ids(90, 2), 24)
    assert answer.cached_tokens == 40


def test_a_shared_system_prompt_is_computed_once(tiny: Path, hugging_face: MakeEngine) -> None:
    async def run() -> list[Completion]:
        async with hugging_face(tiny) as engine:
            first = await engine.generate(Conversation(ids(120) + ids(30, 1)), GREEDY)
            return [first, await engine.generate(Conversation(ids(120) + ids(30, 2)), GREEDY)]

    first, second = wait(run())
    assert (first.cached_tokens, second.cached_tokens) == (0, 120)
    assert second.text == reference(tiny, ids(120) + ids(30, 2), 24)


def test_of_episodes_that_begin_together_one_computes_the_system_prompt(tiny: Path, hugging_face: MakeEngine) -> None:
    prompts = [ids(600) + [5 + n] * (20 + n) for n in range(6)]
    answers = completions(hugging_face(tiny), prompts, GREEDY)
    assert sorted(answer.cached_tokens for answer in answers) == [0, *[600] * 5]
    assert [answer.text for answer in answers] == [reference(tiny, prompt, 24) for prompt in prompts]


@pytest.mark.parametrize("count", [8, 40])
def test_seating_a_conversation_costs_the_same_however_many_there_are(
    tiny: Path, hugging_face: MakeEngine, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    compared = 0

    def counted(left: list[int], right: list[int]) -> int:
        nonlocal compared
        compared += 1
        return common_prefix(left, right)

    monkeypatch.setattr("vendomini.engines.hf.batch.common_prefix", counted)
    prompts = [ids(600) + ids(20, n) for n in range(count)]
    answers = completions(hugging_face(tiny, max_num_seqs=count), prompts, SamplingParams(max_tokens=2, temperature=0))
    assert sum(answer.cached_tokens == 0 for answer in answers) == 1
    assert compared <= 3 * count


def test_more_conversations_than_slots_take_turns(tiny: Path, hugging_face: MakeEngine) -> None:
    prompts = [ids(30 + n, n) for n in range(9)]
    engine = hugging_face(tiny, max_num_seqs=2)
    answers = completions(engine, prompts, GREEDY)
    assert [answer.text for answer in answers] == [reference(tiny, prompt, 24) for prompt in prompts]
    assert engine.max_num_seqs == 2


def test_episodes_of_unequal_length_join_and_leave(tiny: Path, hugging_face: MakeEngine) -> None:
    """Random arrivals and lengths over few slots: every answer is the one given in an empty engine."""
    generator = random.Random(7)
    jobs = [(ids(generator.randrange(1, 90), n), generator.randrange(1, 40)) for n in range(24)]

    async def late(engine: HuggingFaceEngine, prompt: list[int], new: int, delay: float) -> str:
        await asyncio.sleep(delay)
        return (await engine.generate(Conversation(prompt), SamplingParams(new, seed=new))).text

    async def run() -> tuple[list[str], list[str]]:
        async with hugging_face(tiny, max_num_seqs=5) as engine:
            crowd = await asyncio.gather(*(late(engine, *job, generator.random() / 5) for job in jobs))
            return crowd, [await late(engine, *job, 0) for job in jobs]

    crowd, alone = wait(run())
    assert crowd == alone


def test_a_stop_string_ends_the_text_before_it(tiny: Path, hugging_face: MakeEngine) -> None:
    whole = reference(tiny, ids(20), 60)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    (answer,) = completions(hugging_face(tiny), [ids(20)], SamplingParams(60, temperature=0, stop=("\0never", stop)))
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"
    assert answer.completion_tokens < 60


def test_the_end_token_of_the_model_ends_the_completion(tmp_path: Path, hugging_face: MakeEngine) -> None:
    """Whatever the model says third is declared its end token, in the form of a list as many models have it."""
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path)
    import torch

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tensor = torch.tensor([ids(20)])
    said = model.generate(tensor, attention_mask=torch.ones_like(tensor), max_new_tokens=5, do_sample=False)[0, 20:]
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": [1, int(said[2])]}))
    (answer,) = completions(hugging_face(folder), [ids(20)], GREEDY)
    assert (answer.finish_reason, answer.completion_tokens) == ("stop", 3)


def test_a_schema_constrains_one_row_and_leaves_its_neighbours_alone(tiny: Path, hugging_face: MakeEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"tool": {"enum": ["tool_order", "tool_quote"]}, "quantity": {"type": "boolean"}},
        "required": ["tool", "quantity"],
        "additionalProperties": False,
    }

    async def run() -> list[Completion]:
        async with hugging_face(tiny) as engine:
            constrained = SamplingParams(100, seed=3, json_schema=schema)
            return await asyncio.gather(
                engine.generate(Conversation(ids(20)), constrained),
                engine.generate(Conversation(ids(31, 1)), GREEDY),
                engine.generate(Conversation(ids(12, 2)), constrained),
            )

    first, free, second = wait(run())
    assert set(json.loads(first.text)) == set(json.loads(second.text)) == {"tool", "quantity"}
    assert first.finish_reason == "stop"
    assert free.text == reference(tiny, ids(31, 1), 24)


def test_a_schema_that_is_none_fails_its_own_request_only(tiny: Path, hugging_face: MakeEngine) -> None:
    async def run() -> tuple[Any, Completion]:
        async with hugging_face(tiny) as engine:
            bad = engine.generate(Conversation(ids(20)), SamplingParams(9, json_schema={"type": "nonsense"}))
            good = engine.generate(Conversation(ids(20)), GREEDY)
            return tuple(await asyncio.gather(bad, good, return_exceptions=True))

    bad, good = wait(run())
    assert isinstance(bad, EngineError)
    assert good.text == reference(tiny, ids(20), 24)


def test_the_context_ends_a_completion(tiny: Path, hugging_face: MakeEngine) -> None:
    (answer,) = completions(hugging_face(tiny, context_length=512), [ids(500)], SamplingParams(60, temperature=0))
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 12)


@pytest.mark.parametrize("length", [0, 512, 3000])
def test_a_prompt_that_does_not_fit_is_an_error_of_its_own(tiny: Path, hugging_face: MakeEngine, length: int) -> None:
    with pytest.raises(EngineError, match=f"a prompt of {length} tokens does not fit the context of 512"):
        completions(hugging_face(tiny, context_length=512), [ids(length)], GREEDY)


def test_a_cancelled_request_frees_its_slot(tiny: Path, hugging_face: MakeEngine) -> None:
    async def run() -> Completion:
        async with hugging_face(tiny, max_num_seqs=1) as engine:
            endless = asyncio.create_task(engine.generate(Conversation(ids(5)), ENDLESS))
            await asyncio.sleep(0.05)
            endless.cancel()
            await asyncio.gather(endless, return_exceptions=True)
            return await asyncio.wait_for(engine.generate(Conversation(ids(20)), GREEDY), timeout=30)

    assert wait(run()).text == reference(tiny, ids(20), 24)


def test_closing_fails_those_who_wait_and_may_be_done_twice(tiny: Path, hugging_face: MakeEngine) -> None:
    async def run() -> Any:
        engine = hugging_face(tiny)
        await engine.start()
        endless = asyncio.create_task(engine.generate(Conversation(ids(5)), ENDLESS))
        await asyncio.sleep(0.05)
        await engine.close()
        await engine.close()
        return (await asyncio.gather(endless, return_exceptions=True))[0]

    assert isinstance(wait(run()), EngineError)


def test_a_slow_answer_is_an_engine_error(tiny: Path, hugging_face: MakeEngine) -> None:
    with pytest.raises(EngineError, match=r"no answer within 1 s \(engine.request_timeout\)"):
        completions(hugging_face(tiny, context_length=4000, request_timeout=1), [ids(5)], ENDLESS)


def test_a_model_that_fails_fails_everybody_with_the_reason(tiny: Path, hugging_face: MakeEngine) -> None:
    """A token id beyond the vocabulary breaks the forward pass itself, as a lost GPU would."""

    async def run() -> list[Any]:
        async with hugging_face(tiny) as engine:
            bad = engine.generate(Conversation([10**6]), GREEDY)
            first = (await asyncio.gather(bad, return_exceptions=True))[0]
            later = (await asyncio.gather(engine.generate(Conversation(ids(5)), GREEDY), return_exceptions=True))[0]
            return [first, later, engine.gone]

    first, later, gone = wait(run())
    assert "the Hugging Face engine failed: index out of range" in str(first)
    assert isinstance(later, EngineError)
    assert gone == str(first)


def test_a_started_engine_is_entered_without_a_second_start(tiny: Path, hugging_face: MakeEngine) -> None:
    async def run() -> bool:
        engine = hugging_face(tiny)
        await engine.start()
        batcher = engine._batcher
        async with engine:
            return engine._batcher is batcher

    assert wait(run())


def test_the_thread_that_loaded_the_model_ends(
    tiny: Path, hugging_face: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it lives, OpenMP has more helpers than cores and lets all of them sleep between operations."""
    loaders = []

    def load(*arguments: Any) -> LoadedModel:
        loaders.append(threading.current_thread())
        return hf_model.load(*arguments)

    monkeypatch.setattr(hf, "load", load)

    async def run() -> bool:
        async with hugging_face(tiny):
            loaders[0].join(10)
            return loaders[0].is_alive()

    assert not wait(run())


def test_info_says_what_is_loaded(tiny: Path, hugging_face: MakeEngine) -> None:
    engine = hugging_face(tiny)
    completions(engine, [ids(5)], GREEDY)
    assert (engine.info.backend, engine.info.attention) == ("hf", "sdpa")
    assert engine.info.details["dtype"] == "float32"
    assert engine.info.details["devices"] == ["cpu"]
    assert engine.context_length == 4096


@pytest.mark.parametrize(
    ("left", "right", "length"),
    [([], [], 0), ([1], [], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 9, 3], 1), ([5], [6], 0)],
)
def test_common_prefix(left: list[int], right: list[int], length: int) -> None:
    assert common_prefix(left, right) == common_prefix(right, left) == length


def test_common_prefix_of_long_histories() -> None:
    history = ids(5000)
    for cut in (1, 4096, 4999):
        assert common_prefix(history, [*history[:cut], -1, *history[cut + 1 :]]) == cut


def test_a_cpu_without_bfloat16_computes_in_float32(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path, dtype="bfloat16")
    for has, dtype, expected in (
        (True, "auto", "bfloat16"),
        (False, "auto", "float32"),
        (False, "bfloat16", "bfloat16"),
    ):
        found = Capabilities(bfloat16=has, memory=1 << 30)
        loaded = hf_model.load(Model(name=str(folder), dtype=dtype), EngineConfig(), found)
        assert str(loaded.model.dtype) == f"torch.{expected}"
