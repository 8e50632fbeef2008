"""The conversation as the model sees it: append-only, cut in rare chunks, never longer than its budget."""

from __future__ import annotations

from typing import Any

from vendomini.agent.template import ChatTemplate
from vendomini.errors import ConfigError

KEEP = 0.5
"""Share of the budget that is left after old turns were dropped.

Dropping one turn at every step would change the prompt's beginning at every step, and with it everything that the
engine has cached; dropping half at once costs one prefill now and then.
"""

CHARS_PER_TOKEN = 4
"""Estimate where the engine has no tokenizer."""


class History:
    """One episode's conversation; satisfies :class:`vendomini.engines.base.Prompt`.

    A step costs O(new text): only the new turns are tokenised, and nothing is rendered again. What the model said is
    encoded from its text, so that the conversation is a function of the step log alone.

    Args:
        system: the system message, which stays when old turns go.
        context_length: tokens of prompt and completion together.
        max_tokens: of a completion; so much is kept free.
        tokenizer: the engine's (a Transformers tokenizer), or None: then only ``messages`` is kept and lengths are
            estimated.
        template_kwargs: passed to the chat template.

    Raises:
        ConfigError: the system message leaves no room for a conversation.
    """

    def __init__(
        self,
        system: str,
        *,
        context_length: int,
        max_tokens: int,
        tokenizer: Any = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self._template = ChatTemplate(tokenizer, system, template_kwargs) if tokenizer is not None else None
        self._head = self._template.head if self._template else []
        head_size = len(self._head) if self._template else _estimate(system)
        self._budget = context_length - max_tokens - head_size
        if self._budget < max_tokens:
            raise ConfigError(
                f"the system prompt takes {head_size} of {context_length} tokens, which leaves no room for a "
                "conversation: raise agent.model.context_length or choose a model with a longer context"
            )
        self._system = {"role": "system", "content": system}
        self.messages: list[Any] = [self._system]
        self.token_ids: list[int] = list(self._head)
        self.epoch = 0
        self._sizes: list[int] = []  # tokens of each (user, assistant) turn
        self._total = 0

    def add_user(self, text: str) -> None:
        """The next user turn; drops old turns first where the budget asks for it."""
        if self._template:
            ids = self._template.user(text)
            size = len(ids)
        else:
            ids, size = [], _estimate(text)
        if self._total + size > self._budget:
            self._drop(int(self._budget * KEEP) - size)
        self.messages.append({"role": "user", "content": text})
        self.token_ids += ids
        self._sizes.append(size)
        self._total += size

    def add_assistant(self, text: str) -> None:
        """What the model answered."""
        if self._template:
            ids = self._template.encode(text) + self._template.next
            size = len(ids)
        else:
            ids, size = [], _estimate(text)
        self.messages.append({"role": "assistant", "content": text})
        self.token_ids += ids
        self._sizes[-1] += size
        self._total += size

    def clear(self) -> None:
        """Forgets everything but the system message."""
        self._drop(0)

    def _drop(self, room: int) -> None:
        """Drops turns from the front until the rest takes at most ``room`` tokens."""
        dropped = 0
        while self._sizes and self._total > room:
            self._total -= self._sizes.pop(0)
            dropped += 1
        if dropped:
            self.messages = [self._system, *self.messages[1 + 2 * dropped :]]
            kept = self._total if self._template else 0
            self.token_ids = self._head + self.token_ids[len(self.token_ids) - kept :]
            self.epoch += 1


def _estimate(text: str) -> int:
    return len(text) // CHARS_PER_TOKEN + 1
