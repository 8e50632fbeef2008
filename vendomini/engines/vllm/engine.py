"""The vLLM engine: paged attention, prefix caching and continuous batching, in a process group of its own.

The model runs in a child (``host``) and never in this process: what vLLM sets in its environment stays there, a
start that hangs can be killed, a Ctrl-C at the terminal does not reach it, and nothing survives us.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from vendomini.config import schema
from vendomini.engines.base import Completion, Engine, EngineInfo, Prompt, SamplingParams
from vendomini.engines.hf.model import load_tokenizer
from vendomini.engines.vllm.caches import copy_back, copy_in, discard, empty, job_cache
from vendomini.engines.vllm.process import HostProcess, may_pass, root_cause, spoilt_cache
from vendomini.engines.vllm.protocol import Abort, Done, Generate, Ready, Refused, pack_ids
from vendomini.engines.vllm.settings import CPU_SEQS, Settings
from vendomini.engines.vllm.thought import constraint
from vendomini.errors import EngineError, EngineUnavailable
from vendomini.model_info import own_sampling
from vendomini.model_info.formats import PLAIN, family_of
from vendomini.probe import Capabilities

START_AGAIN_S = (5.0, 20.0)
"""Pauses before a start that failed for a passing reason is tried again."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - not a temporary file of ours: where vLLM's processes meet

RESTARTS = 1
"""How often an engine that dies is restarted; then it is given up."""


class VllmEngine(Engine):
    """See ``Engine``. Seeds are vLLM's own: in 16-bit arithmetic, neighbours in a batch can change a rounding and with
    it a token, so a model's answers are reproduced from the log, not by asking again."""

    def __init__(
        self,
        model: schema.Model,
        engine: schema.EngineConfig,
        capabilities: Capabilities,
        say: Callable[[str], None],
    ) -> None:
        self._model, self._engine, self._say = model, engine, say
        self._settings = Settings(model, engine, capabilities)
        self._thinking = PLAIN
        self._host: HostProcess | None = None
        self._cache: Path | None = None
        self._warm: Path | None = None
        self._listener: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Done]] = {}
        self._ids = count(1)
        self._lock = asyncio.Lock()
        self._dead: str | None = None
        self._restarts = 0
        self.info = EngineInfo("vllm", model.name)
        self.max_num_seqs = engine.max_num_seqs or CPU_SEQS

    async def start(self) -> None:
        """Starting twice is fine: a started engine may be entered as a context manager."""
        if self._host is not None:
            return
        began = time.perf_counter()
        if (reduced := self._settings.reduced_gpus()) is not None:
            self._say(reduced)
        self._look_at_shared_memory()
        self.tokenizer = await asyncio.to_thread(load_tokenizer, self._model)
        self._thinking = family_of(self.tokenizer, self._model.reply_format)
        ready = await self._launch_patiently()
        self.context_length = ready.max_model_len
        self.sampling_defaults = own_sampling(self._model, self._settings.capabilities)
        # More conversations than the cache holds would evict each other's prefixes at every step.
        fitting = max(1, ready.kv_tokens // ready.max_model_len)
        self.max_num_seqs = self._engine.max_num_seqs or min(ready.max_num_seqs, fitting)
        details = {
            **ready.details,
            "max_model_len": ready.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "kv_tokens": ready.kv_tokens,
            "load_s": round(time.perf_counter() - began, 1),
        }
        self.info = dataclasses.replace(self.info, details=details)

    def _look_at_shared_memory(self) -> None:
        needed, shared = self._settings.shared_memory_needed(), shutil.disk_usage(SHARED_MEMORY).free
        if shared < needed:
            self._say(
                f"[WARNING] {SHARED_MEMORY} has {shared >> 20} MiB free and vLLM may need {needed >> 20} MiB: ask for "
                "more memory, or for a larger one in the container (--shm-size)"
            )

    async def _launch_patiently(self) -> Ready:
        """Retries transient failures: another job's port, a half-written cache, a stale handle."""
        for pause in START_AGAIN_S:
            try:
                return await self._launch()
            except EngineUnavailable as exc:
                if not may_pass(str(exc)):
                    raise
                self._say(f"[WARNING] vLLM did not start ({exc}): trying again in {pause:g} s")
                self._host = None
                if spoilt_cache(str(exc)):
                    await asyncio.to_thread(self._forget_what_was_compiled)
                await asyncio.sleep(pause)
        return await self._launch()

    def _forget_what_was_compiled(self) -> None:
        if self._cache is not None and self._warm is not None:
            empty(self._cache)
            discard(self._warm)

    async def _launch(self) -> Ready:
        if self._cache is None and (cache := job_cache(os.environ)) is not None:
            self._cache, self._warm = cache, self._settings.warm_cache(os.environ)
            await asyncio.to_thread(copy_in, self._warm, cache)
        self._host = await HostProcess.begin(self._settings.environ(os.environ, self._cache))
        try:
            ready = await self._host.load(self._settings.engine_args(self._thinking), self._engine.startup_timeout)
        except BaseException:
            await self._host.kill()
            raise
        self._dead = None
        if self._cache is not None and self._warm is not None:
            await asyncio.to_thread(copy_back, self._cache, self._warm)
        self._listener = asyncio.create_task(self._listen(self._host))
        return ready

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        host = await self._living_host()
        ids = prompt.token_ids
        request = next(self._ids)
        future = self._waiting[request] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        host.send(Generate(request, pack_ids(ids), _sampling(params), self._constraint(params)))
        try:
            async with asyncio.timeout(self._engine.request_timeout):
                done = await future
        except TimeoutError as exc:
            host.send(Abort(request))
            raise EngineError(f"no answer within {self._engine.request_timeout} s (engine.request_timeout)") from exc
        except asyncio.CancelledError:
            host.send(Abort(request))
            raise
        finally:
            del self._waiting[request]
        return Completion(
            done.text,
            done.finish_reason,
            prompt_tokens=len(ids),
            completion_tokens=done.completion_tokens,
            cached_tokens=done.cached_tokens,
            latency_s=time.perf_counter() - began,
        )

    def _constraint(self, params: SamplingParams) -> dict[str, object] | None:
        """A parser that the config names tells vLLM itself when the answer begins."""
        if params.json_schema is None:
            return None
        told = "reasoning_parser" in self._engine.engine_args
        return constraint(params.json_schema, None if told else params.thinking)

    async def _living_host(self) -> HostProcess:
        """The host, restarted if it died, as often as ``RESTARTS`` allows."""
        async with self._lock:
            if self._host is None:
                raise EngineError("the vLLM engine is not started")
            if self._dead is not None:
                await self._restart(self._dead)
            return self._host

    async def _restart(self, reason: str) -> None:
        if self.gone is not None:
            raise EngineError(self.gone)
        self._restarts += 1
        self._say(f"[WARNING] vLLM died ({reason}): starting it again")
        try:
            await self._end_host()
            await self._launch()
        except EngineUnavailable as exc:
            self.gone = f"vLLM died and could not be started again: {exc}"
            raise EngineError(self.gone) from exc

    async def _listen(self, host: HostProcess) -> None:
        """Passes answers to waiting requests. When the host is gone, or says it is dying, all of them fail."""
        reason = "its process is gone"
        async for message in host.messages():
            if isinstance(message, Done):
                self._settle(message.id, message)
            elif isinstance(message, Refused):
                if message.dead:
                    reason = message.error
                    break
                self._settle(message.id, EngineError(f"vLLM refused the request: {message.error}"))
        self._dead = reason = f"{root_cause(reason, host.log)} (log: {host.log})"
        if self._restarts >= RESTARTS:
            self.gone = f"vLLM died again and is given up: {reason}"
        for request in list(self._waiting):
            self._settle(request, EngineError(f"vLLM died: {reason}"))

    def _settle(self, request: int, outcome: Done | EngineError) -> None:
        future = self._waiting.get(request)
        if future is None or future.done():
            return
        if isinstance(outcome, Done):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    async def close(self) -> None:
        async with self._lock:
            await self._end_host()
            if self._cache is not None:
                shutil.rmtree(self._cache, ignore_errors=True)
                self._cache = None

    async def _end_host(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            await host.end(keep_log=self._dead is not None or not self.info.details)
        if self._listener is not None:
            await self._listener
            self._listener = None


def _sampling(params: SamplingParams) -> dict[str, object]:
    """Keyword arguments of vLLM's class of the same name, whose defaults apply to whatever is not set."""
    asked = {key: getattr(params, key) for key in (*schema.SAMPLING, "max_tokens", "seed")}
    if params.thinking is not None:
        asked["thinking_token_budget"] = params.max_thinking_tokens
    return {
        **{key: value for key, value in asked.items() if value is not None},
        "stop": list(params.stop),
        "skip_special_tokens": False,  # they mark the parts of a reply
        "spaces_between_special_tokens": False,
    }
