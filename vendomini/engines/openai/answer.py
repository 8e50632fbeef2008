"""Reads chat completions, and recognises answers that hold no words of the model."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from vendomini.engines.base import Completion
from vendomini.engines.openai.failure import Failure, Kind, read_error

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]

CUT = {"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"}
WITHHELD = {"content_filter", "safety", "recitation", "prohibited_content", "blocklist", "spii", "sensitive", "refusal"}
BROKEN_OFF = {"error", "abort", "cancelled", "network_error", "insufficient_system_resource", "other"}
"""Finish reasons, in lower case, of servers that use their own names."""


class _Details(msgspec.Struct):
    cached_tokens: Count | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None
    thinking: Any = None
    reasoning: Any = None
    refusal: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    reasoning_details: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    error: Any = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None
    model: str | None = None


class _Model(msgspec.Struct):
    id: str
    max_model_len: Count | None = None
    context_length: Count | None = None
    max_context_length: Count | None = None
    context_window: Count | None = None
    owned_by: Any = None
    meta: Any = None


class _Models(msgspec.Struct):
    data: list[_Model] | None = None


Told = TypeVar("Told", _Answer, _Models)


class ServedModel(msgspec.Struct, frozen=True):
    """A model that a server lists.

    Attributes:
        context: tokens; None where the server does not say.
        llama_cpp: the server is llama.cpp's, which answers as this model whatever name it is asked for.
    """

    context: int | None
    llama_cpp: bool


def read_models(answer: Any) -> dict[str, ServedModel]:
    """The models that a server lists, by name."""
    return {model.id: _served(model) for model in _convert(answer, _Models).data or []}


def _served(model: _Model) -> ServedModel:
    context = model.max_model_len or model.context_length or model.max_context_length or model.context_window
    llama_cpp = model.owned_by == "llamacpp"
    if (
        context is None
        and llama_cpp
        and isinstance(model.meta, dict)
        and isinstance(size := model.meta.get("n_ctx"), int)
    ):
        context = size
    return ServedModel(context, llama_cpp)


def read_completion(answer: Any) -> Completion:
    """The model's reply.

    Raises:
        Failure: there is none. ``withheld``: the server kept it back or gave something else; ``empty``: it broke off;
            ``other``: the answer is not in OpenAI's form.
    """
    told = _convert(answer, _Answer)
    if not told.choices:
        raise Failure("empty", "an answer without choices")
    choice = told.choices[0]
    text, reasoning = _text(choice.message), _reasoning(choice.message)
    cut = (choice.finish_reason or "").lower() in CUT
    if lacking := _lacking(choice, text, reasoning, cut):
        raise lacking
    usage = told.usage or _Usage()
    finish: Literal["length", "stop"] = "length" if cut else "stop"
    return Completion(
        text=text or "",
        finish_reason=finish,
        raw_finish_reason=None if choice.finish_reason == finish else choice.finish_reason,
        reasoning=reasoning or None,
        prompt_tokens=usage.prompt_tokens or 0,
        completion_tokens=usage.completion_tokens or 0,
        cached_tokens=usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
    )


def thought_tokens(answer: Any) -> int:
    """Tokens of the thought, by the server's own count; 0 where it gives none."""
    usage = _convert(answer, _Answer).usage
    details = usage and usage.completion_tokens_details
    return (details and details.reasoning_tokens) or 0


def answered_by(answer: Any) -> str | None:
    """The model that the server says has answered."""
    return _convert(answer, _Answer).model


def _lacking(choice: _Choice, text: str | None, reasoning: str, cut: bool) -> Failure | None:
    """Why this answer is not the model's reply; None if it is. The content of a reply is never judged here."""
    message, raw = choice.message, choice.finish_reason
    reason = (raw or "").lower()
    if choice.error or reason in BROKEN_OFF:
        said = f": {read_error(500, choice.error, str(choice.error))}" if choice.error else ""
        return _withheld(raw, f"the server broke off{said}", "empty")
    if refusal := message.refusal or _refusal_part(message):
        return _withheld(raw, f"a refusal: {refusal:.200}")
    if reason in WITHHELD:
        return _withheld(raw, "the server kept the reply back")
    if text or cut:
        return None
    if message.tool_calls or message.function_call:
        return _withheld(raw, "a call of the server's own tools instead of a text")
    if _is_object(reasoning):
        return _withheld(
            raw, "the reply stands in the server's field for reasoning: start it without a reasoning parser"
        )
    if text is None and not reasoning:
        return _withheld(raw, "no content", "empty")
    return None


def _withheld(raw: str | None, why: str, kind: Kind = "withheld") -> Failure:
    return Failure(kind, f"no reply of the model (finish_reason {raw}): {why}")


def _text(message: _Message) -> str | None:
    if not isinstance(message.content, list):
        return message.content
    texts = [part.text for part in message.content if part.text is not None and "text" in part.type]
    return "".join(texts) if texts else None


def _reasoning(message: _Message) -> str:
    """The thought, wherever servers put it: a field, a list of details, parts of the content."""
    for field in (message.reasoning, message.reasoning_content, message.reasoning_details):
        if found := _flat(field):
            return found
    parts = message.content if isinstance(message.content, list) else []
    thought = [part.thinking or part.reasoning or part.text for part in parts if "text" not in part.type]
    return "".join(map(_flat, thought))


def _flat(value: Any) -> str:
    """The text in a field that may hold text, an object with text, or a list of them."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_flat, value))
    if isinstance(value, dict):
        return next((_flat(value[key]) for key in ("text", "summary", "content", "thinking") if value.get(key)), "")
    return ""


def _refusal_part(message: _Message) -> str | None:
    parts = message.content if isinstance(message.content, list) else []
    return next((part.refusal for part in parts if part.refusal), None)


def _is_object(text: str) -> bool:
    """Whether this is a whole JSON object, as replies are and thoughts are not."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _convert(answer: Any, kind: type[Told]) -> Told:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as exc:
        raise Failure("other", f"the answer is not of OpenAI's form ({exc}): {answer!s:.200}") from exc
