"""Deadlines, endless answers, and when a server says to come back."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from tests.engines.chat_server import Asked, ChatServer, Handler
from tests.engines.openai.replies import error, silent, trickle
from tests.http_server import Reply
from vendomini.engines.openai import client
from vendomini.errors import EngineError


def endless(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not handler.wfile.closed:
        try:
            handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except OSError:
            return


@pytest.mark.parametrize("reply", [trickle, silent], ids=["one byte at a time", "silence"])
def test_a_request_has_a_deadline_whatever_trickles_in(server: ChatServer, reply: Reply) -> None:
    server.script = [reply] * 9
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"gave no answer within 1 s \(engine.request_timeout\)"):
        Asked(server.url, engine={"request_timeout": 1}).once()
    assert time.monotonic() - began < 4
    assert len(server.requests) == 1


def test_an_answer_without_end_is_given_up(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LARGEST", 1 << 20)
    server.script = [endless]
    assert Asked(server.url).once().text == "hello"


def in_seconds(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


WAITS: dict[str, tuple[Reply, float]] = {
    "seconds": ((429, {}, {"Retry-After": "1"}), 1),
    "a fraction": ((503, {}, {"Retry-After": "0.6"}), 0.6),
    "milliseconds": ((429, {}, {"retry-after-ms": "700"}), 0.7),
    "OpenAI's words": (error(429, "Rate limit reached. Please try again in 650ms."), 0.65),
    "Gemini's words": (error(429, "You exceeded your current quota, check your billing. Please retry in 0.7s."), 0.7),
}


@pytest.mark.parametrize(("reply", "seconds"), WAITS.values(), ids=WAITS)
def test_the_server_says_when_to_come_back(server: ChatServer, reply: Reply, seconds: float) -> None:
    server.script = [reply]
    began = time.monotonic()
    assert Asked(server.url).once().text == "hello"
    assert seconds <= time.monotonic() - began < seconds + 3


def test_the_server_says_when_to_come_back_as_a_date(server: ChatServer) -> None:
    server.script = [(429, {}, {"Retry-After": in_seconds(2)})]
    began = time.monotonic()
    assert Asked(server.url).once().text == "hello"
    assert 0.9 <= time.monotonic() - began < 5


@pytest.mark.parametrize("value", ["soon", "-5", "", "Mon, 99 Foo 2026", "Wed, 01 Jan 2020 00:00:00 GMT"])
def test_a_date_that_is_none_or_past_is_no_wait(server: ChatServer, value: str) -> None:
    server.script = [(429, {}, {"Retry-After": value})]
    began = time.monotonic()
    assert Asked(server.url).once().text == "hello"
    assert time.monotonic() - began < 4
