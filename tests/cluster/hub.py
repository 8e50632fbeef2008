"""A model hub on this machine, as far as a download needs one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 39 + "1"


@contextmanager
def serve(models: dict[str, dict[str, bytes]], gated: str = "") -> Iterator[str]:
    """Serves models (name → file name → content); yields the address for ``HF_ENDPOINT``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = self.path.split("?")[0].removeprefix("/api/models").strip("/")
            name = "/".join(path.split("/")[:2])
            files, rest = models.get(name), path.removeprefix(name).strip("/")
            if name == gated:
                self._send(403, b"{}", body, {"X-Error-Code": "GatedRepo"})
            elif files is None:
                self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
            elif rest.startswith("resolve/"):
                content = files[rest.split("/", 2)[2]]
                etag = hashlib.sha1(content).hexdigest()
                self._send(200, content, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            elif rest.startswith("tree/"):
                tree = [{"type": "file", "path": f, "size": len(c), "oid": "0" * 40} for f, c in files.items()]
                self._send(200, json.dumps(tree).encode(), body, {})
            else:
                siblings = [{"rfilename": f} for f in files]
                info = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
                self._send(200, json.dumps(info).encode(), body, {})

        def _send(self, code: int, content: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
