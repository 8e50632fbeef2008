"""Addresses, proxies, names of models, and what is known at the start."""

from __future__ import annotations

import sys

import pytest

from tests.engines.chat_server import NAME, Asked, ChatServer, Handler, answer
from tests.engines.openai.replies import error
from tests.http_server import Reply
from vendomini.engines import SamplingParams
from vendomini.engines.openai import client
from vendomini.errors import EngineStopped, EngineUnavailable, VendoMiniError

MODELS: dict[str, Reply] = {
    "missing": (404, {"detail": "Not Found"}),
    "not allowed": (405, b""),
    "empty": (200, {"object": "list", "data": []}),
    "null": (200, {"data": None}),
    "of another form": (200, [{"name": "x"}]),
    "an error": (400, {"error": "no"}),
    "broken": (500, b"Internal Server Error"),
    "other names": (200, {"data": [{"id": "gpt-3.5-turbo"}]}),
}


@pytest.mark.parametrize("models", MODELS.values(), ids=MODELS)
def test_a_server_need_not_list_its_models(server: ChatServer, models: Reply) -> None:
    server.models = models
    asked = Asked(server.url)
    assert asked.once().text == "hello"
    assert [request["messages"][0]["content"] for request in server.requests] == ["Say yes.", "hi"]
    said = (
        [f"[*] {server.url} lists gpt-3.5-turbo, and answers as {NAME}, too"] if models is MODELS["other names"] else []
    )
    assert asked.lines == said


def test_a_server_that_still_loads_is_waited_for_and_asked_again_what_it_serves(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    listed, loading = server.models, error(503, "Loading model")

    def loaded(handler: Handler) -> None:
        server.models = listed
        handler.reply(200, answer("yes"))

    server.models, server.script = loading, [loading, loading, loaded]
    asked = Asked(server.url)
    assert asked.once().text == "hello"
    assert asked.engine.context_length == 4096


def test_llama_cpp_s_server_is_known_by_its_list(server: ChatServer) -> None:
    """Under a name of its own it says how long a slot is; it ignores ``repetition_penalty`` without a word."""
    meta = {"n_ctx": 8192, "n_ctx_train": 131072}
    server.models = (200, {"data": [{"id": "/models/a.gguf", "owned_by": "llamacpp", "meta": meta}]})
    asked = Asked(server.url)
    asked.once(SamplingParams(8, repetition_penalty=1.2))
    assert asked.engine.context_length == 8192
    assert asked.engine.info.details["changes"] == {"repetition_penalty": "asked for as repeat_penalty"}
    assert server.requests[-1]["repeat_penalty"] == 1.2
    assert "repetition_penalty" not in server.requests[-1]


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(EngineUnavailable, match=r'needs httpx: pip install "vendomini\[server\]"'):
        Asked("http://127.0.0.1:1/v1").once()


def test_a_model_that_is_not_served_is_known_at_the_start(server: ChatServer) -> None:
    server.models = (200, {"data": [{"id": "other"}]})
    server.script = [error(404, f"The model `{NAME}` does not exist.")]
    with pytest.raises(EngineUnavailable, match=f"serves other, not {NAME}: .*404: The model"):
        Asked(server.url).once()


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_known_at_the_start(server: ChatServer, status: int) -> None:
    server.models = error(status, "no such key")
    with pytest.raises(EngineUnavailable, match=f"no usable server at .*{status}: no such key"):
        Asked(server.url).once()
    assert server.requests == []


ENDS = {
    "": "/v1/chat/completions",
    "/": "/v1/chat/completions",
    "/chat/completions": "/v1/chat/completions",
    "?api-version=2024-10-21": "/v1/chat/completions?api-version=2024-10-21",
    "/openai/deployments/x/?api-version=1&b=%20": "/v1/openai/deployments/x/chat/completions?api-version=1&b=%20",
}


@pytest.mark.parametrize(("end", "path"), ENDS.items(), ids=ENDS)
def test_an_address_keeps_its_path_and_query(server: ChatServer, end: str, path: str) -> None:
    Asked(server.url + end).once()
    assert server.paths == [path.replace("/chat/completions", "/models"), path]


ADDRESSES = ["localhost:8000", "ftp://x/v1", "http://h:port/v1", "http://h:99999/v1", "http://[::1/v1", "http:///v1"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_bad_address_is_one_sentence(address: str) -> None:
    with pytest.raises(VendoMiniError, match=r"engine\.base_url"):
        Asked(address).once()


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:9", "no-such-host.invalid"])
def test_a_server_that_is_not_there_is_known_at_the_start(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    with pytest.raises(EngineUnavailable, match=f"no usable server at http://{host}/v1: .*can't connect"):
        Asked(f"http://{host}/v1").once()


def test_a_server_that_goes_away_stops_the_engine(server: ChatServer) -> None:
    def leave(handler: Handler) -> None:
        server.socket.close()
        handler.raw()

    server.script = [leave]
    asked = Asked(server.url)
    with pytest.raises(EngineStopped, match="gave no answer in 10 tries, the last time: can't connect"):
        asked.once()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_no_proxy_stands_before_a_server_on_this_machine(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, name: str, proxy: str
) -> None:
    monkeypatch.setenv(name, proxy)
    assert Asked(server.url.replace("127.0.0.1", "localhost")).once().text == "hello"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://x"])
def test_a_proxy_that_can_not_be_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(EngineUnavailable, match="the environment's proxy or certificates can't be used"):
        Asked("http://example.invalid/v1").once()
