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


GREEDY_BELOW = 1e-5
"""Lower temperatures count as 0: dividing by them overflows. As in vLLM."""


class Held:
    """Which tokens a request holds, for its penalties.

    Attributes:
        seen: ``[vocabulary]``, whether the prompt or the completion holds it.
        counts: ``[vocabulary]``, how often the completion does.
    """

    def __init__(self, prompt: list[int], logits: Tensor) -> None:
        import torch

        vocabulary = logits.shape[-1]
        self.seen = torch.zeros(vocabulary, dtype=torch.bool, device=logits.device)
        self.seen[torch.tensor(prompt, device=logits.device)] = True
        self.counts = torch.zeros(vocabulary, dtype=torch.float32, device=logits.device)

    def add(self, token: int) -> None:
        self.seen[token] = True
        self.counts[token] += 1


def has_penalty(params: SamplingParams) -> bool:
    repetition = params.repetition_penalty or 1.0
    return bool(params.presence_penalty or params.frequency_penalty) or repetition != 1.0


def penalise(logits: Tensor, params: list[SamplingParams], held: list[Held]) -> Tensor:
    """Logits after each row's penalties: repetition as Transformers has it, presence and frequency as OpenAI's API.

    Args:
        logits: ``[rows, vocabulary]``.
    """
    import torch

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=logits.device)[:, None]

    logits = logits.float()
    seen, counts = torch.stack([row.seen for row in held]), torch.stack([row.counts for row in held])
    repetition = column([param.repetition_penalty or 1.0 for param in params])
    logits = torch.where(seen, torch.where(logits > 0, logits / repetition, logits * repetition), logits)
    logits = logits - column([param.frequency_penalty or 0.0 for param in params]) * counts
    return logits - column([param.presence_penalty or 0.0 for param in params]) * (counts > 0)


def sample(logits: Tensor, params: list[SamplingParams], uniforms: list[float]) -> list[int]:
    """One token a row: greedy where the temperature is 0, else by inversion of the cumulative distribution.

    Args:
        logits: ``[rows, vocabulary]``, after penalties.
        uniforms: one number in [0, 1) a row.
    """
    chosen: list[int] = logits.argmax(dim=-1).tolist()
    hot = [row for row, param in enumerate(params) if _temperature(param) >= GREEDY_BELOW]
    for cut in (False, True):
        rows = [row for row in hot if _is_cut(params[row]) is cut]
        if rows:
            draw = _draw_cut if cut else _draw
            tokens = draw(logits[rows], [params[row] for row in rows], [uniforms[row] for row in rows])
            for row, token in zip(rows, tokens[:, 0].tolist(), strict=True):
                chosen[row] = token
    return chosen


def _temperature(params: SamplingParams) -> float:
    return 1.0 if params.temperature is None else params.temperature


def _is_cut(params: SamplingParams) -> bool:
    """Whether unlikely tokens are left out."""
    return (params.top_p or 1.0) < 1 or bool(params.top_k) or bool(params.min_p)


def _draw(logits: Tensor, params: list[SamplingParams], uniforms: list[float]) -> Tensor:
    return _invert(_probabilities(logits, params), uniforms)


def _draw_cut(logits: Tensor, params: list[SamplingParams], uniforms: list[float]) -> Tensor:
    """Among the tokens that top_k, then top_p, then min_p leave, in the order of Transformers' own processors."""
    ordered, order = _probabilities(logits, params).sort(dim=-1, descending=True, stable=True)
    return order.gather(1, _invert(_cut(ordered, params), uniforms))


def _probabilities(logits: Tensor, params: list[SamplingParams]) -> Tensor:
    import torch

    temperature = torch.tensor([_temperature(param) for param in params], device=logits.device)
    return torch.softmax(logits.float() / temperature[:, None], dim=-1, dtype=torch.float32)


def _cut(ordered: Tensor, params: list[SamplingParams]) -> Tensor:
    """Probabilities, each row in descending order, with 0 for what is left out; the rest is not scaled."""
    import torch

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=ordered.dtype, device=ordered.device)[:, None]

    vocabulary = ordered.shape[-1]
    last = torch.tensor([min(param.top_k or vocabulary, vocabulary) - 1 for param in params], device=ordered.device)
    ordered = ordered.masked_fill(ordered < ordered.gather(1, last[:, None]), 0)
    top_p = column([param.top_p or 1.0 for param in params])
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill((before >= top_p * ordered.sum(dim=-1, keepdim=True)) & (top_p < 1), 0)
    return ordered.masked_fill(ordered < column([param.min_p or 0.0 for param in params]) * ordered[:, :1], 0)


def _invert(weights: Tensor, uniforms: list[float]) -> Tensor:
    """Index of the first cumulative weight above the draw, ``[rows, 1]``; a weight of 0 is never chosen."""
    import torch

    draws = torch.tensor(uniforms, dtype=torch.float64, device=weights.device)
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
        key = json.dumps(schema)  # in the schema's own order, which is the order of the reply: thought before action
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
