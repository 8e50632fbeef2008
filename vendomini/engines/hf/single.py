"""One conversation at a time, through the model's own ``generate``: for models whose layers can't be batched by
``forward``.

Slower by as much as batching gains, and correct for anything that Transformers itself runs. How much of a conversation
is kept from turn to turn is decided at the start, by comparison with the model run plainly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from vendomini.engines.base import SamplingParams
from vendomini.engines.hf.batch import Batcher
from vendomini.engines.hf.cache import Slot
from vendomini.engines.hf.check import SHORT, close_enough, plain_logits, probe_tokens
from vendomini.engines.hf.model import LoadedModel
from vendomini.engines.hf.request import Request
from vendomini.engines.hf.sampling import Grammars
from vendomini.engines.hf.thought import Thought
from vendomini.errors import EngineUnavailable

Tensor = Any
Keeping = Literal["conversation", "completion", "nothing"]
"""How long keys, values and states live: from turn to turn, within one completion, or for one token."""

KEPT = 2
"""Conversations in flight: one computes while the world of the other takes its step."""

KEEPING: tuple[Keeping, ...] = ("conversation", "completion", "nothing")
SAYS = {
    "conversation": "keeping each conversation",
    "completion": "computing each prompt anew",
    "nothing": "computing everything anew for every token",
}


class NativeCaches:
    """Takes the place of the batcher's ``SlotCache``: for each slot what ``generate`` itself kept, or None."""

    def __init__(self, slots: int, limit: int) -> None:
        self.slots, self.limit = slots, limit
        self.kept: list[Any] = [None] * slots

    def truncate(self, slot: Slot, length: int) -> int:
        """States can't be rewound: a conversation that is no longer a prefix of its prompt is recomputed."""
        if length == len(slot.tokens) and self.kept[slot.index] is not None:
            return length
        self.kept[slot.index] = None
        return 0

    def copy_prefix(self, *_: object) -> bool:
        """False: nothing of another conversation can be used."""
        return False


class OneAtATime(Batcher):
    """The loop of ``Batcher``, with whole completions in place of forward passes."""

    def __init__(
        self,
        loaded: LoadedModel,
        keeping: Keeping,
        caches: NativeCaches,
        decode: Callable[[list[int]], str],
        grammars: Grammars,
        thoughts: Callable[[SamplingParams], Thought | None],
    ) -> None:
        self._loaded, self._keeping, self._native = loaded, keeping, caches
        super().__init__(self._no_forward, caches, loaded.eos, decode, grammars, thoughts=thoughts)

    @staticmethod
    def _no_forward(_rows: object) -> Tensor:
        raise AssertionError("completions are made by generate")

    def _step(self) -> None:
        if not self._active:
            return
        request = self._active[0]
        slot = request.slot
        assert slot is not None
        kept, self._native.kept[slot.index] = self._native.kept[slot.index], None
        slot.tokens = []
        room = min(request.params.max_tokens, self._cache.limit - len(request.prompt))

        def choose(logits: Tensor) -> int:
            self._sample(logits, [request])
            return request.tokens[-1]

        tokens, cache = generate(
            self._loaded, request.prompt, room, self._keeping, kept, choose, lambda: _over(request)
        )
        if self._keeping == "conversation" and cache is not None:
            self._native.kept[slot.index], slot.tokens = cache, tokens[:-1]
        if request.cancelled and request in self._active:
            self._active.remove(request)


def _over(request: Request) -> bool:
    return request.finish_reason is not None or request.cancelled


def generate(
    loaded: LoadedModel,
    prompt: list[int],
    max_new_tokens: int,
    keeping: Keeping,
    cache: Any,
    choose: Callable[[Tensor], int],
    over: Callable[[], bool],
) -> tuple[list[int], Any]:
    """Transformers' own loop, with our choice of tokens.

    Args:
        cache: what the last call returned for the beginning of this prompt, or None.
        choose: logits ``[1, vocabulary]`` → the next token.
        over: whether the completion has ended.

    Returns:
        Prompt and completion, and the cache that holds all of it but the last token, where there is one.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

    class Choice(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, _ids: Tensor, scores: Tensor) -> Tensor:
            if over():  # a pass that generate starts before it checks whether to stop
                return scores
            picked = torch.full_like(scores, float("-inf"))
            picked[0, choose(scores)] = 0.0
            return picked

    class Over(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, ids: Tensor, _scores: object, **_: object) -> Tensor:
            return torch.full((ids.shape[0],), over(), dtype=torch.bool, device=ids.device)

    ids = torch.tensor([prompt], device=loaded.device)
    made = loaded.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=keeping != "nothing",
            pad_token_id=0,
            return_dict_in_generate=True,
        ),
        logits_processor=[Choice()],
        stopping_criteria=[Over()],
        **({"past_key_values": cache} if cache is not None else {}),
    )
    return made.sequences[0].tolist(), getattr(made, "past_key_values", None)


def best_keeping(loaded: LoadedModel, limit: int) -> Keeping:
    """How much can be kept so that a conversation of two turns gets the logits of the model run plainly.

    Raises:
        EngineUnavailable: not even a completion from scratch does.
    """
    import torch
    from transformers import GenerationConfig

    # What the model's file asks of generate (a penalty, a forced token) is left to our own sampling, not this loop.
    loaded.model.generation_config = GenerationConfig()
    reasons = []
    for keeping in KEEPING:
        try:
            with torch.inference_mode():
                if all(_agrees(loaded, keeping, length) for length in probe_tokens(loaded, limit)):
                    return keeping
            reasons.append(f"{SAYS[keeping]}: its logits are others than the plain model's")
        except Exception as exc:  # whatever error a model's code raises is a reason not to run it this way
            reasons.append(f"{SAYS[keeping]}: {type(exc).__name__}: {exc}".splitlines()[0])
    raise EngineUnavailable("; ".join(reasons))


def tokens_per_second(loaded: LoadedModel, keeping: Keeping, new_tokens: int = 8) -> float:
    """Measured speed of one completion after a short prompt."""
    import torch

    begin = time.perf_counter()
    with torch.inference_mode():
        generate(
            loaded, loaded.some_tokens(SHORT), new_tokens, keeping, None, lambda at: int(at.argmax()), lambda: False
        )
    return new_tokens / (time.perf_counter() - begin)


def _agrees(loaded: LoadedModel, keeping: Keeping, length: int) -> bool:
    """Two turns and a cut, the last of them ``length`` tokens and a few new ones long."""
    ids = loaded.some_tokens(length + 4)
    first, second = ids[: length // 2], ids[:length]
    seen: list[Tensor] = []

    def turn(prompt: list[int], said: list[int], cache: Any) -> Any:
        answers = iter(said)

        def choose(logits: Tensor) -> int:
            seen.append(logits[0].float().clone())
            return next(answers)

        _, kept = generate(loaded, prompt, len(said), keeping, cache, choose, lambda: False)
        return kept if keeping == "conversation" else None

    kept = turn(first, ids[length // 2 : length // 2 + 2], None)
    turn(second, ids[length:], kept)
    wanted = [plain_logits(loaded, ids[:end]) for end in (length, length + 3)]
    return all(close_enough(loaded, seen[at], want) for at, want in zip((2, -1), wanted, strict=True))
