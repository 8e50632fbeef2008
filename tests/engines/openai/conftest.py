from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.chat_server import ChatServer
from vendomini.engines.openai import client


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ChatServer() as running:
        yield running
