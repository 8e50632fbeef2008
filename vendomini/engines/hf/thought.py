"""A completion's thought while it is sampled: ended where it takes too long, and free of the answer's grammar."""

from __future__ import annotations

from collections.abc import Callable

from vendomini.engines.base import SamplingParams
from vendomini.model_info.formats import ReplyFormat

TAIL = 24
"""Newest tokens in which a marker is looked for."""


class Thought:
    """Follows one completion, token by token.

    Args:
        thinking: how the model marks a thought.
        limit: tokens of a thought, before its end is forced; None is no limit.
        encode, decode: of the model's tokenizer.

    Attributes:
        free: the next token is not the answer's, so that no grammar constrains it.
        forced: tokens that must come next, whatever the model prefers.
        openers: before the first token: those with which a thought, or the header of an answer, can begin.
    """

    def __init__(
        self,
        thinking: ReplyFormat,
        limit: int | None,
        encode: Callable[[str], list[int]],
        decode: Callable[[list[int]], str],
    ) -> None:
        self._thinking, self._limit, self._decode = thinking, limit, decode
        self._end = encode(thinking.end + thinking.header)
        self._count = 0
        self._state = "thought" if thinking.opened else "begin"
        self.forced: list[int] = []
        starts = () if thinking.opened else (thinking.start, thinking.header)
        self.openers = [encode(start)[0] for start in starts if start]

    @property
    def free(self) -> bool:
        return self._state in {"thought", "header", "marker"}

    def accept(self, new: list[int]) -> bool:
        """Takes in the newest token; returns whether it belongs to a thought or a marker rather than to the answer."""
        self.openers = []
        before = self._state
        if self._state in {"begin", "marker"}:
            self._begin(self._decode(new))
        elif self._state == "thought":
            self._count += 1
            self._think(self._decode(new[-TAIL:]))
        elif self._state == "header" and self._decode(new[-TAIL:]).endswith(self._thinking.header):
            self._state = "answer"
        return before != "answer" and not (before == "begin" and self._state == "answer")

    def _begin(self, text: str) -> None:
        start, header = self._thinking.start, self._thinking.header
        if text.lstrip().startswith(start):
            self._state = "thought"
        elif header and text == header:
            self._state = "answer"
        elif start.startswith(text) or (header and header.startswith(text)):
            self._state = "marker"
        else:
            self._state = "answer"

    def _think(self, tail: str) -> None:
        thinking = self._thinking
        if tail.endswith(thinking.end + thinking.header):
            self._state = "answer"
        elif tail.endswith(thinking.end):
            self._state = "header" if thinking.header else "answer"
        elif self._limit is not None and self._count >= self._limit and not self.forced:
            self.forced = list(self._end)


def follower(
    encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]
) -> Callable[[SamplingParams], Thought | None]:
    """Makes, for a tokenizer, what follows a request's thought; None if neither a limit nor a grammar needs it."""

    def follow(params: SamplingParams) -> Thought | None:
        if params.thinking is None or (params.max_thinking_tokens is None and params.json_schema is None):
            return None
        return Thought(params.thinking, params.max_thinking_tokens, encode, decode)

    return follow
