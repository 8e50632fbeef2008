"""The engine for a server that already runs and speaks OpenAI's API, such as ``vllm serve``."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import urllib.error
import urllib.request
from typing import Annotated, Any, TypeVar

import msgspec

from vendomini.config import schema
from vendomini.engines.base import Completion, Engine, EngineInfo, Prompt, SamplingParams
from vendomini.errors import ConfigError, EngineError, EngineUnavailable

KEY = "OPENAI_API_KEY"
RETRIES = 5
RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class _Details(msgspec.Struct):
    cached_tokens: Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    prompt_tokens_details: _Details | None = None


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    """What is read of a chat completion."""

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage | None = None


class _Model(msgspec.Struct):
    id: str
    max_model_len: Count | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


Told = TypeVar("Told", _Answer, _Models)


class OpenAICompatibleEngine(Engine):
    """Chat completions of a server. It tokenises by itself, so there is no tokenizer here.

    The key comes from the environment (``OPENAI_API_KEY``) and is never shown.
    """

    def __init__(self, model: schema.Model, engine: schema.EngineConfig) -> None:
        if not engine.base_url:
            raise ConfigError("engine.backend: openai needs engine.base_url, e.g. http://localhost:8000/v1")
        if not engine.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"engine.base_url must begin with http:// or https://, not {engine.base_url!r}")
        self._url = engine.base_url.rstrip("/")
        self._model, self._engine = model, engine
        self.max_num_seqs = engine.max_num_seqs or 64
        self.info = EngineInfo("openai", model.name, details={"base_url": self._url})

    async def start(self) -> None:
        """Asks the server for its models: a wrong address or key is known before the first episode."""
        try:
            models = self._understood(await self._ask("/models", None), _Models)
        except EngineError as exc:
            raise EngineUnavailable(f"no usable server at {self._url}: {exc}") from exc
        served = {entry.id: entry for entry in models.data}
        if self._model.name not in served:
            raise EngineUnavailable(f"{self._url} serves {', '.join(served) or 'nothing'}, not {self._model.name}")
        self.context_length = served[self._model.name].max_model_len

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        began = time.perf_counter()
        answer = await self._ask("/chat/completions", self._request(prompt, params))
        told = self._understood(answer, _Answer)
        choice, usage = told.choices[0], told.usage or _Usage()
        return Completion(
            text=choice.message.content or "",
            finish_reason="length" if choice.finish_reason == "length" else "stop",
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
            latency_s=time.perf_counter() - began,
        )

    def _understood(self, answer: Any, kind: type[Told]) -> Told:
        """Raises:
        EngineError: the server means something else.
        """
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as exc:
            said = _without_key(str(answer))
            raise EngineError(f"{self._url} answered in a form that is not OpenAI's ({exc}): {said:.200}") from exc

    def _request(self, prompt: Prompt, params: SamplingParams) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model.name,
            "messages": prompt.messages,
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
        if params.seed is not None:
            body["seed"] = params.seed
        if params.stop:
            body["stop"] = list(params.stop)
        if self._model.chat_template_kwargs:
            body["chat_template_kwargs"] = self._model.chat_template_kwargs
        if params.json_schema is not None:
            schema_format = {"name": "reply", "schema": params.json_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema_format}
        return body

    async def _ask(self, path: str, body: dict[str, Any] | None) -> Any:
        """Sends until there is an answer, waiting longer each time.

        Raises:
            EngineError: the server refuses, or stays away.
        """
        last = ""
        for attempt in range(RETRIES + 1):
            if attempt:
                await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1.0))
            try:
                return await asyncio.to_thread(self._send, path, body)
            except urllib.error.HTTPError as exc:
                last = _without_key(f"{exc.code} {exc.reason}: {exc.read(300).decode(errors='replace')}")
                if exc.code not in RETRIED:
                    raise EngineError(f"{self._url}{path} answered {last}") from exc
            except (OSError, ValueError, RecursionError) as exc:
                last = str(getattr(exc, "reason", exc))
        raise EngineError(f"{self._url}{path} gave no answer in {RETRIES + 1} tries, the last time: {last}")

    def _send(self, path: str, body: dict[str, Any] | None) -> Any:
        request = urllib.request.Request(self._url + path, method="GET" if body is None else "POST")
        request.add_header("Content-Type", "application/json")
        if key := os.environ.get(KEY):
            request.add_unredirected_header("Authorization", f"Bearer {key}")  # for this server and no other
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=self._engine.request_timeout) as response:
            return json.load(response)


def _without_key(text: str) -> str:
    """What a server says goes into summaries and reports, and some repeat the key that they refuse."""
    key = os.environ.get(KEY)
    return text.replace(key, f"<{KEY}>") if key else text
