"""The client against a real HTTP server that speaks OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import http_server
from tests.engines.conftest import Conversation, wait
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import Completion, SamplingParams
from vendomini.engines.openai import engine as openai_compatible
from vendomini.engines.resolve import start_engine
from vendomini.errors import ConfigError, EngineError, EngineUnavailable

ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}},
}


class Handler(http_server.Handler):
    server: Server

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "served/model", "max_model_len": 4096}]})

    def do_POST(self) -> None:
        self.server.requests.append(self.asked())
        self.server.keys.append(self.headers["Authorization"])
        self.reply(*(self.server.script.pop(0) if self.server.script else (200, ANSWER)))


class Server(http_server.Server):
    """Answers from ``script`` first (status, body), then with ``ANSWER``; keeps what it was asked."""

    handler = Handler

    def __init__(self) -> None:
        super().__init__()
        self.url += "/v1"
        self.script: list[tuple[int, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(openai_compatible, "FIRST_PAUSE", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server() as running:
        yield running


def ask(server: Server, model: str = "served/model", params: SamplingParams | None = None, **extra: Any) -> Completion:
    async def run() -> Completion:
        config = EngineConfig(backend="openai", base_url=server.url)
        engine = await start_engine(Model(name=model, **extra), config, None, [].append)
        assert engine.context_length == 4096
        prompt = Conversation([], [{"role": "user", "content": "hi"}])
        return await engine.generate(prompt, params or SamplingParams(16, 0.5, 0.9, seed=7, stop=("x",)))

    return wait(run())


def test_a_completion_carries_text_and_counts(server: Server) -> None:
    answer = ask(server)
    assert (answer.text, answer.finish_reason) == ("hello", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (12, 3, 8)


def test_the_request_says_how_to_sample(server: Server) -> None:
    ask(server, chat_template_kwargs={"enable_thinking": False})
    assert server.requests == [
        {
            "model": "served/model",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 16,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 7,
            "stop": ["x"],
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]


def test_a_schema_travels_as_a_response_format(server: Server) -> None:
    ask(server, params=SamplingParams(16, json_schema={"type": "object"}))
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_the_key_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    ask(server)
    assert server.keys == ["Bearer a-secret"]


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.script = [(503, {}), (429, {}), (200, b"not json")]
    assert ask(server).text == "hello"
    assert len(server.requests) == 4


def test_a_server_that_stays_busy_is_given_up(server: Server) -> None:
    server.script = [(500, {})] * 20
    with pytest.raises(EngineError, match="gave no answer in 6 tries, the last time: 500"):
        ask(server)


def test_a_refusal_is_not_repeated_and_shows_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    server.script = [(401, {"error": "wrong key"})]
    with pytest.raises(EngineError, match=r"answered 401 .*wrong key") as caught:
        ask(server)
    assert len(server.requests) == 1
    assert "a-secret" not in str(caught.value)


CHOICE = ANSWER["choices"][0]
OTHER_FORMS = [
    {"output": "hello"}, [], "hello", None, {"choices": []}, {"choices": None},
    {"choices": [{"message": {"content": ["hello"]}}]},
    {"choices": [CHOICE], "usage": "much"},
    *({"choices": [CHOICE], "usage": {"prompt_tokens": count}} for count in ("x", -1, 1.5, 10**30, float("inf"))),
    {"choices": [CHOICE], "usage": {"prompt_tokens_details": {"cached_tokens": "all"}}},
]  # fmt: skip


@pytest.mark.parametrize("answer", OTHER_FORMS, ids=str)
def test_an_answer_of_another_form_is_an_engine_error(server: Server, answer: Any) -> None:
    server.script = [(200, answer)]
    with pytest.raises(EngineError, match="in a form that is not OpenAI's"):
        ask(server)


def test_a_model_that_is_not_served_is_known_at_the_start(server: Server) -> None:
    with pytest.raises(EngineUnavailable, match="serves served/model, not other/model"):
        ask(server, model="other/model")


def test_a_server_that_is_not_there_is_known_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "FIRST_PAUSE", 0.001)
    config = EngineConfig(backend="openai", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(EngineUnavailable, match=r"no usable server at http://127\.0\.0\.1:9/v1"):
        wait(start_engine(Model(name="org/model"), config, None, [].append))


def test_an_address_without_a_scheme_is_a_config_error() -> None:
    config = EngineConfig(backend="openai", base_url="localhost:8000")
    with pytest.raises(ConfigError, match="must begin with http"):
        wait(start_engine(Model(name="org/model"), config, None, [].append))
