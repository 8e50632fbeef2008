"""The vLLM engine: paged attention, prefix caching and continuous batching, in a process group of its own.

The model runs in a child (``vllm_host``) and never in this process: what vLLM sets in its environment stays there, a
start that hangs can be killed, a Ctrl-C at the terminal does not reach it, and nothing survives us.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable
from functools import cached_property
from itertools import count
from typing import Any

from vendomini.config import schema
from vendomini.engines.base import Completion, Engine, EngineInfo, Prompt, SamplingParams
from vendomini.engines.vllm_process import HostProcess, root_cause
from vendomini.engines.vllm_protocol import Abort, Done, Generate, Ready, Refused, pack_ids
from vendomini.errors import EngineError, EngineUnavailable
from vendomini.model_info import GIB, ModelFacts, model_facts
from vendomini.probe import Capabilities

RESTARTS = 1
"""An engine that dies is started again so often; then it is given up."""

CPU_SEQS = 16


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
        self._model, self._engine, self._capabilities, self._say = model, engine, capabilities, say
        self._host: HostProcess | None = None
        self._listener: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Done]] = {}
        self._ids = count(1)
        self._lock = asyncio.Lock()
        self._dead: str | None = None
        self._restarts = 0
        self.info = EngineInfo("vllm", model.name)
        self.max_num_seqs = engine.max_num_seqs or CPU_SEQS

    async def start(self) -> None:
        began = time.perf_counter()
        ready = await self._launch()
        self.tokenizer = await asyncio.to_thread(_load_tokenizer, self._model)
        self.context_length = ready.max_model_len
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

    async def _launch(self) -> Ready:
        self._host = await HostProcess.begin(self._environ())
        try:
            ready = await self._host.load(self._engine_args(), self._engine.startup_timeout)
        except BaseException:
            await self._host.kill()
            raise
        self._dead = None
        self._listener = asyncio.create_task(self._listen(self._host))
        return ready

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        host = await self._living_host()
        ids = prompt.token_ids
        request = next(self._ids)
        future = self._waiting[request] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        host.send(Generate(request, pack_ids(ids), _sampling(params), params.json_schema))
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

    async def _living_host(self) -> HostProcess:
        """The host, begun again if it died and that has not happened before."""
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
        """Hands answers to those who wait. When the host is gone, or says it is dying, everybody hears of it."""
        reason = "its process is gone"
        async for message in host.messages():
            if isinstance(message, Done):
                self._settle(message.id, message)
            elif isinstance(message, Refused):
                if message.dead:
                    reason = message.error
                    break
                self._settle(message.id, EngineError(f"vLLM refused the request: {message.error}"))
        reason = root_cause(reason, host.log)
        self._dead = reason
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

    async def _end_host(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            await host.end(keep_log=not self.info.details)
        if self._listener is not None:
            await self._listener
            self._listener = None

    # -------------------------------------------------------------------------------- what vLLM is told

    def _engine_args(self) -> dict[str, Any]:
        model, engine = self._model, self._engine
        max_model_len = self._max_model_len()
        arguments: dict[str, Any] = {
            "model": model.name,
            "revision": model.revision,
            "tokenizer_revision": model.revision,
            "trust_remote_code": model.trust_remote_code,
            "dtype": model.dtype,
            "quantization": model.quantization,
            "max_model_len": max_model_len,
            "gpu_memory_utilization": engine.gpu_memory_utilization,
            "enforce_eager": engine.enforce_eager,
            "tensor_parallel_size": self._tensor_parallel_size(),
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        }
        if engine.max_num_seqs:
            arguments["max_num_seqs"] = engine.max_num_seqs
        if self._on_cpu:
            # On CPUs a seeded request whose prompt is fed in chunks kills the engine.
            arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(max_model_len, 2048)}
            arguments.setdefault("max_num_seqs", CPU_SEQS)
        return arguments | engine.engine_args

    @property
    def _on_cpu(self) -> bool:
        return self._capabilities.package("vllm").platform == "cpu"

    @cached_property
    def _facts(self) -> ModelFacts | None:
        """Of the model, where its files are here already."""
        try:
            return model_facts(self._model.name, self._model.revision, self._capabilities)
        except EngineUnavailable:
            return None

    def _max_model_len(self) -> int:
        """As asked for, else what the agent keeps, but not more than the model was made for: vLLM refuses that."""
        if self._engine.max_model_len:
            return self._engine.max_model_len
        made_for = self._facts and self._facts.context_length
        return min(self._model.context_length, made_for or self._model.context_length)

    def _tensor_parallel_size(self) -> int:
        """All GPUs of the job, or as many as the model's attention heads divide among."""
        gpus = len(self._capabilities.gpus.devices[: self._engine.gpus])
        if self._on_cpu or gpus <= 1 or self._facts is None:
            return 1 if self._on_cpu else max(1, gpus)
        used = self._facts.tensor_parallel_sizes(gpus)[-1]
        if used < gpus:
            self._say(f"[*] {self._facts.attention_heads} attention heads: using {used} of {gpus} GPUs")
        return used

    def _environ(self) -> dict[str, str]:
        """Of the host. vLLM's own default on a CPU would take nearly all memory for keys and values."""
        environ = {"VLLM_NO_USAGE_STATS": "1", **os.environ}
        if self._on_cpu:
            environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(self._cpu_kv_gib()))
        return environ

    def _cpu_kv_gib(self) -> int:
        """What the episodes in flight need at most, within a third of the machine's memory; whole GiB, at least 1."""
        ceiling = max(1, self._capabilities.memory // 3 // GIB)
        if self._facts is None:
            return ceiling
        needed = (self._engine.max_num_seqs or CPU_SEQS) * self._facts.kv_bytes(self._max_model_len())
        return min(ceiling, 1 + needed // GIB)


def _sampling(params: SamplingParams) -> dict[str, Any]:
    return {
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": params.seed,
        "stop": list(params.stop),
    }


def _load_tokenizer(model: schema.Model) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model.name, revision=model.revision, trust_remote_code=model.trust_remote_code)
