"""What a server refuses, and what is asked for instead."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engines.chat_server import Asked, ChatServer, Handler, answer
from tests.engines.openai.replies import HTML, error
from tests.http_server import Reply
from vendomini.engines import SamplingParams
from vendomini.errors import PromptTooLong

TOO_LONG = {
    "OpenAI": (400, "This model's maximum context length is 4097 tokens. Your messages resulted in 5013."),
    "vLLM": (
        400,
        "This model's maximum context length is 4096 tokens. However, your prompt contains 3585 input tokens.",
    ),
    "vLLM, older": (
        400,
        "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 4096.",
    ),
    "llama.cpp": (400, "the request exceeds the available context size (4096 tokens), try increasing it"),
    "TGI": (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs`"),
    "sglang": (400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
    "Mistral": (400, "Prompt contains 40960 tokens and 0 draft tokens, too large for model"),
    "Anthropic": (400, "prompt is too long: 215320 tokens > 200000 maximum"),
    "Gemini": (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
    "LiteLLM": (500, "litellm.ContextWindowExceededError: ContextWindowExceededError: OpenAIException"),
    "Groq": (413, "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 8012"),
    "DeepSeek": (400, "You requested 70000 tokens. Please reduce the length of the messages or completion."),
    "a proxy": (413, "<html><body><h1>413 Request Entity Too Large</h1></body></html>"),
}


@pytest.mark.parametrize(("status", "words"), TOO_LONG.values(), ids=TOO_LONG)
def test_a_prompt_that_is_too_long_is_known_as_that(server: ChatServer, status: int, words: str) -> None:
    server.script = [(status, words.encode(), HTML) if words.startswith("<") else error(status, words)]
    with pytest.raises(PromptTooLong):
        Asked(server.url).once()


EXTRA = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}


ALL = SamplingParams(
    16,
    0.5,
    0.9,
    7,
    ("x",),
    None,
    max_thinking_tokens=8,
    top_k=20,
    min_p=0.1,
    repetition_penalty=1.1,
    presence_penalty=0.2,
)


ADAPTED: dict[str, tuple[Reply, str, dict[str, Any]]] = {
    "max_tokens": (
        error(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead.",
            param="max_tokens",
            code="unsupported_parameter",
        ),
        "max_tokens",
        {"max_tokens": None, "max_completion_tokens": 16},
    ),
    "temperature": (
        error(
            400,
            "Unsupported value: 'temperature' does not support 0.5. Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        ),
        "temperature",
        {"temperature": None, "top_p": 0.9},
    ),
    "seed, in pydantic's words": ((422, EXTRA), "seed", {"seed": None, "temperature": 0.5}),
    "seed, in LiteLLM's words": (
        error(400, "litellm.UnsupportedParamsError: x does not support parameters: ['seed'], for model=y."),
        "seed",
        {"seed": None},
    ),
    "top_k": (error(400, "Unrecognized request argument supplied: top_k"), "top_k", {"top_k": None, "top_p": 0.9}),
    "min_p": (error(400, "property 'min_p' is unsupported"), "min_p", {"min_p": None}),
    "a penalty": (
        error(400, 'Unknown name "presence_penalty": Cannot find field.'),
        "presence_penalty",
        {"presence_penalty": None},
    ),
    "a thinking budget, OpenAI": (
        error(400, "Unrecognized request argument supplied: thinking_token_budget"),
        "thinking_token_budget",
        {"thinking_token_budget": None, "max_tokens": 16},
    ),
    "a thinking budget, vLLM without a reasoning parser": (
        error(
            400, "thinking_token_budget is set but reasoning_config is not configured. Please set --reasoning-parser"
        ),
        "thinking_token_budget",
        {"thinking_token_budget": None},
    ),
    "two that exclude each other": (
        error(400, "`temperature` and `top_p` cannot both be specified for this model."),
        "top_p",
        {"top_p": None, "temperature": 0.5},
    ),
    "stop": (
        error(400, "Unsupported parameter: 'stop' is not supported with this model.", param="stop"),
        "stop",
        {"stop": None},
    ),
}


@pytest.mark.parametrize(("reply", "name", "expected"), ADAPTED.values(), ids=ADAPTED)
def test_a_parameter_that_is_refused_is_asked_for_differently(
    server: ChatServer, reply: Reply, name: str, expected: dict[str, Any]
) -> None:
    server.script = [reply]
    asked = Asked(server.url)
    assert [done.text for done in asked.times(2, ALL)] == ["hello", "hello"]
    refused, *later = server.requests
    assert refused[name] is not None
    for request in later:
        assert {key: request.get(key) for key in expected} == expected
        assert not {"max_tokens", "max_completion_tokens"} <= request.keys()
    assert list(asked.engine.info.details["changes"]) == [name]
    assert len([line for line in asked.lines if "refuses a part of the request" in line and name in line]) == 1


CONVERSATION = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "go on"},
]


FORMS = {
    "no system role, vLLM": (
        "System role not supported",
        [("user", "be brief\n\nhi"), ("assistant", ""), ("user", "go on")],
    ),
    "no system role, OpenAI": (
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        [("user", "be brief\n\nhi"), ("assistant", ""), ("user", "go on")],
    ),
    "no empty messages": (
        "messages.1: text content blocks must be non-empty",
        [("system", "be brief"), ("user", "hi"), ("assistant", "(no answer)"), ("user", "go on")],
    ),
}


@pytest.mark.parametrize(("words", "expected"), FORMS.values(), ids=FORMS)
def test_a_conversation_is_put_as_the_server_takes_it(server: ChatServer, words: str, expected: Any) -> None:
    server.script = [error(400, words)]
    Asked(server.url).once(messages=CONVERSATION)
    assert [(m["role"], m["content"]) for m in server.requests[-1]["messages"]] == expected


def test_many_at_once_learn_the_same_thing_once(server: ChatServer) -> None:
    def strict(handler: Handler) -> None:
        refused = "max_tokens" in server.requests[-1]
        handler.reply(*(ADAPTED["max_tokens"][0] if refused else (200, answer())))

    server.script = [strict] * 100
    asked = Asked(server.url)
    assert [done.text for done in asked.together(8)] == ["hello"] * 8
    assert len(asked.lines) == 1
