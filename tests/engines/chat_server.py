"""A server that speaks OpenAI's API, as well or as badly as a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests import http_server
from tests.engines.conftest import Conversation, wait
from tests.http_server import Reply
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import Completion, Engine, SamplingParams
from vendomini.engines.resolve import start_engine

NAME = "served/model"
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}


def answer(content: Any = "hello", finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion."""
    said = {"role": "assistant", "content": content, **message}
    return {"model": NAME, "choices": [{"message": said, "finish_reason": finish}], "usage": USAGE}


class Handler(http_server.Handler):
    server: ChatServer

    def do_GET(self) -> None:
        self._keep()
        self._give(self.server.models)

    def do_POST(self) -> None:
        self._keep()
        self.server.requests.append(self.asked())
        self._give(self.server.script.pop(0) if self.server.script else (200, answer()))

    def _keep(self) -> None:
        self.server.paths.append(self.path)
        self.server.keys.append(self.headers["Authorization"])

    def _give(self, reply: Reply) -> None:
        if callable(reply):
            reply(self)
        else:
            self.reply(*reply)


class ChatServer(http_server.Server):
    """Answers from ``script`` first, then "hello"; keeps what it was asked.

    Attributes:
        models: what ``/models`` gives.
    """

    handler = Handler

    def __init__(self) -> None:
        super().__init__()
        self.url += "/v1"
        self.models: Reply = (200, {"data": [{"id": NAME, "max_model_len": 4096}]})
        self.script: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []


PARAMS = SamplingParams(16, 0.5, 0.9, seed=7, stop=("x",))


class Asked:
    """What came of asking a server.

    Attributes:
        lines: that the engine said.
    """

    def __init__(self, url: str, model: str = NAME, engine: dict[str, Any] | None = None, **extra: Any) -> None:
        self.lines: list[str] = []
        self._config = EngineConfig(backend="openai", base_url=url, **{"request_timeout": 5} | (engine or {}))
        self._model = Model(name=model, **extra)
        self.engine: Engine

    def once(self, params: SamplingParams | None = None, messages: list[Any] | None = None) -> Completion:
        return self.times(1, params, messages)[0]

    def times(
        self, number: int, params: SamplingParams | None = None, messages: list[Any] | None = None
    ) -> list[Completion]:
        """One after another."""

        async def ask(engine: Engine) -> list[Completion]:
            prompt = Conversation([], messages or [{"role": "user", "content": "hi"}])
            return [await engine.generate(prompt, params or PARAMS) for _ in range(number)]

        return self._with_engine(ask)

    def together(self, number: int) -> list[Completion]:
        """All at once."""

        async def ask(engine: Engine) -> list[Completion]:
            prompts = [Conversation([], [{"role": "user", "content": f"hi {n}"}]) for n in range(number)]
            return await asyncio.gather(*[engine.generate(prompt, PARAMS) for prompt in prompts])

        return self._with_engine(ask)

    def _with_engine(self, ask: Callable[[Engine], Awaitable[list[Completion]]]) -> list[Completion]:
        async def run() -> list[Completion]:
            self.engine = await start_engine(self._model, self._config, None, self.lines.append)
            try:
                return await ask(self.engine)
            finally:
                await self.engine.close()

        return wait(run())
