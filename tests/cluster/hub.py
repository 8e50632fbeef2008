"""A model hub on this machine, as far as a download needs one."""

from __future__ import annotations

import hashlib

from tests import http_server

COMMIT = "0" * 39 + "1"


class Handler(http_server.Handler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].removeprefix("/api/models").strip("/")
        name = "/".join(path.split("/")[:2])
        files, rest = self.server.models.get(name), path.removeprefix(name).strip("/")
        if name == self.server.gated:
            self.reply(403, {}, {"X-Error-Code": "GatedRepo"})
        elif files is None:
            self.reply(404, {}, {"X-Error-Code": "RepoNotFound"})
        elif rest.startswith("resolve/"):
            content = files[rest.split("/", 2)[2]]
            etag = hashlib.sha1(content).hexdigest()
            self.reply(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        elif rest.startswith("tree/"):
            self.reply(200, [{"type": "file", "path": f, "size": len(c), "oid": "0" * 40} for f, c in files.items()])
        else:
            siblings = [{"rfilename": f} for f in files]
            info = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
            self.reply(200, info)


class Hub(http_server.Server):
    """Serves models (name → file name → content); its ``url`` is for ``HF_ENDPOINT``."""

    handler = Handler

    def __init__(self, models: dict[str, dict[str, bytes]], gated: str = "") -> None:
        super().__init__()
        self.models, self.gated = models, gated
