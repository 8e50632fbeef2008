"""The form of requests to a server: OpenAI's, changed according to the server's refusals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from pydantic import JsonValue

from vendomini.config import schema
from vendomini.engines.base import SamplingParams
from vendomini.engines.openai.failure import Said
from vendomini.worlds.conversation import Message

SAMPLING = (
    *("seed", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"),
    *("top_p", "stop", "temperature"),
)
"""What is left out where a server refuses it; of two that exclude each other, the one that matters less is first."""

BUDGET = "thinking_token_budget"
"""vLLM's name for the limit of a thought; OpenAI's API has none."""

Body = dict[str, Any]
"""What is sent to a server."""

NO_ANSWER = "(no answer)"
OTHER_NAMES = {"max_tokens": "max_completion_tokens", "repetition_penalty": "repeat_penalty"}
RENAMED = {name: f"asked for as {other}" for name, other in OTHER_NAMES.items()}
CHANGES = {
    "max_tokens": RENAMED["max_tokens"],
    "system": "message put before the first user message",
    "empty": f"replies sent back as {NO_ANSWER}",
}
"""What is done about a refusal; any other field is left out."""
LEFT_OUT = "left out"

_UNKNOWN = re.compile(
    r"unsupported|not? support|n't support|unrecogni[sz]ed|unknown|unexpected|extra (input|field)|unavailable"
    r"|not (permitted|allowed|implemented|available)|deprecated|only the default|cannot (both )?be (specified|used|set)"
    r"|is not configured|disallowed|forbidden|invalid (parameter|argument|field)|incompatible|must alternate",
    re.IGNORECASE,
)
_SYSTEM = re.compile(r"system.{0,3} (role|message|prompt|instruct)|must alternate|role.{0,40}system", re.IGNORECASE)
_EMPTY = re.compile(r"non-?empty|(be|is|are) empty|empty (content|message|text)|content or tool_calls", re.IGNORECASE)


class Dialect:
    """Builds requests for one server.

    Args:
        extra: added to every request, overriding everything else; null leaves a field out.

    Attributes:
        changes: what is requested differently, and how: ``{"seed": "left out"}``.
    """

    def __init__(self, model: schema.Model, extra: Mapping[str, JsonValue]) -> None:
        self._model, self._extra = model, dict(extra)
        self.changes: dict[str, str] = {}

    def body(self, messages: list[Message], params: SamplingParams) -> Body:
        """A chat completion request."""
        given = msgspec.structs.asdict(params) | {"stop": list(params.stop) or None}
        asked: Body = {
            "model": self._model.name,
            "messages": self._messages(messages),
            self._name("max_tokens"): params.max_tokens,
            BUDGET: None if BUDGET in self.changes else params.max_thinking_tokens,
            **{self._name(name): given.get(name) for name in SAMPLING if self.changes.get(name) != LEFT_OUT},
            "chat_template_kwargs": self._model.chat_template_kwargs or None,
        }
        if params.json_schema is not None:
            named = {"name": "reply", "schema": params.json_schema, "strict": True}
            asked["response_format"] = {"type": "json_schema", "json_schema": named}
        return {name: value for name, value in (asked | self._extra).items() if value is not None}

    def _name(self, field: str) -> str:
        return OTHER_NAMES[field] if self.changes.get(field, "") == RENAMED.get(field) else field

    def speak_llama_cpp(self) -> None:
        """Whose server knows one parameter by another name, and ignores what it does not know."""
        self.changes.setdefault("repetition_penalty", RENAMED["repetition_penalty"])

    def _messages(self, messages: list[Message]) -> list[Message]:
        if "system" in self.changes and len(messages) > 1:
            system, first, *rest = messages
            messages = [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]
        if "empty" in self.changes:
            messages = [m if m["content"].strip() else {**m, "content": NO_ANSWER} for m in messages]
        return messages

    def learn(self, said: Said, sent: Body) -> str | None:
        """Reads a refusal of such a request.

        Returns:
            What will be requested differently from now on, for people; empty if a concurrent request has already led to
            that change; None if the refusal is about something else.
        """
        name = self._about(said, sent)
        if name is None or name in self.changes:
            return None if name is None else ""
        self.changes[name] = CHANGES.get(name, LEFT_OUT)
        return f"{name} {self.changes[name]}"

    def _about(self, said: Said, sent: Body) -> str | None:
        words = f"{said.code} {said.text}"
        messages = sent["messages"]
        if _EMPTY.search(words) and not all(message["content"].strip() for message in messages):
            return "empty"
        if not _UNKNOWN.search(words):
            return None
        if _SYSTEM.search(words) and messages[0]["role"] == "system":
            return "system"
        return _named(
            said, (name for name in ("max_tokens", BUDGET, *SAMPLING) if name in sent and name not in self._extra)
        )

    def refused(self, said: Said, sent: Body) -> str | None:
        """A field that the config sets and the server refuses: we must not leave it out."""
        if not _UNKNOWN.search(f"{said.code} {said.text}"):
            return None
        own = {"response_format": "agent.interface.structured_output", "chat_template_kwargs": "agent.model"}
        own |= dict.fromkeys(self._extra, "engine.request")
        name = _named(said, (name for name in own if name in sent))
        return name and f"{name} (from {own[name]})"


def _named(said: Said, names: Iterable[str]) -> str | None:
    """Which of these fields it is about."""
    candidates = list(names)
    if said.parameter and (name := said.parameter.partition(".")[0]) in candidates:
        return name
    quoted = {"stop"}  # a word of any text
    for name in candidates:
        around = r"['\"`\[]" if name in quoted else r"(?<!\w)"
        if re.search(f"{around}{name}(?!\\w)", said.text):
            return name
    return None
