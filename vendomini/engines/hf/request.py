"""One completion on its way through the batching loop of ``batch``."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vendomini.engines.base import FinishReason, SamplingParams
from vendomini.engines.hf.cache import Slot
from vendomini.engines.hf.sampling import Held
from vendomini.engines.hf.thought import Thought

SHARED_TOKENS = 64
"""Length of a common beginning from which waiting for another prompt pays off."""


@dataclass(slots=True, eq=False)
class Request:
    """One completion on its way.

    Attributes:
        conversation: the object whose slot this request uses.
        tokens: the prompt, then what was sampled.
        computed: how many of these have their keys and values in the slot.
        thought: follows its thought; None for a model without thoughts, or where it is not needed.
        held: what penalties need; None until the first token, and for a request without any.
        done: called once, from the batching thread, with the request or what went wrong.
    """

    conversation: Any
    prompt: list[int]
    params: SamplingParams
    done: Callable[[Request | BaseException], None]
    tokens: list[int] = field(init=False)
    computed: int = 0
    cached: int = 0
    slot: Slot | None = None
    random: random.Random = field(init=False)
    matcher: Any = None
    thought: Thought | None = None
    held: Held | None = None
    text: str | None = None
    finish_reason: FinishReason | None = None
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)
        self.random = random.Random(self.params.seed)

    @property
    def new_tokens(self) -> list[int]:
        return self.tokens[len(self.prompt) :]

    @property
    def grammar(self) -> Any:
        """What constrains the next token: nothing inside a thought."""
        return None if self.thought is not None and self.thought.free else self.matcher

    @property
    def missing(self) -> int:
        return len(self.tokens) - self.computed

    def holding(self, logits: Any) -> Held:
        """The tokens it holds, for its penalties; ``logits`` has the size of the vocabulary and the device."""
        self.held = self.held or Held(self.prompt, logits)
        return self.held

    def waits_for(self, other: Request) -> bool:
        """Whether ``other`` is about to compute a beginning that this one, not yet begun, could copy."""
        begin, end = self.computed, self.computed + SHARED_TOKENS
        if begin != self.cached or len(self.prompt) <= end or self.prompt[begin:end] != other.prompt[begin:end]:
            return False
        return self.prompt[:begin] == other.prompt[:begin]
