"""What the tests' own HTTP servers have in common: they serve here, in a thread, in JSON, and log nothing."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def asked(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Bytes go out as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        with suppress(OSError):  # who asked may be gone
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    def raw(self, *pieces: bytes, reset: bool = False) -> None:
        """Bytes instead of an answer, then the end of the connection; a rude one where it is ``reset``."""
        with suppress(OSError):
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_: Any) -> None:
        pass


Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]] | Callable[[Handler], None]
"""Status, body and headers, or what the handler does instead of answering."""


class Server(ThreadingHTTPServer):
    """Serves from entering its context to leaving it."""

    daemon_threads = True
    request_queue_size = 128
    handler: type[Handler]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no error."""
