"""The local page under attack from other users of the machine and from web pages in the reader's browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.analysis.synthetic import config, write_results
from vendomini.analysis.traces import server as serve
from vendomini.analysis.traces.episodes import Library
from vendomini.analysis.traces.server import POLICY, TraceServer

HOST = b"Host: 127.0.0.1\r\n\r\n"
ATTACKS = {
    "no token": b"GET /api/runs HTTP/1.1\r\n" + HOST,
    "wrong token": b"GET /" + b"x" * 32 + b"/api/runs HTTP/1.1\r\n" + HOST,
    "token in the query": b"GET /?TOKEN HTTP/1.1\r\n" + HOST,
    "listing": b"GET / HTTP/1.1\r\n" + HOST,
    "listing below the token": b"GET /TOKEN/api/ HTTP/1.1\r\n" + HOST,
    "assets": b"GET /TOKEN/assets/ HTTP/1.1\r\n" + HOST,
    "rebinding": b"GET /TOKEN/api/runs HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "rebinding with our name in front": b"GET /TOKEN/api/runs HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n",
    "two hosts": b"GET /TOKEN/api/runs HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1\r\n\r\n",
    "no host": b"GET /TOKEN/api/runs HTTP/1.0\r\n\r\n",
    "no version": b"GET /TOKEN/api/runs\r\n\r\n",
    "absolute": b"GET http://evil.example/TOKEN/api/runs HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "no address": b"GET http://[ HTTP/1.1\r\n" + HOST,
    "traversal": b"GET /TOKEN/../../etc/passwd HTTP/1.1\r\n" + HOST,
    "traversal encoded": b"GET /TOKEN/api/runs/0/%2e%2e%2f%2e%2e/steps?first=1&count=1 HTTP/1.1\r\n" + HOST,
    "traversal encoded twice": b"GET /TOKEN/api/runs/0/%252e%252e%252f/steps?first=1&count=1 HTTP/1.1\r\n" + HOST,
    "traversal by the token": b"GET /..%2fTOKEN/api/runs HTTP/1.1\r\n" + HOST,
    "folder number": b"GET /TOKEN/api/runs/-1/x HTTP/1.1\r\n" + HOST,
    "huge number": b"GET /TOKEN/api/runs/" + b"9" * 5000 + b"/x HTTP/1.1\r\n" + HOST,
    "POST": b"POST /TOKEN/api/runs HTTP/1.1\r\nContent-Length: 0\r\n" + HOST,
    "HEAD": b"HEAD /TOKEN/api/runs HTTP/1.1\r\n" + HOST,
    "OPTIONS": b"OPTIONS /TOKEN/api/runs HTTP/1.1\r\n" + HOST,
    "PUT": b"PUT /TOKEN/x HTTP/1.1\r\nContent-Length: 0\r\n" + HOST,
    "a method with markup": b"<script>alert(1)</script> /TOKEN/ HTTP/1.1\r\n" + HOST,
    "a long address": b"GET /TOKEN/" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST,
    "many headers": b"GET /TOKEN/api/runs HTTP/1.1\r\n" + b"a: b\r\n" * 200 + HOST,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceServer]:
    root = tmp_path_factory.mktemp("served")
    write_results(root, config(replications=1, max_steps=8))
    with TraceServer(Library([root])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def answer(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


def ask(server: TraceServer, request: bytes) -> bytes:
    with socket.create_connection(server.server_address, timeout=10) as connection:
        connection.sendall(request.replace(b"TOKEN", server.token.encode()))
        connection.shutdown(socket.SHUT_WR)
        return answer(connection)


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_given_away(server: TraceServer, capfd: pytest.CaptureFixture[str], name: str) -> None:
    said = ask(server, ATTACKS[name])
    head, _, body = said.partition(b"\r\n\r\n")
    assert not head.startswith(b"HTTP/1.0 200")
    for secret in (b"run_id", b"root:", b"scripted", server.token.encode(), b"<"):
        assert secret not in body
    assert POLICY.encode() in head or not head.startswith(b"HTTP/"), "even a refusal has its policy"
    assert capfd.readouterr() == ("", ""), "and strangers write nothing on the reader's terminal"


def test_the_policy_lets_nothing_in() -> None:
    assert "default-src 'none'" in POLICY
    for word in ("unsafe", "*", "http", "blob:"):
        assert word not in POLICY


def test_slow_strangers_are_dropped_and_keep_nobody_waiting(
    server: TraceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serve._Handler.timeout == serve.PATIENCE_S <= 60
    monkeypatch.setattr(serve._Handler, "timeout", 0.5)
    slow = [socket.create_connection(server.server_address, timeout=10) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"GET /")
    assert ask(server, b"GET /TOKEN/api/runs HTTP/1.1\r\n" + HOST).startswith(b"HTTP/1.0 200")
    for connection in slow:
        with connection:
            assert answer(connection) == b""


def test_strangers_from_outside_find_no_door(server: TraceServer) -> None:
    port = server.server_address[1]
    listening = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if f":{port:04X}" in line}
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening
