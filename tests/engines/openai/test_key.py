"""The key: where it comes from, who gets it, and that nobody sees it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engines.chat_server import Asked, ChatServer
from vendomini.errors import EngineError, VendoMiniError


@pytest.mark.parametrize("end", ["", "\r", "\n", "\r\n", " \t"])
def test_the_key_comes_from_the_environment(server: ChatServer, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"a-secret{end}")
    Asked(server.url).once()
    assert server.keys == ["Bearer a-secret"] * 2


@pytest.mark.parametrize("key", ["a-se\rcret", "a-se\ncret", "a-se cret", "a-secrét", "“a-secret”"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(VendoMiniError, match="OPENAI_API_KEY holds") as caught:
        Asked(server.url).once()
    assert "cr" not in str(caught.value).replace("character", "")


SECRET = "sk-proj-Ab1/Cd2+Ef3_Gh4-Ij5"


ECHOES = {
    "as it is": SECRET,
    "in another case": SECRET.upper(),
    "in a URL": "sk-proj-Ab1%2FCd2%2BEf3_Gh4-Ij5",
    "in JSON": SECRET.replace("/", "\\/"),
    "in base64": "c2stcHJvai1BYjEvQ2QyK0VmM19HaDQtSWo1",
    "the greater part": SECRET[:20],
    "its end": SECRET[6:],
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("status", [401, 400, 200])
def test_what_a_server_repeats_of_the_key_is_not_shown(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, echo: str, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server.script = [(status, {"error": {"message": f"{'x' * 280} bad key {echo} end", "code": 400}})]
    with pytest.raises(EngineError, match="<OPENAI_") as caught:
        Asked(server.url).once()
    assert "Gh4" not in str(caught.value)
    assert echo[8:] not in str(caught.value)


def test_the_key_goes_to_no_other_server(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with ChatServer() as away:
        server.script = [(307, b"", {"Location": f"{away.url}/chat/completions"})]
        assert Asked(f"{server.url}?api-version=1").once().text == "hello"
        assert away.keys == [None]
    assert server.keys == [f"Bearer {SECRET}"] * 2


KEYS_IN_CONFIG = [
    {"base_url": "http://x/v1?api-key=a"},
    {"base_url": "http://x/v1?KEY=a"},
    {"request": {"api_key": "a"}},
]


@pytest.mark.parametrize("engine", KEYS_IN_CONFIG, ids=str)
def test_a_key_in_the_config_is_refused(engine: dict[str, Any]) -> None:
    from vendomini.config.schema import EngineConfig

    with pytest.raises(ValueError, match="in the environment"):
        EngineConfig(**engine)
