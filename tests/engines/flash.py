"""What only a GPU has, without one: Flash Attention's kernels in plain PyTorch and 32-bit arithmetic, and CUDA graphs.

The kernels stand where Transformers looks for the package ``flash_attn``, so that the path of a GPU runs here: rows
without their padding, causal masks aligned at the bottom right, windows, capped scores, and the real ones' refusals.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial, update_wrapper
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vendomini.engines.hf import graphs

Tensor = torch.Tensor
MAX_HEAD_DIM = 256
Window = tuple[int, int]


class Kernels:
    """The functions of the package.

    Attributes:
        strict: refuse 32-bit numbers, as the real ones do.
        calls: name of each function that was called.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.calls: list[str] = []

    def flash_attn_func(
        self, q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None,
        causal: bool = False, window_size: Window = (-1, -1), softcap: float = 0.0, alibi_slopes: None = None,
        deterministic: bool = False, return_attn_probs: bool = False,
    ) -> Tensor:  # fmt: skip
        """Args:
        q, k, v: ``[batch, length, heads, dim]``; keys may be longer than queries, and of fewer heads.
        """
        self.calls.append("flash_attn_func")
        self._refuse(q)
        return torch.stack(
            [attend(*row, softmax_scale, causal, window_size, softcap) for row in zip(q, k, v, strict=True)]
        )

    def flash_attn_varlen_func(
        self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
        max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
        window_size: Window = (-1, -1), softcap: float = 0.0, alibi_slopes: None = None, deterministic: bool = False,
        return_attn_probs: bool = False, block_table: None = None,
    ) -> Tensor:  # fmt: skip
        """Args:
        q, k, v: ``[tokens, heads, dim]``, the sequences one after the other.
        cu_seqlens_q, cu_seqlens_k: where each begins, and the end of the last.
        """
        self.calls.append("flash_attn_varlen_func")
        self._refuse(q)
        ends_q, ends_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        rows = [
            attend(q[i:j], k[m:n], v[m:n], softmax_scale, causal, window_size, softcap)
            for i, j, m, n in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False)
        ]
        return torch.cat(rows)

    def flash_attn_with_kvcache(
        self, q: Tensor, k_cache: Tensor, v_cache: Tensor, k: Tensor | None = None, v: Tensor | None = None,
        cache_seqlens: Tensor | None = None, cache_batch_idx: Tensor | None = None,
        softmax_scale: float | None = None, causal: bool = False, window_size: Window = (-1, -1),
        softcap: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Writes ``k`` and ``v`` into the caches at ``cache_seqlens``, in place, and attends to all of them.

        Args:
            k_cache, v_cache: ``[slots, capacity, kv heads, dim]``, any strides but for the last.
            cache_batch_idx: slot of each row of ``q``; as many slots as rows without it.
        """
        self.calls.append("flash_attn_with_kvcache")
        self._refuse(q)
        for index in (cache_seqlens, cache_batch_idx):
            if index is not None and index.dtype != torch.int32:
                raise RuntimeError("cache_seqlens and cache_batch_idx must have dtype int32")
        if self.strict and k_cache.stride(-1) != 1:
            raise RuntimeError("Input tensor must have contiguous last dimension")
        rows = []
        for row, query in enumerate(q):
            slot = row if cache_batch_idx is None else int(cache_batch_idx[row])
            end = int(cache_seqlens[row]) if cache_seqlens is not None else k_cache.shape[1]
            if k is not None and v is not None:
                new = k.shape[1]
                k_cache[slot, end : end + new], v_cache[slot, end : end + new] = k[row], v[row]
                end += new
            keys, values = k_cache[slot, :end], v_cache[slot, :end]
            rows.append(attend(query, keys, values, softmax_scale, causal, window_size, softcap))
        return torch.stack(rows)

    def _refuse(self, q: Tensor) -> None:
        if q.shape[-1] > MAX_HEAD_DIM:
            raise RuntimeError("FlashAttention forward only supports head dimension at most 256")
        if self.strict and q.dtype not in {torch.float16, torch.bfloat16}:
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, window: Window, softcap: float
) -> Tensor:
    """One sequence: ``[queries, heads, dim]`` on ``[keys, kv heads, dim]``; the last query is that of the last key."""
    groups = q.shape[1] // k.shape[1]
    keys, values = (part.float().repeat_interleave(groups, dim=1) for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.float(), keys) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(len(k)) - (torch.arange(len(q)) + len(k) - len(q))[:, None]
    left, right = window[0], 0 if causal else window[1]
    hidden = torch.zeros_like(distance, dtype=torch.bool)
    if left >= 0:
        hidden |= distance < -left
    if right >= 0:
        hidden |= distance > right
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1).nan_to_num()
    return torch.einsum("hqk,khd->qhd", weights, values).to(q.dtype)


def emulate(monkeypatch: pytest.MonkeyPatch, *, strict: bool = False) -> Kernels:
    """For the length of a test, Transformers finds Flash Attention 2 here, and no fault with running it on a CPU."""
    import transformers.modeling_flash_attention_utils as utils
    from transformers import PreTrainedModel

    kernels = Kernels(strict)
    package, padding = ModuleType("flash_attn"), ModuleType("flash_attn.bert_padding")
    for name in ("flash_attn_func", "flash_attn_varlen_func", "flash_attn_with_kvcache"):
        kernel = getattr(kernels, name)  # Transformers looks at its arguments' names
        setattr(package, name, update_wrapper(partial(Recording.launch, kernel), kernel))
    padding.pad_input, padding.unpad_input = utils._pad_input, utils._unpad_input  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    monkeypatch.setattr(utils, "is_flash_attn_2_available", lambda *_: True)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    for name in [
        name for name in vars(utils) if name.startswith(("_flash_fn", "_flash_varlen_fn", "_loaded_implementation"))
    ]:
        monkeypatch.setattr(utils, name, None)
    return kernels


READS_BACK = {torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default}


class Recording(TorchDispatchMode):
    """A CUDA graph on a CPU: the operations of a pass on the tensors that they had, and nothing else, once more.

    Numbers that Python took part in are those of the recording. As on a GPU, reading one back is refused.
    """

    current: Recording | None = None

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []
        self.replays = 0
        self.launching = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.launching:
            if func in READS_BACK:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.steps.append((func, args, kwargs or {}, out))
        return out

    @classmethod
    def launch(cls, kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One operation, whatever it does inside."""
        recording = cls.current
        if recording is None:
            return kernel(*args, **kwargs)
        recording.launching = True
        try:
            out = kernel(*args, **kwargs)
        finally:
            recording.launching = False
        recording.steps.append((kernel, args, kwargs, out))
        return out

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, out in self.steps:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def emulate_graphs(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """For the length of a test, steps are recorded as on a GPU. Returns the recordings, as they are made."""
    made: list[Recording] = []

    def record(work: Callable[[], object]) -> Callable[[], None]:
        made.append(Recording())
        Recording.current = made[-1]
        try:
            with made[-1]:
                work()
        finally:
            Recording.current = None
        return made[-1].replay

    monkeypatch.setattr(graphs, "recorder", lambda _: record)
    return made
