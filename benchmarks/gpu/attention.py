"""Decode steps of the Hugging Face engine's own forward pass: attentions against the roofline, batch sizes, memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.clock import held_bytes, kernel_milliseconds, milliseconds, peak_bytes, reset_peak, used_bytes
from benchmarks.gpu.plan import PEAK_GB_S, Plan, loaded_model
from vendomini.bench import copy_bandwidth
from vendomini.engines.hf.attention import attention_choices, attention_line, flash_obstacle
from vendomini.engines.hf.cache import PREFILL_TOKENS, SlotCache
from vendomini.engines.hf.check import affordable_slots, check_batching, settle
from vendomini.engines.hf.forward import Forward
from vendomini.engines.hf.model import LoadedModel, first_line
from vendomini.engines.hf.slots import attend_by_products
from vendomini.model_info import model_facts
from vendomini.model_info.fit import OVERHEAD, fit
from vendomini.probe import probe

Figures = dict[str, Any]

bandwidth = cache(copy_bandwidth)
"""Bytes a second; measured once in a process."""

ATTENTIONS = ("flash_attention_3", "flash_attention_2", "sdpa", "eager")


def machine(plan: Plan, _folder: Path) -> Figures:
    """What the probe finds, the memory's speed, and which attentions it lets the engine try."""
    found, speed = probe(deep=plan.deep), bandwidth()
    name = found.gpus.devices[0].name if found.gpus.devices else "no GPU"
    peak = next((gb_s for part, gb_s in PEAK_GB_S.items() if part in name), None)
    packages = ("torch", "transformers", "flash_attn", "flash_attn_3", "vllm", "xgrammar")
    return {
        "gpu": name,
        "capability": found.gpus.capability,
        "memory": found.gpus.devices[0].memory if found.gpus.devices else None,
        "driver": found.gpus.driver,
        "cuda": found.gpus.cuda,
        "packages": {p: found.package(p).version or f"none: {found.package(p).reason}" for p in packages},
        "choices": attention_choices(found, "auto"),
        "flash_obstacle": flash_obstacle(found),
        "copy_gb_s": speed / 1e9,
        "peak_gb_s": peak,
    }


def attentions(plan: Plan, folder: Path) -> Figures:
    """Each attention: whether batched logits are the plain model's, and its decode step at each context."""
    loaded, speed = loaded_model(plan, folder, ATTENTIONS[-1]), bandwidth()
    found: Figures = {"rows": plan.rows, "weights": read_bytes(loaded), "bandwidth": speed, "by_attention": {}}
    for name in ATTENTIONS:
        loaded.attentions[:], loaded.passed_over[:] = [name], []
        try:
            loaded.use(name)
            check_batching(loaded, plan.limit)
        except Exception as exc:  # whatever a kernel raises is why it is not measured
            found["by_attention"][name] = {"failed": first_line(exc)}
            continue
        line = attention_line(name, probe(), ())
        found["by_attention"][name] = {"line": line, "steps": list(_steps(plan, loaded, speed))}
    return found


def _steps(plan: Plan, loaded: LoadedModel, speed: float) -> Iterator[Figures]:
    for context in plan.contexts:
        for kind, lengths in (("equal", [context] * plan.rows), ("ragged", _ragged(context, plan.rows))):
            try:
                yield {"context": context, "kind": kind} | _step(plan, loaded, lengths, speed)
            except Exception as exc:  # out of memory, in whatever way
                yield {"context": context, "kind": kind, "failed": first_line(exc)}
            tidy()


def _ragged(context: int, rows: int) -> list[int]:
    """Lengths spread evenly up to the context, as of episodes at different steps."""
    return [context * (row + 1) // rows for row in range(rows)]


def _step(plan: Plan, loaded: LoadedModel, lengths: list[int], speed: float) -> Figures:
    """One token for each row; the rows' keys and values are zeros, which take as long to read as any."""
    forward = Forward(loaded, len(lengths), max(lengths) + 8)

    def work() -> None:
        _decode(forward, lengths)

    ms = milliseconds(work, plan.repeats)
    recorded, loaded.no_graphs = forward.graphs.wanted, "measured without"
    unrecorded_ms = milliseconds(work, plan.repeats) if recorded else ms
    loaded.no_graphs = ""
    kept = sum(sum(forward.cache.slot_bytes(length).values()) for length in lengths)
    ideal = (read_bytes(loaded) + kept) / speed * 1000
    kernels = kernel_milliseconds(work)
    return {
        "ms": ms,
        "unrecorded_ms": unrecorded_ms,
        "kernels_ms": kernels,
        "ideal_ms": ideal,
        "share": ideal / ms,
        "kv_bytes": kept,
    }


def prompts(plan: Plan, folder: Path) -> Figures:
    """A pass over the new tokens of a turn, for one conversation and for several at once, with the attention that the
    engine chooses."""
    loaded, context, new = _with_its_attention(plan, folder), plan.contexts[0], min(plan.added, PREFILL_TOKENS // 4)
    rows = []
    for batch in (1, 2, 4):
        forward = Forward(loaded, batch, context)

        def work(forward: Forward = forward, batch: int = batch) -> None:
            with torch.inference_mode():
                forward([(slot, [7] * new, context - new) for slot in range(batch)]).argmax(dim=-1).tolist()

        rows.append({"batch": batch, "ms": milliseconds(work, plan.repeats), "kernels_ms": kernel_milliseconds(work)})
    return {"attention": loaded.attention, "context": context, "new": new, "batches": rows}


def _decode(forward: Forward, lengths: list[int]) -> list[int]:
    """A step as the engine takes it: it waits for the tokens, since the next step begins with them."""
    with torch.inference_mode():
        logits = forward([(slot, [7], length) for slot, length in enumerate(lengths)])
        return logits.argmax(dim=-1).tolist()


def read_bytes(loaded: LoadedModel) -> int:
    """Of the weights that a decode step reads: all but the table of embeddings, of which it reads a row a token."""
    parameters = {id(one): one.numel() * one.element_size() for one in loaded.model.parameters()}
    inputs, outputs = (get().weight for get in (loaded.model.get_input_embeddings, loaded.model.get_output_embeddings))
    return sum(parameters.values()) - (0 if inputs is outputs else parameters[id(inputs)])


def products(plan: Plan, _folder: Path) -> Figures:
    """A decode step's attention of one layer without Flash Attention, as PyTorch's own function and as two products."""
    shape, rows = plan.shape, []
    heads, dim = shape["kv_heads"], shape["hidden"] // shape["heads"]
    for batch, context in ((1, plan.contexts[1]), *((plan.rows, c) for c in plan.contexts), (64, plan.contexts[0])):

        def random(length: int, batch: int = batch) -> torch.Tensor:
            return torch.randn(batch, heads, length, dim, dtype=getattr(torch, shape["dtype"]), device=plan.device)

        inputs = random(shape["heads"] // heads), random(context), random(context)
        mask = (torch.arange(context) < torch.tensor(_ragged(context, batch))[:, None])[:, None, None].to(plan.device)
        ms = [
            milliseconds(lambda attend=attend, inputs=inputs, mask=mask: attend(*inputs, mask), plan.repeats)
            for attend in (torch.nn.functional.scaled_dot_product_attention, attend_by_products)
        ]
        rows.append({"batch": batch, "context": context, "own_ms": ms[0], "products_ms": ms[1]})
    return {"rows": rows}


def packing(plan: Plan, folder: Path) -> Figures:
    """Tokens a second by rows in a batch, at the shortest context, with the attention that the engine chooses."""
    loaded, speed = _with_its_attention(plan, folder), bandwidth()
    context, rows = plan.contexts[0], []
    for batch in plan.batches:
        try:
            figures = _step(plan, loaded, [context] * batch, speed)
        except Exception as exc:
            rows.append({"batch": batch, "failed": first_line(exc)})
            break
        rows.append({"batch": batch, "tokens_s": batch / figures["ms"] * 1000} | figures)
        tidy()
    return {"attention": loaded.attention, "context": context, "batches": rows}


def _with_its_attention(plan: Plan, folder: Path) -> LoadedModel:
    loaded = loaded_model(plan, folder, "auto")
    settle(loaded, plan.limit)
    return loaded


def memory(plan: Plan, folder: Path) -> Figures:
    """Bytes of weights, of a conversation and of activations: as predicted, and as they are in as many rows as the
    engine would open."""
    facts, context = model_facts(str(folder), None, probe()), plan.contexts[1]
    before_weights = held_bytes()
    loaded = _with_its_attention(plan, folder)
    tidy()
    weights = held_bytes() - before_weights
    sample = _sample(loaded, context)
    slots = affordable_slots(sample, context)
    rows = min(slots, plan.most_rows)
    del sample
    tidy()
    reset_peak()
    held, outside = held_bytes(), (used_bytes() or 0) - held_bytes()
    forward = Forward(loaded, rows, context)
    _prefill(forward, context - PREFILL_TOKENS)
    _decode(forward, [context - 1] * rows)
    kept = sum(sum(forward.cache.slot_bytes(context).values()) for _ in range(rows))
    gpu = probe().gpus.devices
    return {
        "context": context,
        "weights": {"predicted": facts.weight_bytes, "measured": weights},
        "conversation": {"predicted": facts.kv_bytes(context), "measured": kept // rows},
        "conversations": {
            "doctor": fit(facts, gpus=1, memory=gpu[0].memory, tokens=context).conversations if gpu else None,
            "engine": slots,
            "filled": rows,
        },
        "besides": {"predicted": OVERHEAD, "measured": peak_bytes() - held - kept + (outside if gpu else 0)},
    }


def _sample(loaded: LoadedModel, context: int) -> SlotCache:
    forward = Forward(loaded, 1, context)
    _decode(forward, [8])
    return forward.cache


def _prefill(forward: Forward, start: int) -> None:
    """The piece of a prompt that takes the most: the last, against all before it."""
    begin = max(start, 0)
    with torch.inference_mode():
        forward([(0, [7] * min(PREFILL_TOKENS, forward.cache.limit - begin), begin)])


def tidy() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
