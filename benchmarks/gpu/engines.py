"""The same conversations on our Hugging Face engine, on Transformers' own continuous batching, and on vLLM.

Each turn adds random tokens to what was said and asks for an answer of a random length, greedily; the next turn begins
when the answer is there. All conversations are in flight at once.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.clock import peak_bytes, reset_peak
from benchmarks.gpu.plan import Plan
from vendomini.bench import Conversation, together
from vendomini.config.schema import EngineConfig
from vendomini.engines import Completion, Engine, SamplingParams
from vendomini.engines.hf import graphs
from vendomini.engines.hf.attention import attention_choices
from vendomini.engines.hf.engine import HuggingFaceEngine
from vendomini.engines.resolve import vllm_refusal
from vendomini.engines.vllm.engine import VllmEngine
from vendomini.probe import probe

Figures = dict[str, Any]

WARM_UP = 1000
"""Number of the first conversation that only warms an engine up."""


def ours(plan: Plan, folder: Path) -> Figures:
    config = EngineConfig(backend="hf", max_num_seqs=plan.conversations)
    return asyncio.run(_engine(plan, HuggingFaceEngine(plan.model(folder, plan.talk), config, probe(), print)))


def unrecorded(plan: Plan, folder: Path) -> Figures:
    """As ``ours``, with every kernel launched by itself: what CUDA graphs save."""
    usual, graphs.recorder = graphs.recorder, lambda _: None
    try:
        return ours(plan, folder)
    finally:
        graphs.recorder = usual


def vllm(plan: Plan, folder: Path) -> Figures:
    config = EngineConfig(backend="vllm", max_num_seqs=plan.conversations)
    if refusal := vllm_refusal(config, os.environ, probe()):
        return {"failed": refusal}
    return asyncio.run(_engine(plan, VllmEngine(plan.model(folder, plan.talk), config, probe(), print)))


async def _engine(plan: Plan, engine: Engine) -> Figures:
    began = time.perf_counter()
    async with engine:
        load_s = time.perf_counter() - began
        await _talk(plan, engine, WARM_UP, 1)
        reset_peak()
        began = time.process_time()
        rate, answers = await _talk(plan, engine, 0, plan.turns)
        cpu_s = time.process_time() - began
        prompts, cached = (sum(getattr(one, name) for one in answers) for name in ("prompt_tokens", "cached_tokens"))
        return {
            "tokens_s": rate,
            "cpu_ms": cpu_s * 1000 / sum(one.completion_tokens for one in answers),
            "load_s": load_s,
            "cached": cached / prompts,
            "attention": engine.info.attention,
            "peak_bytes": peak_bytes() if engine.info.backend == "hf" else None,  # others have their own process
        }


async def _talk(plan: Plan, engine: Engine, first: int, turns: int) -> tuple[float, list[Completion]]:
    async def one(number: int) -> list[Completion]:
        prompt, answers = Conversation(), []
        for turn in range(turns):
            prompt.token_ids = prompt.token_ids + added(plan, number, turn)
            answers.append(await engine.generate(prompt, SamplingParams(wanted(plan, number, turn), 0.0)))
            said = engine.tokenizer.encode(answers[-1].text, add_special_tokens=False)
            prompt.token_ids = prompt.token_ids + said
        return answers

    return await together(one(number) for number in range(first, first + plan.conversations))


def added(plan: Plan, number: int, turn: int) -> list[int]:
    generator = random.Random(number * 1000 + turn)
    return [generator.randrange(10, plan.shape["vocab"] // 2) for _ in range(plan.added)]


def wanted(plan: Plan, number: int, turn: int) -> int:
    """New tokens of a turn, from half to one and a half times the plan's: real answers do not end together."""
    return plan.new // 2 + random.Random(number * 1000 + turn).randrange(plan.new + 1)


def continuous(plan: Plan, folder: Path) -> Figures:
    """Transformers' own: paged attention, prefixes shared by pages, CUDA graphs where its own choice is to use them."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    began = time.perf_counter()
    dtype = getattr(torch, plan.shape["dtype"])
    # Flash Attention 3 may be built without pages, which it would need.
    attention = next(one for one in attention_choices(probe(), "auto") if one in {"flash_attention_2", "sdpa"})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
    model = model.to(plan.device).eval()
    how = GenerationConfig(max_new_tokens=2 * plan.new, do_sample=False, eos_token_id=-1, pad_token_id=0)
    sizes: dict[str, Any] = {"max_requests_per_batch": plan.conversations}
    if plan.device == "cpu":  # it would take all of the machine's memory
        pages = plan.conversations * (plan.talk // PAGE + 2)
        sizes |= {"page_size": PAGE, "num_blocks": pages, "max_batch_tokens": 2048}
    config = ContinuousBatchingConfig(**sizes)
    reset_peak()
    with model.continuous_batching_context_manager(how, continuous_batching_config=config) as manager:
        load_s = time.perf_counter() - began
        _serve(plan, manager, WARM_UP, 1)
        began, cpu_began = time.perf_counter(), time.process_time()
        tokens = _serve(plan, manager, 0, plan.turns)
        rate, cpu_s = tokens / (time.perf_counter() - began), time.process_time() - cpu_began
        chosen = manager.continuous_batching_config
        return {
            "tokens_s": rate,
            "cpu_ms": cpu_s * 1000 / tokens,
            "load_s": load_s,
            "attention": model.config._attn_implementation,
            "cuda_graphs": chosen.use_cuda_graph,
            "async": chosen.use_async_batching,
            "peak_bytes": peak_bytes(),
        }


PAGE = 32
"""Tokens of a page on a CPU: prefixes are shared by whole pages."""


def _serve(plan: Plan, manager: Any, first: int, turns: int) -> int:
    """New tokens of so many conversations, all in flight."""
    numbers = range(first, first + plan.conversations)
    prompts, turn, tokens = {number: added(plan, number, 0) for number in numbers}, dict.fromkeys(numbers, 1), 0
    asked = {
        manager.add_request(prompt, max_new_tokens=wanted(plan, number, 0)): number
        for number, prompt in prompts.items()
    }
    while asked:
        answer = manager.get_result(timeout=1)
        if answer is None or not answer.is_finished():
            if not manager.is_running():
                raise RuntimeError("its thread has ended")
            continue
        if answer.error is not None:
            raise RuntimeError(answer.error)
        number = asked.pop(answer.request_id)
        tokens += len(answer.generated_tokens)
        if turn[number] < turns:
            prompts[number] = prompts[number] + list(answer.generated_tokens) + added(plan, number, turn[number])
            asked[manager.add_request(prompts[number], max_new_tokens=wanted(plan, number, turn[number]))] = number
            turn[number] += 1
    return tokens
