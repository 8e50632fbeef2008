"""The conversation as the model sees it: grows at its end, cut in rare chunks, never longer than its budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from vendomini.agent.template import ChatTemplate, Tokenizer
from vendomini.errors import ConfigError
from vendomini.model_info.formats import PLAIN, ReplyFormat
from vendomini.worlds.conversation import Message

KEEP = 0.5
"""Share of the budget that remains after old turns are dropped.

Dropping one turn at every step would change the prompt's beginning at every step, and with it everything that the
engine has cached; dropping half at once costs one prefill now and then.
"""

CHARS_PER_TOKEN = 4
"""First estimate, without a tokenizer. The engine's counts raise it; lower ones may leave out what is cached."""


class _Turn(msgspec.Struct, gc=False):
    """What the user said and the model answered, and their tokens (or an estimate of how many)."""

    user: str
    answer: str = ""
    reasoning: str = ""
    size: int = 0
    ids: Sequence[int] = ()


class History:
    """One episode's conversation; satisfies :class:`vendomini.engines.base.Prompt`.

    A step costs O(new text): only the new turn is tokenised, and nothing is rendered again. What the model said is
    encoded from its text, so that the conversation is a function of the step log alone. The thoughts of earlier turns
    are kept if the model's template keeps them, and dropped otherwise.

    Args:
        system: the system message, which stays when old turns are dropped.
        context_length: tokens of prompt and completion together.
        max_tokens: of a completion, thought and answer; this much is kept free.
        tokenizer: the engine's (a Transformers tokenizer), or None: then only ``messages`` is kept and lengths are
            estimated.
        template_kwargs: passed to the chat template.
        today: ISO date for templates that write one.
        reply_format: the model's family; None: it is found.

    Raises:
        ConfigError: the system message leaves no room for a conversation.
    """

    def __init__(
        self,
        system: str,
        *,
        context_length: int,
        max_tokens: int,
        tokenizer: Tokenizer | None = None,
        template_kwargs: Mapping[str, object] | None = None,
        today: str | None = None,
        reply_format: ReplyFormat | None = None,
    ) -> None:
        self._template = (
            ChatTemplate(tokenizer, system, template_kwargs, today, reply_format) if tokenizer is not None else None
        )
        self.format = self._template.format if self._template else reply_format or PLAIN
        self.head = self._template.head if self._template else system
        self._head_ids = self._template.encode(self.head) if self._template else []
        self._head_size = len(self._head_ids) if self._template else _estimate(system)
        self._limit = context_length - max_tokens
        self._scale = 1.0  # tokens of the engine for each one here
        if self._budget() < max_tokens:
            raise ConfigError(
                f"the system prompt takes {self._head_size} of {context_length} tokens, which leaves no room for a "
                "conversation: raise agent.model.context_length or choose a model with a longer context"
            )
        self._system: Message = {"role": "system", "content": system}
        self.messages: list[Message] = [self._system]
        self.token_ids: list[int] = list(self._head_ids)
        self.epoch = 0
        self._turns: list[_Turn] = []
        self._used = 0  # by all turns together
        self._past = 0  # how many of token_ids are of turns that are over, the head included

    def add_user(self, text: str) -> None:
        """The next user turn; drops old turns first if the budget requires it."""
        turn, template = _Turn(text), self._template
        asking = self._asking(turn, first=False) if template else None
        turn.size = size = _estimate(text) if asking is None else len(asking)
        budget = self._budget()
        if self._used + size > budget:
            self._drop(int(budget * KEEP) - size)
        self.messages.append({"role": "user", "content": text})
        self._turns.append(turn)
        self._used += size
        if asking is None or template is None:
            return
        if template.seams:
            self.token_ids[self._past :] = asking if len(self._turns) > 1 else self._asking(turn, first=True)
        else:
            self.token_ids = self._whole()

    def add_assistant(self, answer: str, reasoning: str = "") -> None:
        """What the model answered.

        Args:
            reasoning: what it thought first; kept if the template keeps thoughts.
        """
        turn = self._turns[-1]
        turn.answer, turn.reasoning = answer, reasoning
        self.messages.append({"role": "assistant", "content": answer})
        before = turn.size
        if self._template:
            turn.ids = self._over(turn, first=len(self._turns) == 1)
            turn.size = len(turn.ids) - (self._head_size if len(self._turns) == 1 else 0)
            self.token_ids[self._past :] = turn.ids
            self._past += len(turn.ids)
        else:
            turn.size = before + _estimate(answer)
        self._used += turn.size - before

    def clear(self) -> None:
        """Forgets everything but the system message."""
        self._drop(0)

    def count(self, prompt_tokens: int) -> None:
        """Corrects the estimate by the engine's own count of this prompt; 0 where it gives none."""
        if self._template is None and prompt_tokens:
            self._scale = max(prompt_tokens / (self._head_size + self._used), 1.0)

    def shorten(self) -> bool:
        """Drops older turns, since the engine finds the prompt too long; false where only the last one is left.

        A length that was refused once is not tried again.
        """
        if self._template is not None or len(self._turns) < 2:
            return False
        *_, last = self._turns
        self._limit = min(self._limit, int((self._head_size + self._used) * self._scale) - 1)
        del self._turns[-1]
        self._used -= last.size
        pending = self.messages.pop()
        self._drop(int((self._used + last.size) * KEEP) - last.size)
        self._turns.append(last)
        self._used += last.size
        self.messages.append(pending)
        return True

    def _budget(self) -> int:
        """The room for all turns together, in the units in which sizes are estimated here."""
        return int(self._limit / self._scale) - self._head_size

    def _asking(self, turn: _Turn, *, first: bool) -> list[int]:
        """Tokens of a turn that waits for its answer."""
        template = self._template
        assert template is not None
        return template.encode(f"{template.head if first else template.begin}{turn.user}{template.open}")

    def _over(self, turn: _Turn, *, first: bool) -> list[int]:
        """Tokens of a turn that has its answer."""
        assert self._template is not None
        return self._template.encode(self._text(turn, first=first))

    def _text(self, turn: _Turn, *, first: bool) -> str:
        template = self._template
        assert template is not None
        answered = template.answered(turn.answer, turn.reasoning)
        return f"{template.head if first else template.begin}{turn.user}{answered}{template.close}"

    def _whole(self) -> list[int]:
        """The tokens of everything, where the text can't be cut."""
        template, *turns = self._template, *self._turns
        assert template is not None
        over = "".join(self._text(turn, first=place == 0) for place, turn in enumerate(turns[:-1]))
        return template.encode(f"{over}{template.begin if over else template.head}{turns[-1].user}{template.open}")

    def _drop(self, room: int) -> None:
        """Drops turns from the front until the rest takes at most ``room`` tokens."""
        used, dropped = self._used, 0
        for turn in self._turns:
            if used <= room:
                break
            used -= turn.size
            dropped += 1
        if not dropped:
            return
        self._used = used
        del self._turns[:dropped]
        self.messages = [self._system, *self.messages[1 + 2 * dropped :]]
        self.epoch += 1
        if self._template:
            if self._turns:
                self._turns[0].ids = self._over(self._turns[0], first=True)
            past = [token for turn in self._turns for token in turn.ids]
            self._past = len(past)
            self.token_ids = past or list(self._head_ids)


def _estimate(text: str) -> int:
    return len(text) // CHARS_PER_TOKEN + 1
