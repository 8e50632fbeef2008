"""Replies of servers that break off, fail or talk nonsense."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

from tests.engines.chat_server import Handler
from tests.http_server import Reply


def error(status: int, message: str, **more: Any) -> Reply:
    return status, {"error": {"message": message, **more}}


def choice(finish: str | None, **more: Any) -> Reply:
    return 200, {"choices": [{"message": {"content": None}, "finish_reason": finish, **more}]}


def cut(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b'{"choices": [')


def cut_chunks(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b'5\r\n{"cho')


def reset_in_error(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 500 Oops\r\nContent-Length: 500\r\n\r\n", b'{"error"', reset=True)


def nonsense(handler: Handler) -> None:
    handler.raw(b"SSH-2.0-OpenSSH_9.6\r\n")


def bad_status(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 2OO fine\r\n\r\n")


def bad_length(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}")


def huge_header(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n{}")


def hang_up(handler: Handler) -> None:
    handler.raw()


def zipped(body: Any) -> Reply:
    return 200, gzip.compress(json.dumps(body).encode()), {"Content-Encoding": "gzip"}


PAGE = b"<html><head><title>x</title><style>p{}</style></head><body><h1>502 Bad Gateway</h1><p>nginx</p></body></html>"


HTML = {"Content-Type": "text/html"}


def trickle(handler: Handler) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    handler.close_connection = False
    for _ in range(50):
        time.sleep(0.1)
        handler.raw(b" ")


def silent(handler: Handler) -> None:
    time.sleep(5)
