"""Attention that reads the slots of ``cache`` where they are; Transformers' own copies them first.

It stands under the library's names, so that what a model reports and the masks it builds stay as they are. Outside
:func:`reading` the library's functions run: a plain pass remains one to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib import import_module
from typing import Any

from vendomini.engines.hf.cache import SlotCache

Tensor = Any
Attention = Callable[..., tuple[Tensor, Tensor | None]]

FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""Implementation → the module that has its kernels."""

_reading: ContextVar[SlotCache | None] = ContextVar("reading", default=None)


@contextmanager
def reading(slots: SlotCache) -> Iterator[None]:
    """Give attention these slots for the length of one forward pass."""
    token = _reading.set(slots)
    try:
        yield
    finally:
        _reading.reset(token)


def install() -> None:
    """Once for the process."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ours: dict[str, Attention] = {"sdpa": _grouped} | {name: partial(_flash, module) for name, module in FLASH.items()}
    for name, function in ours.items():
        theirs = ALL_ATTENTION_FUNCTIONS[name]
        if not isinstance(theirs, partial):
            ALL_ATTENTION_FUNCTIONS[name] = partial(_choose, function, theirs)


def _choose(ours: Attention, theirs: Attention, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return (theirs if _reading.get() is None else partial(ours, theirs))(*args, **kwargs)


def _flash(
    kernels: str,
    _theirs: Attention,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The kernel takes each row up to its own length, of the slots as they are stored.

    Args:
        query: ``[batch, heads, queries, dim]``; the last one of each row is that of the row's newest key.
        key, value: all slots, ``[slots, kv heads, capacity, dim]``.

    Returns:
        ``[batch, queries, heads, dim]``.

    Raises:
        ValueError: the kernel can't compute this model's attention.
    """
    if s_aux is not None:
        raise ValueError("attention sinks can't be computed over a cache")
    if key.shape[3] != value.shape[3]:
        raise ValueError("keys and values differ in width")
    slots = _reading.get()
    assert slots is not None
    assert slots.batch is not None
    batch = slots.batch
    places = batch.sliding if slots.slides(module.layer_idx) else batch.full
    out = import_module(kernels).flash_attn_with_kvcache(
        query.transpose(1, 2).to(key.dtype),
        key.transpose(1, 2),
        value.transpose(1, 2),
        cache_seqlens=places.lengths.to(key.device),
        cache_batch_idx=batch.rows_32.to(key.device),
        softmax_scale=scaling,
        causal=True,
        window_size=(-1, -1) if sliding_window is None else (sliding_window - 1, 0),
        softcap=softcap or 0.0,
    )
    return (out[0] if isinstance(out, tuple) else out), None


def _grouped(
    theirs: Attention, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """One query a row: the heads that share keys are so many queries on them, which repeats no key.

    Args:
        query: ``[batch, heads, 1, dim]``; more queries go to Transformers' own function.
        key, value: ``[batch, kv heads, length, dim]``.
        mask: ``[batch, 1, 1, length]``.
    """
    import torch

    batch, heads, queries, dim = query.shape
    special = kwargs.keys() & {"position_bias", "s_aux"}
    products = queries == 1 and pays_as_products(key)
    if queries > 1 or any(kwargs[name] is not None for name in special) or (heads == key.shape[1] and not products):
        return theirs(module, query, key, value, mask, **kwargs)
    attend = attend_by_products if products else torch.nn.functional.scaled_dot_product_attention
    out = attend(query.reshape(batch, key.shape[1], -1, dim), key, value, mask, scale=kwargs.get("scaling"))
    return out.reshape(batch, 1, heads, value.shape[3]), None


def pays_as_products(key: Tensor) -> bool:
    """On a GPU with fewer keys' heads than multiprocessors: PyTorch's own function gives each head to one of them.

    It can keep the scores of 16-bit numbers in 32 bits from PyTorch 2.8 on.

    Args:
        key: ``[batch, kv heads, length, dim]``.
    """
    import torch

    fewer = key.device.type == "cuda" and key.shape[0] * key.shape[1] < _multiprocessors(key.device)
    return fewer and (key.dtype == torch.float32 or _keeps_scores_wide())


@cache
def _multiprocessors(device: Any) -> int:
    import torch

    return int(torch.cuda.get_device_properties(device).multi_processor_count)  # GPU only


@cache
def _keeps_scores_wide() -> bool:
    import torch

    return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8)


def attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None = None) -> Tensor:
    """What PyTorch's own function computes, with all multiprocessors on each head (docs/performance.md has figures).

    Args:
        query: ``[batch, heads, queries, dim]``.
        key, value: ``[batch, heads, length, dim]``, views of which the first two dimensions lie evenly apart.
        mask: booleans, ``[batch, 1, 1, length]``.

    Returns:
        ``[batch, heads, queries, dim of value]``.
    """
    import torch

    scale = query.shape[-1] ** -0.5 if scale is None else scale
    query, keys, values = (part.flatten(0, 1) for part in (query, key, value))
    # In 16 bits the scores themselves would be rounded, or overflow.
    wide = {} if query.dtype == torch.float32 else {"out_dtype": torch.float32}
    scores = torch.bmm(query, keys.mT, **wide).unflatten(0, key.shape[:2])
    weights = (scores * scale).masked_fill(~mask, -torch.inf).softmax(-1).to(value.dtype)
    return torch.bmm(weights.flatten(0, 1), values).unflatten(0, key.shape[:2])
