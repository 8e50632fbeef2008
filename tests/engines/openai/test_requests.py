"""What is sent to a server."""

from __future__ import annotations

import pytest

from tests.engines.chat_server import NAME, Asked, ChatServer, answer
from tests.engines.openai.replies import error
from vendomini.engines import SamplingParams
from vendomini.errors import EngineStopped


def test_a_budget_for_thoughts_is_asked_for_and_a_server_that_ignores_it_is_known(server: ChatServer) -> None:
    thoughtful = answer(reasoning_content="hm") | {"usage": {"completion_tokens_details": {"reasoning_tokens": 900}}}
    server.script = [(200, answer()), (200, thoughtful), (200, thoughtful)]
    asked = Asked(server.url)
    asked.times(3, SamplingParams(300, max_thinking_tokens=200))
    assert server.requests[0]["thinking_token_budget"] == 200
    (warning,) = asked.lines
    assert "ignores thinking_token_budget: a thought took 900 tokens, agent.model.max_thinking_tokens is 200" in warning
    assert asked.engine.info.details["changes"] == {"thinking_token_budget": "ignored"}


def test_the_request_says_how_to_sample(server: ChatServer) -> None:
    Asked(server.url, chat_template_kwargs={"enable_thinking": False}).once()
    assert server.requests == [
        {
            "model": NAME,
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 16,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 7,
            "stop": ["x"],
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]


def test_a_schema_travels_as_a_response_format(server: ChatServer) -> None:
    Asked(server.url).once(SamplingParams(16, json_schema={"type": "object"}))
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_the_config_adds_to_the_request_and_takes_from_it(server: ChatServer) -> None:
    extra = {"reasoning_effort": "high", "provider": {"order": ["a"]}, "model": "alias", "seed": None, "top_p": 0.3}
    server.models = (200, {"data": [{"id": "alias"}]})
    asked = Asked(server.url, engine={"request": extra})
    asked.once()
    sent = server.requests[0]
    assert sent | {"seed": None} | extra == sent | {"seed": None}
    assert "seed" not in sent
    assert asked.engine.info.details["request"] == extra


def test_a_field_of_the_config_that_is_refused_is_named(server: ChatServer) -> None:
    server.script = [error(400, "Unrecognized request argument supplied: reasoning_effort")]
    with pytest.raises(EngineStopped, match=r"does not take reasoning_effort \(from engine\.request\)"):
        Asked(server.url, engine={"request": {"reasoning_effort": "high"}}).once()
