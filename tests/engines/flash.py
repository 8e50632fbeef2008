"""Flash Attention without a GPU: what the kernels compute, in plain PyTorch and 32-bit arithmetic.

Stands where Transformers looks for the package ``flash_attn``, so that the path of a GPU runs here: rows without their
padding, causal masks aligned at the bottom right, windows, capped scores, and the refusals of the real kernels.
"""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

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
        setattr(package, name, getattr(kernels, name))
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
