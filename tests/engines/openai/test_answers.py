"""Answers of servers, good and bad, and what the engine makes of them: one line a behaviour."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from tests.engines.chat_server import NAME, Asked, ChatServer, answer
from tests.engines.openai.replies import (
    HTML,
    PAGE,
    bad_length,
    bad_status,
    choice,
    cut,
    cut_chunks,
    error,
    hang_up,
    huge_header,
    nonsense,
    reset_in_error,
    zipped,
)
from tests.http_server import Reply
from vendomini.engines import SamplingParams
from vendomini.errors import EngineError, EngineStopped, NoReply

PASSES: dict[str, Reply] = {
    **{f"status {status}": (status, {}) for status in (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)},
    "an error without a body": (503, b""),
    "an HTML error page": (502, PAGE, HTML),
    "an HTML page with status 200": (200, PAGE, HTML),
    "not JSON": (200, b"not json"),
    "nothing at all": (200, b""),
    "no content": (204, b""),
    "half of the JSON": (200, b'{"choices": [{"mess'),
    "an error in a 200": (200, {"error": {"message": "upstream overloaded", "code": 502}}),
    "an error text in a 200": (200, {"error": "upstream overloaded"}),
    "vLLM's error in a 200": (200, {"object": "error", "message": "try later", "code": 503}),
    "an error in the choice": choice("error", error={"code": 502, "message": "provider broke"}),
    "finish_reason error": choice("error"),
    "finish_reason abort": choice("abort"),
    "no choices": (200, {"choices": []}),
    "content null and nothing else": choice("stop"),
    "content null although tokens were counted": (200, answer(None, reasoning=None, tool_calls=[])),
    "content null beside an error that is null": (200, answer(None, refusal=None) | {"usage": {}, "error": None}),
    "the body is cut": cut,
    "the chunks are cut": cut_chunks,
    "a reset inside an error": reset_in_error,
    "another protocol": nonsense,
    "a bad status line": bad_status,
    "a bad length": bad_length,
    "a header too large": huge_header,
    "a connection that ends": hang_up,
    "a body that is no gzip": (200, b"not gzip", {"Content-Encoding": "gzip"}),
    "gzip cut in two": (200, gzip.compress(b"x" * 99)[:9], {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("reply", PASSES.values(), ids=PASSES)
def test_what_passes_is_tried_again(server: ChatServer, reply: Reply) -> None:
    server.script = [reply, reply]
    asked = Asked(server.url)
    assert asked.once().text == "hello"
    assert len(server.requests) == 3


@pytest.mark.parametrize("reply", PASSES.values(), ids=PASSES)
def test_what_does_not_pass_is_given_up_with_a_sentence(server: ChatServer, reply: Reply) -> None:
    server.script = [reply] * 100
    with pytest.raises(EngineError, match=r"gave no answer in 10 tries, the last time: \S") as caught:
        Asked(server.url).once()
    assert len(server.requests) == 10
    said = str(caught.value)
    assert len(said) < 600
    assert "<" not in said
    assert said.isprintable()


READ: dict[str, tuple[Any, dict[str, Any]]] = {
    "a plain answer": (
        answer(),
        {"text": "hello", "finish_reason": "stop", "raw_finish_reason": None, "reasoning": None},
    ),
    "cut off": (answer(finish="length"), {"text": "hello", "finish_reason": "length"}),
    "cut off, by another name": (
        answer(finish="MAX_TOKENS"),
        {"finish_reason": "length", "raw_finish_reason": "MAX_TOKENS"},
    ),
    "ended, by another name": (answer(finish="eos"), {"finish_reason": "stop", "raw_finish_reason": "eos"}),
    "no finish reason": (answer(finish=None), {"finish_reason": "stop", "raw_finish_reason": None}),
    "reasoning_content": (answer(reasoning_content="hm"), {"text": "hello", "reasoning": "hm"}),
    "reasoning": (answer(reasoning="hm"), {"text": "hello", "reasoning": "hm"}),
    "both": (answer(reasoning="hm", reasoning_content="hm"), {"reasoning": "hm"}),
    "reasoning_details": (answer(reasoning_details=[{"type": "reasoning.text", "text": "hm"}]), {"reasoning": "hm"}),
    "an empty reasoning": (answer(reasoning_content=""), {"text": "hello", "reasoning": None}),
    "cut while thinking": (
        answer(None, "length", reasoning="hm"),
        {"text": "", "finish_reason": "length", "reasoning": "hm"},
    ),
    "thought, then nothing": (answer(None, reasoning="hm"), {"text": "", "finish_reason": "stop", "reasoning": "hm"}),
    "an empty text": (answer(""), {"text": "", "finish_reason": "stop"}),
    "text beside tool calls": (
        answer(tool_calls=[{"id": "1"}], finish="tool_calls"),
        {"text": "hello", "raw_finish_reason": "tool_calls"},
    ),
    "content in parts": (answer([{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]), {"text": "hello"}),
    "thinking in parts": (
        answer([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hello"}]),
        {"text": "hello", "reasoning": "hm"},
    ),
    "counts": (answer(), {"prompt_tokens": 12, "completion_tokens": 3, "cached_tokens": 8}),
    "no counts": (answer() | {"usage": None}, {"text": "hello", "prompt_tokens": 0, "cached_tokens": None}),
    "counts that are null": (answer() | {"usage": {"prompt_tokens": None}}, {"prompt_tokens": 0}),
    "a thought left in the text": (
        answer("<think>hm</think>\n\nhello", reasoning_content=None, tool_calls=[]),
        {"text": "<think>hm</think>\n\nhello", "reasoning": None},
    ),
    "ended by a tool that is not there": (answer(finish="tool_call"), {"raw_finish_reason": "tool_call"}),
    "unknown fields": (answer(annotations=[], audio=None) | {"id": 7, "x_groq": {}}, {"text": "hello"}),
    "an empty error beside the answer": (answer() | {"error": None}, {"text": "hello"}),
}


@pytest.mark.parametrize(("body", "expected"), READ.values(), ids=READ)
def test_a_reply_is_read(server: ChatServer, body: Any, expected: dict[str, Any]) -> None:
    server.script = [(200, body)]
    completion = Asked(server.url).once()
    assert {name: getattr(completion, name) for name in expected} == expected
    assert len(server.requests) == 1


def test_a_compressed_answer_is_read(server: ChatServer) -> None:
    server.script = [zipped(answer())]
    assert Asked(server.url).once().text == "hello"


REPLY = '{"thought": "", "tool": "tool_end_day", "arguments": {}}'


WITHHELD: dict[str, tuple[Reply, str]] = {
    "a refusal": ((200, answer(None, refusal="I can't help with that.")), "a refusal: I can't help"),
    "a refusal as a part": ((200, answer([{"type": "refusal", "refusal": "no"}])), "a refusal: no"),
    "a filter": ((200, answer(None, "content_filter")), "content_filter"),
    "a filter that leaves some text": ((200, answer("hel", "content_filter")), "content_filter"),
    "a filter by another name": ((200, answer("", "SAFETY")), "SAFETY"),
    "a filter as an error": (
        error(400, "blocked by our content management policy", code="content_filter"),
        "400: blocked",
    ),
    "a filter as a 403": (error(403, "Input was flagged by moderation"), "403: Input was flagged"),
    "only tool calls": ((200, answer(None, "tool_calls", tool_calls=[{"id": "1"}])), "own tools"),
    "only tool calls, text empty": ((200, answer("", "tool_calls", tool_calls=[{"id": "1"}])), "own tools"),
    "an old function call": ((200, answer(None, "function_call", function_call={"name": "x"})), "own tools"),
    "the reply as reasoning": ((200, answer(None, reasoning_content=REPLY)), "field for reasoning"),
}


@pytest.mark.parametrize(("reply", "said"), WITHHELD.values(), ids=WITHHELD)
def test_what_is_no_reply_of_the_model_is_no_behaviour(server: ChatServer, reply: Reply, said: str) -> None:
    server.script = [reply]
    with pytest.raises(NoReply, match=said):
        Asked(server.url).once()
    assert len(server.requests) == 1


BROKEN = {name: PASSES[name] for name in ("finish_reason error", "no choices", "content null and nothing else")}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
def test_what_the_server_broke_off_is_no_behaviour(server: ChatServer, reply: Reply) -> None:
    server.script = [reply] * 10
    with pytest.raises(NoReply):
        Asked(server.url).once()


STOPS: dict[str, tuple[Reply, str]] = {
    "a wrong key": (
        error(401, "Incorrect API key provided", code="invalid_api_key"),
        "401: Incorrect API key provided: is OPENAI",
    ),
    "a key without rights": (error(403, "Project does not have access"), "403: Project does not"),
    "no money": (error(429, "You exceeded your current quota", code="insufficient_quota"), "429: You exceeded"),
    "no credit": (error(402, "Insufficient credits"), "402: Insufficient"),
    "no credit, as a 400": (error(400, "Your credit balance is too low"), "400: Your credit balance"),
    "an unknown model": (error(404, f"The model `{NAME}` does not exist.", code="model_not_found"), "404: The model"),
    "an unknown model, as a 400": (error(400, "Invalid model name passed in model=served/model"), "400: Invalid model"),
    "an unknown address": ((404, {"detail": "Not Found"}), "404: Not Found: does engine.base_url end"),
    "a method not allowed": ((405, b""), "405: does engine.base_url end"),
    "a wait too long": ((429, {}, {"Retry-After": "3600"}), "it asks to wait 3,600 s"),
    "no structured output": (
        error(400, "response_format is not supported"),
        r"does not take response_format \(from agent",
    ),
}


@pytest.mark.parametrize(("reply", "said"), STOPS.values(), ids=STOPS)
def test_what_every_run_would_meet_stops_the_engine(server: ChatServer, reply: Reply, said: str) -> None:
    server.script = [reply]
    asked = Asked(server.url)
    with pytest.raises(EngineStopped, match=said) as caught:
        asked.once(SamplingParams(16, json_schema={"type": "object"}))
    assert asked.engine.gone == str(caught.value)
    assert len(server.requests) == 1


def test_which_model_answered_is_recorded(server: ChatServer) -> None:
    server.script = [(200, answer() | {"model": "a-2024"}), (200, answer() | {"model": "b"}), (200, answer())]
    asked = Asked(server.url)
    asked.times(4)
    assert asked.engine.info.details["answered_by"] == ["a-2024", "b", NAME]


OTHER_FORMS = [
    {"output": "hello"}, [], "hello", 7, {"choices": None}, {"choices": [{"message": {"content": ["hello"]}}]},
    answer() | {"usage": "much"},
    *(answer() | {"usage": {"prompt_tokens": count}} for count in ("x", -1, 1.5, 10**30, float("inf"))),
    answer() | {"usage": {"prompt_tokens_details": {"cached_tokens": "all"}}},
]  # fmt: skip


@pytest.mark.parametrize("body", OTHER_FORMS, ids=str)
def test_an_answer_of_another_form_is_an_engine_error(server: ChatServer, body: Any) -> None:
    server.script = [(200, body)]
    with pytest.raises(EngineError, match="not of OpenAI's form"):
        Asked(server.url).once()
    assert len(server.requests) == 1
