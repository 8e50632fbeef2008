"""The path of a GPU with Flash Attention, on emulated kernels, and the attention that takes over where these refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engines.conftest import FLASH, TRANSFORMERS, Conversation, machine, wait
from tests.engines.flash import Kernels, Recording, attend, emulate, emulate_graphs
from tests.engines.test_hf import completions, ids, other_model, reference
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import Completion, SamplingParams
from vendomini.engines.hf import batch, cache, check, graphs, slots
from vendomini.engines.hf.cache import SlotCache
from vendomini.engines.hf.engine import HuggingFaceEngine

GREEDY = SamplingParams(max_tokens=16, temperature=0)
MakeFlash = Callable[..., HuggingFaceEngine]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> MakeFlash:
    """An engine on a machine that says it has an A100 with flash-attn; the model is computed on the CPU."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)

    def make(folder: Path, dtype: str = "float32", **engine: Any) -> HuggingFaceEngine:
        model = Model.model_validate({"name": str(folder), "dtype": dtype, "context_length": 1024, "max_tokens": 64})
        found = machine("A100", packages=(FLASH, *TRANSFORMERS))
        return HuggingFaceEngine(model, EngineConfig(**engine), found, lines.append)

    return make


@pytest.mark.parametrize(
    ("causal", "window", "softcap"), [(True, (-1, -1), 0.0), (True, (5, 0), 0.0), (True, (-1, -1), 3.0)]
)
def test_the_reference_kernels_agree_with_pytorch(causal: bool, window: tuple[int, int], softcap: float) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(4, 6, 8), torch.randn(9, 2, 8), torch.randn(9, 2, 8)
    rows, columns = torch.arange(5, 9)[:, None], torch.arange(9)
    allowed = (columns <= rows) & ((columns >= rows - window[0]) if window[0] >= 0 else True)
    keys, values = (part.transpose(0, 1).repeat_interleave(3, 0) for part in (k, v))
    if softcap:
        scores = softcap * torch.tanh(q.transpose(0, 1) @ keys.mT * 8**-0.5 / softcap)
        wanted = scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ values
    else:
        wanted = torch.nn.functional.scaled_dot_product_attention(q.transpose(0, 1), keys, values, attn_mask=allowed)
    torch.testing.assert_close(attend(q, k, v, None, causal, window, softcap), wanted.transpose(0, 1))


def test_writing_into_a_cache_is_attending_to_all_of_it() -> None:
    torch.manual_seed(0)
    q, keys, values = torch.randn(2, 1, 4, 8), torch.randn(2, 10, 2, 8), torch.randn(2, 10, 2, 8)
    cache_k, cache_v = keys.clone(), values.clone()
    cache_k[:, 6:], cache_v[:, 6:] = 0, 0
    new = (keys[:, 6:7], values[:, 6:7])
    got = Kernels(strict=False).flash_attn_with_kvcache(
        q, cache_k, cache_v, *new, cache_seqlens=torch.tensor([6, 6], dtype=torch.int32), causal=True
    )
    wanted = Kernels(strict=False).flash_attn_func(q, keys[:, :7], values[:, :7], causal=True)
    torch.testing.assert_close(got, wanted)


def test_a_batch_on_flash_attention_says_what_generate_says(
    tiny: Path, flash: MakeFlash, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = emulate(monkeypatch)
    engine = flash(tiny)
    prompts = [ids(length, length) for length in (3, 40, 17, 200)]
    answers = completions(engine, prompts, GREEDY)
    assert engine.info.attention == "flash_attention_2"
    assert lines == ["[*] Using Flash Attention 2 (GPU compute capability: (8, 0))"]
    assert set(kernels.calls) == {"flash_attn_func", "flash_attn_with_kvcache"}, "plain passes, and slots in place"
    assert [answer.text for answer in answers] == [reference(tiny, prompt, 16) for prompt in prompts]


@pytest.mark.parametrize("kind", ["Mistral", "Gemma3Text"])
def test_windows_on_flash_attention_say_what_generate_says(
    tmp_path: Path, flash: MakeFlash, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    emulate(monkeypatch)
    folder = other_model(tmp_path, kind)
    engine = flash(folder)
    prompts = [ids(length, length) for length in (30, 5, 61)]
    answers = completions(engine, prompts, GREEDY)
    assert engine.info.attention == "flash_attention_2"
    assert [answer.text for answer in answers] == [reference(folder, prompt, 16) for prompt in prompts]


@pytest.mark.parametrize(
    ("kind", "attention", "recorded"),
    [
        ("Mistral", "flash_attention_2", True),
        ("Mistral", "sdpa", False),
        ("Gemma3Text", "flash_attention_2", False),
        ("Gemma3Text", "sdpa", True),
    ],
)
def test_layers_with_a_window_keep_little_and_say_the_same(
    tmp_path: Path, flash: MakeFlash, monkeypatch: pytest.MonkeyPatch, kind: str, attention: str, recorded: bool
) -> None:
    """Rows move on in their slots many times; turns drop nothing, less than the margin, more, and nearly all."""
    emulate(monkeypatch)
    recordings = emulate_graphs(monkeypatch) if recorded else []
    for module in (cache, batch, check):
        monkeypatch.setattr(module, "PREFILL_TOKENS", 16)
    monkeypatch.setattr(cache, "MARGIN", 4)
    monkeypatch.setattr(cache, "FIRST_CAPACITY", 8)
    folder = other_model(tmp_path, kind)

    async def converse(engine: HuggingFaceEngine, seed: int) -> list[tuple[str, str, int | None]]:
        conversation, seen = Conversation(ids(90 + seed, 5)), []
        for turn, dropped in enumerate((0, 2, 30, 150)):
            answer = await engine.generate(conversation, GREEDY)
            seen.append((answer.text, reference(folder, conversation.token_ids, 16), answer.cached_tokens))
            left = conversation.token_ids[: len(conversation.token_ids) - dropped]
            conversation.token_ids = left + ids(50, seed + turn)
        return seen

    async def run() -> tuple[list[list[tuple[str, str, int | None]]], SlotCache]:
        async with flash(folder, attn_implementation=attention, max_num_seqs=3) as engine:
            turns = await asyncio.gather(*(converse(engine, seed) for seed in range(4)))
            assert isinstance(engine._batcher, batch.Batcher)
            assert engine.info.attention == attention
            return turns, engine._batcher._cache  # type: ignore[return-value]

    turns, kept = wait(run())
    for conversation in turns:
        assert [got for got, _, _ in conversation] == [wanted for _, wanted, _ in conversation]
    assert max(kept.sliding.first) > 50
    assert {keys.shape[2] for keys, _ in kept.sliding.stored.values()} == {8 + 4 + 16 + 1}
    assert len(kept.full.stored) == (1 if kind == "Gemma3Text" else 0)
    assert not recorded or sum(recording.replays for recording in recordings) > len(recordings)


@pytest.mark.parametrize("attention", ["flash_attention_2", "sdpa", "eager"])
def test_recorded_steps_say_what_generate_says(
    tiny: Path, flash: MakeFlash, monkeypatch: pytest.MonkeyPatch, attention: str
) -> None:
    """Rows come and go, in numbers that share a recording with others."""
    emulate(monkeypatch)
    recordings = emulate_graphs(monkeypatch)
    lengths, new = (3, 40, 500, 17, 200, 90, 30), (9, 40, 24, 3, 16, 30, 12)

    async def run() -> list[Completion]:
        async with flash(tiny, attn_implementation=attention, max_num_seqs=5) as engine:
            asked = [
                engine.generate(Conversation(ids(length, length)), SamplingParams(max_tokens=tokens, temperature=0))
                for length, tokens in zip(lengths, new, strict=True)
            ]
            answers = await asyncio.gather(*asked)
            assert engine.loaded is not None
            assert not engine.loaded.no_graphs
            return answers

    answers = wait(run())
    wanted = [reference(tiny, ids(length, length), tokens) for length, tokens in zip(lengths, new, strict=True)]
    assert [answer.text for answer in answers] == wanted
    replays = [recording.replays for recording in recordings]
    assert sum(replays) > 2 * len(replays), "few recordings serve many steps"


def test_attention_by_products_is_pytorchs_own_attention() -> None:
    torch.manual_seed(0)
    keys, values, query = torch.randn(3, 2, 9, 8), torch.randn(3, 2, 9, 4), torch.randn(3, 2, 4, 8)
    mask = (torch.arange(7) < torch.tensor([3, 7, 1])[:, None])[:, None, None]
    inputs = (query, keys[:, :, :7], values[:, :, :7])
    for scale in (None, 0.5):
        wanted = torch.nn.functional.scaled_dot_product_attention(*inputs, attn_mask=mask, scale=scale)
        torch.testing.assert_close(slots.attend_by_products(*inputs, mask, scale=scale), wanted)


@pytest.mark.parametrize("kind", ["Mistral", "Gemma3Text", "Qwen3"])
def test_attention_by_products_says_what_generate_says(
    tmp_path: Path, flash: MakeFlash, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As on a GPU without Flash Attention."""
    monkeypatch.setattr(slots, "pays_as_products", lambda _: True)
    recordings = emulate_graphs(monkeypatch)
    folder = other_model(tmp_path, kind)
    prompts = [ids(length, length) for length in (30, 5, 61)]
    answers = completions(flash(folder, attn_implementation="sdpa"), prompts, GREEDY)
    assert [answer.text for answer in answers] == [reference(folder, prompt, 16) for prompt in prompts]
    assert sum(recording.replays for recording in recordings) > 10


def test_a_model_that_looks_at_its_numbers_is_not_recorded(
    tiny: Path, flash: MakeFlash, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    emulate_graphs(monkeypatch)
    plain = LlamaForCausalLM.forward

    def looks(self: Any, *args: Any, **kwargs: Any) -> Any:
        assert int(kwargs["input_ids"].max()) >= 0
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", looks)
    engine = flash(tiny, attn_implementation="sdpa")

    (answer,) = completions(engine, [ids(40)], GREEDY)
    monkeypatch.setattr(LlamaForCausalLM, "forward", plain)
    assert answer.text == reference(tiny, ids(40), 16)
    why = "RuntimeError: operation not permitted when stream is capturing"
    assert engine.info.details["cuda_graphs"] == f"no: {why}"
    assert lines[-1] == f"[*] Steps are not recorded as CUDA graphs ({why}): decoding is slower"


def test_a_recording_that_fails_later_is_said_once(
    tiny: Path, flash: MakeFlash, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of a GPU that others share runs full."""
    made = emulate_graphs(monkeypatch)
    record = graphs.recorder(None)  # type: ignore[arg-type]

    def full(work: Callable[[], object]) -> Any:
        if len(made) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return record(work)  # type: ignore[misc]

    monkeypatch.setattr(graphs, "recorder", lambda _: full)
    engine = flash(tiny, attn_implementation="sdpa")
    prompts = [ids(length, length) for length in (30, 5, 61, 12)]

    async def run() -> list[str]:
        async with engine:
            asked = (engine.generate(Conversation(ids), SamplingParams(4 * n, 0.0)) for n, ids in enumerate(prompts, 1))
            return [answer.text for answer in await asyncio.gather(*asked)]

    assert wait(run()) == [reference(tiny, prompt, 4 * n) for n, prompt in enumerate(prompts, 1)]
    assert engine.info.details["cuda_graphs"] == "no: OutOfMemoryError: CUDA out of memory"
    assert [line for line in lines if "CUDA graphs" in line] == [
        "[*] Steps are not recorded as CUDA graphs (OutOfMemoryError: CUDA out of memory): decoding is slower"
    ]


def test_a_recording_that_differs_is_not_used(tiny: Path, flash: MakeFlash, monkeypatch: pytest.MonkeyPatch) -> None:
    emulate_graphs(monkeypatch)
    monkeypatch.setattr(Recording, "replay", lambda self: self.steps[-1][-1].zero_())
    engine = flash(tiny, attn_implementation="sdpa")
    (answer,) = completions(engine, [ids(40)], GREEDY)
    assert answer.text == reference(tiny, ids(40), 16)


def test_a_conversation_on_flash_attention_keeps_its_keys(
    tiny: Path, flash: MakeFlash, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate(monkeypatch)

    async def run() -> list[tuple[str, str, int | None]]:
        async with flash(tiny) as engine:
            conversation, seen = Conversation(ids(100)), []
            for turn in range(3):
                answer = await engine.generate(conversation, GREEDY)
                seen.append((answer.text, reference(tiny, conversation.token_ids, 16), answer.cached_tokens))
                conversation.token_ids = conversation.token_ids + ids(50, turn + 1)
            return seen

    turns = wait(run())
    assert [got for got, _, _ in turns] == [wanted for _, wanted, _ in turns]
    assert [cached for *_, cached in turns] == [0, 100, 150]


def test_weights_that_the_kernels_refuse_run_with_sdpa(
    tiny: Path, flash: MakeFlash, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading with Flash Attention succeeds; the first pass of a 32-bit checkpoint does not."""
    emulate(monkeypatch, strict=True)
    engine = flash(tiny)
    (answer,) = completions(engine, [ids(20)], GREEDY)
    assert engine.info.attention == "sdpa"
    assert answer.text == reference(tiny, ids(20), 16)
    assert lines == [
        "[*] Flash Attention is installed but fails with this model (RuntimeError: FlashAttention only support "
        "fp16 and bf16 data type), using sdpa attention (slower)"
    ]


def test_heads_that_the_kernels_refuse_run_with_sdpa(
    tmp_path: Path, flash: MakeFlash, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tiny_model import make_tiny_model

    emulate(monkeypatch, strict=True)
    engine = flash(make_tiny_model(tmp_path, hidden=1024, heads=2, layers=1), dtype="bfloat16")
    completions(engine, [ids(20)], GREEDY)
    assert engine.info.attention == "sdpa"


def test_capped_scores_are_never_computed_by_sdpa_which_leaves_the_cap_out(
    tmp_path: Path, flash: MakeFlash, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = other_model(tmp_path, "Gemma2")
    without = flash(folder)
    prompts = [ids(length, length) for length in (30, 5)]
    eager = [answer.text for answer in completions(without, prompts, GREEDY)]
    assert without.info.attention == "eager"
    emulate(monkeypatch)
    with_flash = flash(folder)
    assert [answer.text for answer in completions(with_flash, prompts, GREEDY)] == eager
    assert with_flash.info.attention == "flash_attention_2"
