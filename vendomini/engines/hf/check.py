"""Checks, before the first episode, that batched logits are those of the model run plainly.

A wrong mask or position raises no error; it only makes the model slightly worse.
"""

from __future__ import annotations

import os
import re
from typing import Any

from vendomini.engines.hf.cache import PREFILL_TOKENS, SlotCache
from vendomini.engines.hf.forward import CannotBatch, Forward
from vendomini.engines.hf.model import LoadedModel, first_line, rope_switch
from vendomini.errors import EngineUnavailable

Tensor = Any

SHORT = 12
"""Tokens of the shortest probe."""

BEYOND = 9
"""Tokens by which a probe exceeds a length at which a model changes behaviour."""

LONGEST = 4608
"""Tokens of the longest probe: beyond it, a plain pass may cost more memory than the batches do."""

LONG = 150
"""Tokens of a probe that every model gets, for what its config does not name."""

TURNING_POINT = re.compile(r"window|chunk|index_topk|block_size|compress|local_attention|original_max_position")
"""Keys of a model's config that name a length at which its layers change behaviour."""

MEMORY_SHARE = {"cuda": 0.8, "cpu": 0.5}
"""The share of the memory left after loading that keys and values may take; the rest is for activations."""


def probe_tokens(loaded: LoadedModel, limit: int) -> list[int]:
    """Lengths to try, the shortest first: a short one, and one beyond each turning point within ``limit`` tokens."""
    config = loaded.model.config.get_text_config().to_dict()
    points: set[int | None] = {
        value for key, value in config.items() if TURNING_POINT.search(key) and isinstance(value, int)
    }
    points |= {rope_switch(loaded.model.config)}
    turns = [point for point in points if point is not None and point > 0]
    lengths = {LONG, *(length for point in turns for length in (point - 1, point + BEYOND))}
    return [SHORT, *sorted(length for length in lengths if SHORT < length <= min(limit, LONGEST) - 4)]


def plain_logits(loaded: LoadedModel, ids: list[int]) -> Tensor:
    """The logits after these tokens when the model is given them alone and all at once, ``[vocabulary]``."""
    import torch

    with torch.inference_mode():
        last = {"logits_to_keep": 1} if loaded.keeps_logits else {}  # of all others, a large vocabulary takes GiBs
        output = loaded.model(input_ids=torch.tensor([ids], device=loaded.device), use_cache=False, **last)
        return output.logits[0, -1].float()


def close_enough(loaded: LoadedModel, got: Tensor, wanted: Tensor) -> bool:
    return _error(got, wanted) <= loaded.tolerance


def _error(got: Tensor, wanted: Tensor) -> float:
    return float((got.float() - wanted).norm() / wanted.norm())


def settle(loaded: LoadedModel, limit: int) -> SlotCache:
    """Tries the attention implementations in turn until one runs in batches.

    Returns:
        As :func:`check_batching`.

    Raises:
        CannotBatch: none does; the model has the first that runs at all.
        EngineUnavailable: not even one conversation can be computed.
    """
    runs, reason = "", ""
    while loaded.attentions:
        try:
            if not bool(plain_logits(loaded, loaded.some_tokens(SHORT)).isfinite().all()):
                raise ValueError("its logits are not finite")
            runs = runs or loaded.attention
            return check_batching(loaded, limit)
        except Exception as exc:  # kernels, remote code and shapes fail in every way there is
            why = str(exc) if isinstance(exc, CannotBatch) else first_line(exc)
            reason = reason or (why if runs else "")
            loaded.next_attention(why)
    if not runs:
        raise EngineUnavailable(f"its first pass fails ({'; '.join(loaded.passed_over)})")
    loaded.use(runs)
    raise CannotBatch(reason)


def first_prompt(loaded: LoadedModel, ids: list[int], got: Tensor) -> None:
    """Compares the logits after the first real prompt with the model run plainly.

    Raises:
        CannotBatch: they differ.
    """
    if len(ids) > LONGEST:
        return
    error = _error(got, plain_logits(loaded, ids))
    if not error <= loaded.tolerance:
        raise CannotBatch(
            f"batching changes its answers after the first prompt, of {len(ids)} tokens (relative error of the "
            f"logits {error:.2g})"
        )


def check_batching(loaded: LoadedModel, limit: int) -> SlotCache:
    """Feeds a long row in pieces beside a short one, for each probe length, and compares both.

    Returns:
        The cache that was used: its layers tell how much memory a token takes, and where.

    Raises:
        CannotBatch: the logits differ, or the model can't take a batch of unequal rows.
    """
    import torch

    switch = rope_switch(loaded.model.config)
    if switch is not None and limit > switch:
        raise CannotBatch(
            f"beyond {switch} tokens its rotary factors depend on the longest row of a batch "
            f"(with agent.model.context_length: {switch} it is batched)"
        )
    lengths = probe_tokens(loaded, limit)
    forward = Forward(loaded, slots=2, limit=lengths[-1] + 8)
    with torch.inference_mode():
        for length in lengths:
            try:
                pairs = [(got, plain_logits(loaded, ids)) for got, ids in _pieces(loaded, forward, length)]
            except torch.OutOfMemoryError:  # the memory is the model's, and batches feed less at once
                if length == SHORT:
                    raise
                break
            for got, wanted in pairs:
                error = _error(got, wanted)
                if not error <= loaded.tolerance:
                    raise CannotBatch(
                        f"batching changes its answers at {length} tokens (relative error of the logits {error:.2g})"
                    )
    return forward.cache


def _pieces(loaded: LoadedModel, forward: Forward, length: int) -> list[tuple[Tensor, list[int]]]:
    """Logits, and the tokens after which they are."""
    long, short = loaded.some_tokens(length), loaded.some_tokens(SHORT)[::-1]
    head = length * 2 // 3
    forward([(0, short[:5], 0)])
    for first, last in ((0, head), (head, length - 2)):
        for start in range(first, last, PREFILL_TOKENS):
            forward([(1, long[start : min(last, start + PREFILL_TOKENS)], start)])
    both = forward([(0, short[5:6], 5), (1, long[length - 2 : -1], length - 2)])
    together = forward([(0, short[6:9], 6), (1, long[-1:], length - 1)])
    again = forward([(0, short[9:10], 9), (1, long[-1:], length - 1)])  # on a GPU a recorded step
    return [
        (both[0], short[:6]),
        (together[0], short[:9]),
        (together[1], long),
        (again[0], short[:10]),
        (again[1], long),
    ]


def affordable_slots(sample: SlotCache, context: int) -> int:
    """How many conversations of ``context`` tokens fit into the memory that is left, by a token's measured size."""
    import torch

    rooms = []
    for device, size in sample.slot_bytes(context).items():
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _available_memory()
        rooms.append(int(free * MEMORY_SHARE.get(device.type, 0.5)) // size)
    return min(rooms)


def _available_memory() -> int:
    """Bytes that the kernel can give without swapping."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    available = int(fields["MemAvailable"].split()[0]) << 10
    return available or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
