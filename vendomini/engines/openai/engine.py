"""The engine for a server that already runs and speaks OpenAI's API, such as ``vllm serve``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import msgspec

from vendomini.config import schema
from vendomini.engines.base import Completion, Engine, EngineInfo, Prompt, SamplingParams
from vendomini.engines.openai.answer import ServedModel, answered_by, read_completion, read_models, thought_tokens
from vendomini.engines.openai.client import Client
from vendomini.engines.openai.failure import FOR_GOOD, Failure
from vendomini.engines.openai.key import KEY
from vendomini.engines.openai.request import BUDGET, Body, Dialect
from vendomini.errors import ConfigError, EngineError, EngineStopped, EngineUnavailable, NoReply, PromptTooLong
from vendomini.worlds.conversation import Message

CHAT, MODELS = "/chat/completions", "/models"
ADVICE = {
    "key": f": is {KEY} right?",
    "address": ": does engine.base_url end as this server wants it, mostly in /v1?",
}
TRIES_AT_START, LIST_TIMEOUT = 6, 30.0
"""Tries and seconds for the list of models, where no server answers at all."""

TRIAL_TOKENS = 16

MARKERS = 16
"""Tokens around a thought that a server may count as part of it."""

UNLIMITED = (
    "So a thought may take all of max_tokens + max_thinking_tokens; if the server has another name for its limit, put "
    "it into engine.request"
)


class OpenAICompatibleEngine(Engine):
    """Chat completions of a server. The server tokenises, so there is no tokenizer here.

    If a server refuses something about the form of a request, later requests are changed accordingly, which is logged
    once and recorded in ``info.details["changes"]``. The key comes from the environment (``OPENAI_API_KEY``) and is
    never shown.
    """

    elsewhere = True

    def __init__(self, model: schema.Model, engine: schema.EngineConfig, say: Callable[[str], None]) -> None:
        if not engine.base_url:
            raise ConfigError("engine.backend: openai needs engine.base_url, e.g. http://localhost:8000/v1")
        self._client = Client(engine.base_url, engine.request_timeout, os.environ)
        self._dialect = Dialect(model, engine.request)
        self._name = str(engine.request.get("model", model.name))
        self._say = say
        self.max_num_seqs = engine.max_num_seqs or 64
        self._answered_by: list[str] = []
        details: dict[str, object] = {"base_url": engine.base_url, "changes": self._dialect.changes}
        details["answered_by"] = self._answered_by
        if engine.request:
            details["request"] = engine.request
        self.info = EngineInfo("openai", model.name, details=details)

    async def start(self) -> None:
        """Finds out before the first episode whether address, key and model are right.

        A server need not list its models. If it does not list this one, it is asked for a one-word completion.
        """
        url = self._client.base_url
        try:
            served = await self._served()
            if self._name not in served:
                await self._try_out()
                served = served or await self._served()  # one that was still loading may list it now
        except Failure as exc:
            raise EngineUnavailable(f"no usable server at {url}: {exc}") from exc
        except EngineError as exc:
            lists = f"{url} serves {', '.join(served)}, not {self._name}" if served else f"no usable server at {url}"
            raise EngineUnavailable(f"{lists}: {exc}") from exc
        if self._name not in served and served:
            self._say(f"[*] {url} lists {', '.join(served)}, and answers as {self._name}, too")
        if llama_cpp := [model for model in served.values() if model.llama_cpp]:
            self._dialect.speak_llama_cpp()
        model = served.get(self._name) or (llama_cpp[0] if len(llama_cpp) == 1 else None)
        self.context_length = model.context if model else None

    async def _served(self) -> dict[str, ServedModel]:
        """The models that the server lists, by name; empty if it has no such list."""
        try:
            return await self._client.ask(MODELS, None, read_models, TRIES_AT_START, LIST_TIMEOUT, {"unreachable"})
        except Failure as exc:
            if exc.kind in {"key", "quota", "unreachable"}:
                raise
            return {}

    async def _try_out(self) -> None:
        params = SamplingParams(TRIAL_TOKENS, temperature=0.0)
        try:
            await self._answer([{"role": "user", "content": "Say yes."}], params)
        except (NoReply, PromptTooLong):
            pass  # it is there

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        if self.gone is not None:
            raise EngineStopped(self.gone)
        began = time.perf_counter()
        completion = await self._answer(prompt.messages, params)
        return msgspec.structs.replace(completion, latency_s=time.perf_counter() - began)

    async def _answer(self, messages: list[Message], params: SamplingParams) -> Completion:
        """Sends a request in the form that the server accepts, learnt from its first refusals.

        Raises:
            EngineError: as its class says.
        """
        while True:
            body = self._dialect.body(messages, params)
            try:
                return await self._client.ask(CHAT, body, partial(self._read, budget=params.max_thinking_tokens))
            except Failure as exc:
                if not self._learnt(exc, body):
                    raise self._translated(exc, body) from exc

    def _read(self, answer: object, budget: int | None) -> Completion:
        completion = read_completion(answer)
        changes, thought = self._dialect.changes, thought_tokens(answer)
        if budget is not None and thought > budget + MARKERS and BUDGET not in changes:
            changes[BUDGET] = "ignored"
            self._say(
                f"[WARNING] {self._client.base_url} ignores {BUDGET}: a thought took {thought:,} tokens, "
                f"agent.model.max_thinking_tokens is {budget:,}. {UNLIMITED}"
            )
        if (name := answered_by(answer)) and name not in self._answered_by:
            self._answered_by.append(name)
        return completion

    def _learnt(self, failure: Failure, sent: Body) -> bool:
        """Whether the next request will differ, and so be worth sending."""
        if failure.kind != "other" or failure.said is None:
            return False
        change = self._dialect.learn(failure.said, sent)
        if change:
            more = f". {UNLIMITED}" if change.startswith(BUDGET) else ""
            self._say(
                f"[WARNING] {self._client.base_url} refuses a part of the request: {change} ({failure.said}){more}"
            )
        return change is not None

    def _translated(self, failure: Failure, sent: Body) -> EngineError:
        """The exception for a failure, by what it means for the runs."""
        sentence = str(failure)
        if failure.kind == "other" and failure.said and (field := self._dialect.refused(failure.said, sent)):
            return self._stopped(f"{sentence}. It does not take {field}: leave that out, or use another server")
        if failure.kind in FOR_GOOD:
            return self._stopped(sentence + ADVICE.get(failure.kind, ""))
        if failure.kind == "too long":
            return PromptTooLong(sentence)
        if failure.kind in {"withheld", "empty"}:
            return NoReply(sentence)
        return EngineError(sentence)

    def _stopped(self, sentence: str) -> EngineStopped:
        self.gone = self.gone or sentence
        return EngineStopped(self.gone)

    async def close(self) -> None:
        await self._client.close()
