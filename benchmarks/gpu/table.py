"""The figures as Markdown, for ``docs/performance.md``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vendomini.model_info.fit import gib

Figures = dict[str, Any]


def markdown(figures: Figures) -> str:
    return "\n\n".join(part for part in (_head(figures), _steps(figures), *_others(figures)) if part) + "\n"


def _head(figures: Figures) -> str:
    found, shape = figures["parts"].get("machine", {}), figures["plan"]["shape"]
    size = f"{shape['layers']} layers of {shape['hidden']}, {shape['heads']} heads, {shape['kv_heads']} with keys"
    lines = [f"`{figures['command']}`, {figures['date']}, {figures['seconds']:.0f} s. Random weights: {size}."]
    if "gpu" not in found:
        return f"{lines[0]} {_failed('Machine', found)}"
    peak = f" of {found['peak_gb_s']}" if found["peak_gb_s"] else ""
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    lines += [
        f"{found['gpu']}, compute capability {found['capability']}, driver {found['driver']}, CUDA {found['cuda']}; "
        f"a copy moves {found['copy_gb_s']:.0f}{peak} GB/s. {packages}.",
        f"The engine would try {', '.join(found['choices'])}. Flash Attention 2: {found['flash_obstacle'] or 'runs'}.",
    ]
    return "\n".join(lines)


def _steps(figures: Figures) -> str:
    """In each cell: milliseconds a step, of these the GPU's own, without CUDA graphs, and the share of the roofline."""
    part = figures["parts"].get("attentions", {})
    if "by_attention" not in part:
        return _failed("Decoding", part)
    contexts = figures["plan"]["contexts"]
    heads = [f"{context:,} {kind}" for context in contexts for kind in ("equal", "ragged")]
    rows = []
    for name, found in part["by_attention"].items():
        cells = [_cell(step) for step in found["steps"]] if "steps" in found else [found["failed"]]
        rows.append([name, *cells, *[""] * (len(heads) - len(cells))])
    title = (
        f"Decoding {part['rows']} rows: ms a step (of these on the GPU; without CUDA graphs), share of the roofline "
        f"(weights {gib(part['weights'])} and live keys and values, at copy bandwidth)"
    )
    return _table(title, ["attention", *heads], rows)


def _cell(step: Figures) -> str:
    if failed := step.get("failed"):
        return f"not measured: {failed}"
    kernels = "" if step["kernels_ms"] is None else f" ({step['kernels_ms']:.1f}; {step['unrecorded_ms']:.1f})"
    return f"{step['ms']:.1f}{kernels}, {step['share']:.0%}"


def _others(figures: Figures) -> Iterable[str]:
    parts = figures["parts"]
    for part, name, needed, table in (
        ("products", "Attention without Flash Attention", "rows", _products),
        ("packing", "Packing", "batches", _packing),
        ("prompts", "Prompts", "batches", _prompts),
        ("memory", "Memory", "weights", _memory),
    ):
        found = parts.get(part, {})
        yield table(found) if needed in found else _failed(name, found)
    rows = []
    for part, title in (
        ("ours", "VendoMini"),
        ("unrecorded", "VendoMini without CUDA graphs"),
        ("continuous", "Transformers' continuous batching"),
        ("vllm", "vLLM"),
    ):
        found = parts.get(part, {"failed": "no time was left"})
        if "failed" in found:
            rows.append([title, f"not measured: {found['failed']}", "", ""])
        else:
            rows.append(
                [title, f"{found['tokens_s']:.0f}", found["attention"] or "its own choice", f"{found['load_s']:.0f} s"]
            )
    plan = figures["plan"]
    turns = f"{plan['turns']} turns of +{plan['added']} tokens, about {plan['new']} new"
    title = f"{plan['conversations']} conversations, {turns}"
    yield _table(title, ["engine", "tokens/s", "attention", "load"], rows)


def _packing(part: Figures) -> str:
    rows = [
        [str(one["batch"]), one["failed"], "", ""]
        if "failed" in one
        else [str(one["batch"]), f"{one['tokens_s']:.0f}", f"{one['ms']:.1f}", f"{one['share']:.0%}"]
        for one in part["batches"]
    ]
    title = f"Rows in a batch, each of {part['context']:,} tokens, {part['attention']}"
    return _table(title, ["rows", "tokens/s", "ms a step", "share of the roofline"], rows)


def _products(part: Figures) -> str:
    rows = [
        [f"{one['batch']} of {one['context']:,}", f"{one['own_ms'] * 1000:.0f}", f"{one['products_ms'] * 1000:.0f}"]
        for one in part["rows"]
    ]
    return _table("Attention of a layer without Flash Attention, µs", ["rows", "PyTorch's own", "two products"], rows)


def _prompts(part: Figures) -> str:
    rows = [
        [str(one["batch"]), f"{one['ms']:.1f}", "–" if one["kernels_ms"] is None else f"{one['kernels_ms']:.1f}"]
        for one in part["batches"]
    ]
    title = (
        f"A pass over {part['new']} new tokens of each row, {part['context']:,} with those before, {part['attention']}"
    )
    return _table(title, ["rows", "ms", "of these on the GPU"], rows)


def _memory(part: Figures) -> str:
    rows = [
        [what, gib(part[key]["predicted"]), gib(part[key]["measured"])]
        for key, what in (
            ("weights", "weights"),
            ("conversation", f"a conversation of {part['context']:,} tokens"),
            ("besides", "everything else, at most"),
        )
    ]
    counts = part["conversations"]
    rows.append(
        [
            "conversations that fit",
            "–" if counts["doctor"] is None else str(counts["doctor"]),
            f"{counts['engine']} ({counts['filled']} filled)",
        ]
    )
    return _table("Memory", ["", "predicted", "measured"], rows)


def _failed(title: str, part: Figures) -> str:
    return f"{title}: not measured: {part.get('failed', 'no time was left')}"


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [f"{title}:", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
