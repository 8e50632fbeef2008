"""A model's chat template, taken apart into texts that are only ever concatenated.

Rendering a whole conversation at every step costs O(history). A conversation here is

    head · user₁ · past · answer₁ · next · user₂ · past · answer₂ · next · … · userₙ · open

where ``head`` holds the system message, ``past`` comes between a user's turn and an old answer, ``next`` ends an answer
and begins a user's turn, and ``open`` asks for an answer: constants, read off one rendering of a sample conversation.
``past`` and ``open`` differ where a template opens a thought for the new answer, or drops those of old ones.

Tokens are those of the whole text: it is cut for the tokeniser only where cutting changes nothing, before a special
token of ``next``. Where there is no such place, the whole is tokenised at every step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from itertools import product
from typing import NamedTuple, Protocol

from vendomini.errors import ConfigError
from vendomini.model_info.formats import ReplyFormat, find_format, opened_by, template_source

PROMPT_DATE = "2026-01-01"
"""Today, for templates that write a date, where the config names none: a run resumes with the prompt it began with."""

_USER, _ASSISTANT, _LAST, _THOUGHT = "vmFirstMark", "vmAnswerMark", "vmLastMark", "vmThoughtMark"
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_READS_REASONING = re.compile(rf"""(?:\.|\[['"]|get\(['"])(?:{"|".join(_REASONING_KEYS)})\b""")
_READS_PARTS = re.compile(r"""==\s*['"]thinking['"]""")
_TRIAL = ('{"thought":"a","tool":"b","arguments":{}}', "An answer.")

Messages = list[Mapping[str, object]]


class Tokenizer(Protocol):
    """What a template needs of a Transformers tokenizer."""

    def get_added_vocab(self) -> dict[str, int]: ...
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def apply_chat_template(
        self, conversation: Messages, *, tokenize: bool, add_generation_prompt: bool, **kwargs: object
    ) -> object: ...


class _Thoughtful(NamedTuple):
    """What stands between a user's text and an old answer with a thought: before the thought and after it, where it is
    kept."""

    before: str
    after: str
    kept: bool


class ChatTemplate:
    """The constants of one tokenizer's template, with the system message in them.

    Args:
        tokenizer: a Transformers tokenizer with a chat template.
        system: the system message; put before the first user message where the template has no such role.
        kwargs: passed to the template.
        today: ISO date for templates that write one.
        reply_format: the model's family; else it is found.

    Attributes:
        head, past, next, open: as above.
        format: how replies are marked.
        keeps_thoughts: the thoughts of earlier turns stay in the conversation.
        seams: ``next`` can be cut into ``close`` and ``begin``, between which the tokeniser never merges.

    Raises:
        ConfigError: there is no template, or it can't be taken apart.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        system: str,
        kwargs: Mapping[str, object] | None = None,
        today: str | None = None,
        reply_format: ReplyFormat | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        source, options = template_source(tokenizer), _options(kwargs, today)
        if source is None:
            raise ConfigError(f"{_name(tokenizer)} has no chat template: choose an instruction-tuned model")
        messages, text = _sample(tokenizer, system, options | {"chat_template": source})
        self.head, rest = text.split(_USER)
        self.past, rest = rest.split(_ASSISTANT)
        self.next, self.open = rest.split(_LAST)
        added = tokenizer.get_added_vocab()
        self.format = opened_by(reply_format or find_format(source, added, self.open), self.open)
        self._thoughtful = self._find_thoughts(source, options, messages)
        self.seams, self.close, self.begin = self._cut(added)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    @property
    def keeps_thoughts(self) -> bool:
        return self._thoughtful.kept

    def answered(self, answer: str, reasoning: str) -> str:
        """What follows a user's text once it is answered, up to ``next``."""
        if not reasoning:
            return self.past + answer
        before, after, kept = self._thoughtful
        return f"{before}{reasoning if kept else ''}{after}{answer}"

    def _find_thoughts(self, source: str, options: dict[str, object], messages: Messages) -> _Thoughtful:
        """What the template makes of a thought in an earlier turn, given to it in the ways that it may read."""
        dropped = _Thoughtful(self.past, "", False)
        if not self.format.start:
            return dropped
        listed = isinstance(messages[-1]["content"], list)
        later = [
            {**messages[-1], "content": _content("More.", listed)},
            {**messages[-2], "content": _content("Yes.", listed)},
        ]
        for answer, own_field in _thoughtful(self.format, source, listed=listed):
            text, told = "", [*messages[:-2], answer, *later, messages[-1]]
            with suppress(Exception):  # this template refuses such an answer
                text = _render(self._tokenizer, told, options | {"chat_template": source})
            if _THOUGHT in text and _in_order(text, [_USER, _THOUGHT, _ASSISTANT, _LAST]):
                before, rest = text.split(_USER)[1].split(_THOUGHT)
                return _Thoughtful(before, rest.split(_ASSISTANT)[0], True)
            if own_field and _THOUGHT not in text and _in_order(text, [_USER, _ASSISTANT, _LAST]):
                dropped = _Thoughtful(text.split(_USER)[1].split(_ASSISTANT)[0], "", False)
        return dropped

    def _cut(self, added: dict[str, int]) -> tuple[bool, str, str]:
        """Whether ``next`` may be cut, and its parts before and after the cut."""
        places = {0, *(place for token in added if token and (place := self.next.find(token)) >= 0)}
        for place in sorted(places):
            if self._is_seam(self.next[:place], self.next[place:]):
                return True, self.next[:place], self.next[place:]
        return False, "", self.next

    def _is_seam(self, close: str, begin: str) -> bool:
        if not begin:
            return False
        user = "OBSERVATION {}" + self.open
        for answer in _TRIAL:
            before = f"{self.head}OBSERVATION {{}}{self.past}{answer}{close}"
            if self.encode(before) + self.encode(begin + user) != self.encode(before + begin + user):
                return False
        return True


def _options(kwargs: Mapping[str, object] | None, today: str | None) -> dict[str, object]:
    """What is passed to a template, with a fixed clock."""
    day = date.fromisoformat(today or PROMPT_DATE)
    return {"strftime_now": day.strftime, **(kwargs or {})}


def _render(tokenizer: Tokenizer, messages: Messages, options: dict[str, object]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options))


def _sample(tokenizer: Tokenizer, system: str, options: dict[str, object]) -> tuple[Messages, str]:
    """A conversation of two turns as the template takes it, and its rendering."""
    reason: Exception = ValueError("it fits no conversation")
    without_tools: dict[str, object] = {"tools": []}  # some count the tools without checking that there are any
    for messages, more in product(_variants(system), ({}, without_tools)):
        try:
            text = _render(tokenizer, messages, options | more)
        except Exception as exc:  # templates raise whatever their authors chose
            reason = exc
            continue
        if system.strip() not in text:
            reason = ValueError("it drops the system message")
        elif not _in_order(text, [system.strip(), _USER, _ASSISTANT, _LAST]):
            reason = ValueError("it rewrites messages, which is not supported")
        else:
            return messages, text
    raise ConfigError(f"the chat template of {_name(tokenizer)} fails on a plain conversation: {reason}") from reason


def _in_order(text: str, parts: list[str]) -> bool:
    places = [text.find(part) for part in parts]
    return places == sorted(places) and all(text.count(mark) == 1 for mark in parts[1:])


def _variants(system: str) -> Iterator[Messages]:
    """The sample conversation with and without a system role, contents as texts and as lists of parts."""
    told = [{"role": "system", "content": system}, {"role": "user", "content": _USER}]
    merged = [{"role": "user", "content": f"{system}\n\n{_USER}"}]
    rest = [{"role": "assistant", "content": _ASSISTANT}, {"role": "user", "content": _LAST}]
    for messages in ([*told, *rest], [*merged, *rest]):
        yield list(messages)
        yield [{**message, "content": _content(message["content"], True)} for message in messages]


def _thoughtful(form: ReplyFormat, source: str, *, listed: bool) -> Iterator[tuple[dict[str, object], bool]]:
    """An answer with its thought, and whether it has a field of its own: in a field or a part of the content where the
    template reads one, else before the answer."""
    reads = False
    if _READS_REASONING.search(source):
        reads = True
        content = _content(_ASSISTANT, listed)
        yield {"role": "assistant", "content": content, **dict.fromkeys(_REASONING_KEYS, _THOUGHT)}, True
    if _READS_PARTS.search(source):
        reads = True
        thought = {"type": "thinking", "thinking": _THOUGHT}
        yield {"role": "assistant", "content": [thought, {"type": "text", "text": _ASSISTANT}]}, True
    if not reads:
        content = _content(f"{form.start}\n{_THOUGHT}\n{form.end}\n\n{_ASSISTANT}", listed)
        yield {"role": "assistant", "content": content}, False


def _content(text: str, listed: bool) -> object:
    return [{"type": "text", "text": text}] if listed else text


def _name(tokenizer: object) -> str:
    return getattr(tokenizer, "name_or_path", None) or "this tokenizer"
