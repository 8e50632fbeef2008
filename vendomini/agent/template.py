"""A model's chat template, taken apart into pieces that are only ever put behind one another.

Rendering a whole conversation at every step costs O(history), and many templates rewrite earlier turns, which throws
the engine's prefix cache away. A conversation here is

    head · user₁ · open · assistant₁ · next · user₂ · open · assistant₂ · next · …

where ``head`` holds the system message, ``open`` ends a user turn and asks for an answer, and ``next`` ends an answer
and begins a user turn: three constants, read off one rendering of a sample conversation. Where a template treats an
old answer differently from a new one (most reasoning models drop earlier thoughts), what stays in the conversation is
what was really prompted.
"""

from __future__ import annotations

from typing import Any

from vendomini.errors import ConfigError

_SYSTEM, _USER, _ASSISTANT, _LAST = "vmSystemMark", "vmFirstMark", "vmAnswerMark", "vmLastMark"


class ChatTemplate:
    """Encodes the pieces of a conversation for one tokenizer.

    Args:
        tokenizer: a Transformers tokenizer with a chat template.
        system: the system message; put before the first user message where the template has no such role.
        kwargs: passed to the template.

    Raises:
        ConfigError: there is no template, or it can't be taken apart.
    """

    def __init__(self, tokenizer: Any, system: str, kwargs: dict[str, Any] | None = None) -> None:
        self._tokenizer = tokenizer
        text = _sample(tokenizer, kwargs or {})
        marks = [_SYSTEM, _USER, _ASSISTANT, _LAST]
        if any(text.count(mark) != 1 for mark in marks) or sorted(marks, key=text.index) != marks:
            raise ConfigError(f"the chat template of {_name(tokenizer)} rewrites messages, which is not supported")
        head, rest = text.split(_USER)
        _, rest = rest.split(_ASSISTANT)
        following, tail = rest.split(_LAST)
        self.head: list[int] = self.encode(head.replace(_SYSTEM, system))
        self.next: list[int] = self.encode(following)
        self._open = tail

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def user(self, text: str) -> list[int]:
        """A user turn, up to where the answer begins."""
        return self.encode(text + self._open)


def _sample(tokenizer: Any, kwargs: dict[str, Any]) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(f"{_name(tokenizer)} has no chat template: choose an instruction-tuned model")
    answer = {"role": "assistant", "content": _ASSISTANT}
    last = {"role": "user", "content": _LAST}
    with_role = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}, answer, last]
    without = [{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}, answer, last]
    for messages in (with_role, without):
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **kwargs)
        except Exception as exc:  # templates raise what their authors chose
            reason = exc
            continue
        if _SYSTEM in text:
            return str(text)
        reason = ValueError("it drops the system message")
    raise ConfigError(f"the chat template of {_name(tokenizer)} fails: {reason}") from reason


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", None) or "this tokenizer"
