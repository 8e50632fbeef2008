"""Raw requests at the trace reader's server: an answer or a refusal, and nothing from outside the results folder."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

from tests.analysis.synthetic import config, write_results, write_steps
from tests.fuzz import scratch
from vendomini.analysis.traces.episodes import Library
from vendomini.analysis.traces.server import TraceServer

_SECRET = b"vmOutsideOfTheRuns"
_FOLDER = scratch()
_RUNS = write_results(_FOLDER / "results", config(replications=1, max_steps=8, shocks=(0.2,)))
for _place in (_FOLDER, _FOLDER / "results", _FOLDER / "results" / "plans", _FOLDER / "results" / "runs"):
    write_steps(_place / "steps.jsonl", 3, completion=_SECRET.decode())
(_FOLDER / "results" / "runs" / "link").symlink_to(_FOLDER)

TOKENS = [
    *("/TOKEN/", "/TOKEN/api/runs", f"/TOKEN/api/runs/0/{_RUNS[0]}", "/steps?first=1&count=5", "traces.js", "/link"),
    *("..%2f", "%2e%2e/", "%00", "%ff", "../", "//", "\\", "#", "?first=", "&count=", "-1", "9" * 30, "٣"),
    *("\r\nHost: 127.0.0.1", "\r\nHost: localhost:1", "\r\nHost: [::1", "\r\nContent-Length: ", "\r\nExpect: x"),
    *("GET ", "HEAD ", "POST ", "OPTIONS ", " HTTP/1.0", " HTTP/1.1", " HTTP/2.0", " HTTP/0.9", "\r\n\r\n", "http://"),
]  # fmt: skip


_server = TraceServer(Library([_FOLDER / "results"]))


def seeds() -> Iterator[bytes]:
    run = f"api/runs/0/{_RUNS[0]}"
    paths = ["", "traces.js", "base.css", "api/runs", run, f"{run}/steps?first=2&count=4", "api/runs/0/..%2f..", "x"]
    paths += ["api/runs/0/link", "api/runs/0/link/steps?first=1&count=9"]
    for path in paths:
        yield f"GET /TOKEN/{path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept: */*\r\n\r\n".encode()
    yield b"POST /TOKEN/api/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\na=b"
    yield b"GET /TOKEN/\r\n"


def check(data: bytes) -> None:
    """The bytes go over a socket as they are, but for TOKEN, which stands for the server's secret."""
    known = b"/TOKEN/" in data
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.sendall(data.replace(b"TOKEN", _server.token.encode()))
        ours.shutdown(socket.SHUT_WR)
        _server.finish_request(theirs, ("127.0.0.1", 0))
        theirs.close()
        answer = b"".join(iter(lambda: ours.recv(1 << 20), b""))
    _judge(answer, known)


def _judge(answer: bytes, known: bool) -> None:
    for status in re.findall(rb"\AHTTP/\S+ (\d+)", answer):
        assert status[:1] in b"24" or status in {b"501", b"505"}, f"status {status!r}"  # another method, another HTTP
    head, _, body = answer.partition(b"\r\n\r\n")
    assert not body.startswith(b"HTTP/"), "a second answer in the first"
    for line in head.split(b"\r\n")[1:] if head.startswith(b"HTTP/") else []:
        assert re.fullmatch(rb"[A-Za-z-]+: [\x20-\x7e]*", line), f"a header that is none: {line!r}"
    for forbidden in (_SECRET, b"Traceback", b"root:x:0", b'File "'):
        assert forbidden not in answer, f"{forbidden!r} in the answer"
    if not known:
        assert _RUNS[0].encode() not in answer
        assert b"VendoMini traces" not in answer
