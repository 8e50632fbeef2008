"""The server of the two pages, dashboard and traces: loopback only, for one user, and it treats all it shows as
untrusted."""

from __future__ import annotations

import hmac
import json
import secrets
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from vendomini.analysis.report.page import asset
from vendomini.analysis.traces.episodes import Json, Library
from vendomini.analysis.traces.overview import overview
from vendomini.errors import ResultsError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MAX_PAGE = 200
PATIENCE_S = 30
"""Seconds for a request to arrive, and for an answer to be read."""

_FILES = {
    "": ("traces.html", "text/html"),
    "traces.js": ("traces.js", "text/javascript"),
    "theme.js": ("theme.js", "text/javascript"),
    "base.css": ("base.css", "text/css"),
    "traces.css": ("traces.css", "text/css"),
    "dashboard": ("dashboard.html", "text/html"),
    "dashboard.js": ("dashboard.js", "text/javascript"),
    "dashboard.css": ("dashboard.css", "text/css"),
}


class TraceServer(ThreadingHTTPServer):
    """Serves a library at ``http://127.0.0.1:PORT/TOKEN/``; requests without the token get nothing.

    Args:
        library: the runs.
        port: 0 takes a free one.
        status: what the queue knows of the runs, for the dashboard; called at each refresh.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, library: Library, port: int = 0, status: Callable[[], list[Json]] = list) -> None:
        self.library = library
        self.status = status
        self.token = secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: object) -> None:
        """A closed connection is not an error; anything else is shown as usual."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: TraceServer
    server_version = "VendoMini"
    sys_version = ""
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        try:
            path, query = self._wanted()
            if path is None:
                self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here. Open the address that the command printed.")
            else:
                self._answer(path, query)
        except ConnectionError:
            self.close_connection = True  # the browser has gone on to another page
        except (ResultsError, ValueError, OSError) as exc:
            self._refuse(HTTPStatus.NOT_FOUND, str(exc))

    def _wanted(self) -> tuple[list[str] | None, dict[str, list[str]]]:
        """The path below the token, its parts decoded one by one; None for a request without it."""
        parts = urlsplit(self.path)
        token, *path = [unquote(part) for part in parts.path.split("/")[1:]] or [""]
        known = hmac.compare_digest(token.encode(), self.server.token.encode())
        # a name that resolves to this machine is not enough: another page could have rebound its own
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        return (path if known and host in {"127.0.0.1", "localhost"} else None), parse_qs(parts.query)

    def _answer(self, path: list[str], query: dict[str, list[str]]) -> None:
        library = self.server.library
        match path:
            case [name] if name in _FILES:
                file, kind = _FILES[name]
                self._send(asset(file).encode(), kind)
            case ["api", "overview"]:
                self._send_json(overview(library) | {"status": self.server.status()})
            case ["api", "runs"]:
                self._send_json(library.runs())
            case ["api", "runs", place, run_id]:
                self._send_json(library.episode(int(place), run_id))
            case ["api", "runs", place, run_id, "steps"]:
                first, count = (int(query[name][0]) for name in ("first", "count") if name in query)
                self._send_json(library.steps(int(place), run_id, first, min(count, MAX_PAGE)))
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def send_error(self, code: int, *_: object, **__: object) -> None:
        """Refuse a request, with the usual headers and nothing from the request itself."""
        self.close_connection = True
        self._refuse(HTTPStatus(code), "This is only for reading, by a browser.")

    def _send_json(self, value: object) -> None:
        self._send(json.dumps(value, ensure_ascii=False).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self._send(sentence.encode(errors="replace"), "text/plain", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: a logged path would show the token."""
