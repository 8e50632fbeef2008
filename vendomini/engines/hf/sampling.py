"""Choosing the next token of each row.

Every request draws its own uniform numbers and nothing else is random, so that what a request gets does not depend on
its neighbours as long as the logits don't.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from vendomini.engines.base import SamplingParams
from vendomini.errors import EngineError, MissingExtraError

Tensor = Any


def sample(logits: Tensor, params: list[SamplingParams], uniforms: list[float]) -> list[int]:
    """One token a row: greedy where the temperature is 0, else by inversion of the cumulative distribution.

    Args:
        logits: ``[rows, vocabulary]``.
        uniforms: one number in [0, 1) a row.
    """
    import torch

    chosen: list[int] = logits.argmax(dim=-1).tolist()
    hot = [row for row, param in enumerate(params) if param.temperature > 0]
    if not hot:
        return chosen
    picked = logits[hot].float()
    temperature = torch.tensor([params[row].temperature for row in hot], device=logits.device)
    draws = torch.tensor([uniforms[row] for row in hot], dtype=torch.float64, device=logits.device)
    probabilities = torch.softmax(picked / temperature[:, None], dim=-1, dtype=torch.float32)
    if all(params[row].top_p >= 1 for row in hot):
        tokens = _invert(probabilities, draws)
    else:
        top_p = torch.tensor([params[row].top_p for row in hot], device=logits.device)
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(dim=-1) - ordered >= top_p[:, None]
        rank = _invert(ordered.masked_fill(outside, 0), draws)
        tokens = order.gather(1, rank)
    for row, token in zip(hot, tokens[:, 0].tolist(), strict=True):
        chosen[row] = token
    return chosen


def _invert(weights: Tensor, draws: Tensor) -> Tensor:
    """Index of the first cumulative weight above the draw, ``[rows, 1]``; a weight of 0 is never chosen."""
    import torch

    cumulative = weights.double().cumsum(dim=-1)
    target = draws[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=weights.shape[-1] - 1)


class Grammars:
    """JSON schemas compiled for one tokenizer; a schema that many requests share is compiled once."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._compiled: dict[str, Any] = {}

    @cached_property
    def _xgrammar(self) -> Any:
        try:
            import xgrammar
        except ImportError as exc:
            raise EngineError(str(MissingExtraError("structured output", "xgrammar", "hf"))) from exc
        return xgrammar

    @cached_property
    def _compiler(self) -> Any:
        info = self._xgrammar.TokenizerInfo.from_huggingface(self._tokenizer, vocab_size=self._vocabulary)
        return self._xgrammar.GrammarCompiler(info)

    def matcher(self, schema: dict[str, Any]) -> Any:
        """A fresh state machine for one completion.

        Raises:
            EngineError: the grammar library refuses the schema, or is not installed.
        """
        key = json.dumps(schema, sort_keys=True)
        if key not in self._compiled:
            try:
                self._compiled[key] = self._compiler.compile_json_schema(key, any_whitespace=False)
            except (RuntimeError, ValueError) as exc:
                raise EngineError(f"the reply's JSON schema can't be turned into a grammar: {exc}") from exc
        return self._xgrammar.GrammarMatcher(self._compiled[key])

    def mask(self, logits: Tensor, matchers: list[Any]) -> None:
        """Forbids, in place, every token that a row's grammar does not allow next; None constrains nothing."""
        bitmask = self._xgrammar.allocate_token_bitmask(len(matchers), self._vocabulary)
        rows = [row for row, matcher in enumerate(matchers) if matcher is not None]
        for row in rows:
            matchers[row].fill_next_token_bitmask(bitmask, row)
        self._xgrammar.apply_token_bitmask_inplace(logits, bitmask.to(logits.device), indices=rows)
