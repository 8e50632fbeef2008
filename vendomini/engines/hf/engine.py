"""The Hugging Face engine: any causal model of Transformers, many episodes at once, keys and values kept from turn to
turn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

from vendomini.config import schema
from vendomini.engines.base import Completion, Engine, EngineInfo, Prompt, SamplingParams
from vendomini.engines.hf.attention import attention_line
from vendomini.engines.hf.batch import Batcher
from vendomini.engines.hf.check import affordable_slots, first_prompt, settle
from vendomini.engines.hf.forward import CannotBatch, Forward
from vendomini.engines.hf.model import LoadedModel, first_line, load
from vendomini.engines.hf.request import Request
from vendomini.engines.hf.sampling import Grammars
from vendomini.engines.hf.single import KEPT, SAYS, NativeCaches, OneAtATime, best_keeping, tokens_per_second
from vendomini.engines.hf.thought import Thought, follower
from vendomini.errors import EngineError, EngineStopped, EngineUnavailable, MissingExtraError
from vendomini.model_info import own_sampling
from vendomini.probe import Capabilities

SLOTS = {"cuda": 64, "cpu": 16}
"""Episodes in flight where the config leaves it open and memory allows."""

Result = TypeVar("Result")

ALTERNATIVE = (
    "Run it with vLLM (engine.backend: vllm), or where it is served (engine.backend: openai with engine.base_url)"
)


class HuggingFaceEngine(Engine):
    """See ``Engine``. Answers depend on the request's seed alone, up to rounding in the model's own arithmetic."""

    def __init__(
        self,
        model: schema.Model,
        engine: schema.EngineConfig,
        capabilities: Capabilities,
        say: Callable[[str], None],
    ) -> None:
        self._model, self._engine, self._capabilities, self._say = model, engine, capabilities, say
        self._batcher: Batcher | None = None
        self._batching = "continuous"
        self._room: dict[str, int] = {}
        self._switching = asyncio.Lock()
        self.loaded: LoadedModel | None = None
        self.info = EngineInfo("hf", model.name)
        self.max_num_seqs = engine.max_num_seqs or SLOTS["cpu"]

    async def start(self) -> None:
        """Starting twice is fine: a started engine may be entered as a context manager."""
        if self._batcher is not None:
            return
        began = time.perf_counter()
        try:
            loaded = await _on_a_thread_that_ends(self._load)
        except MissingExtraError:
            raise
        except Exception as exc:  # remote code, kernels and half-written files fail in every way there is
            why = str(exc) if isinstance(exc, EngineUnavailable) else first_line(exc)
            raise EngineUnavailable(
                f"{self._model.name} can't run with Transformers {version('transformers')}: {why}. {ALTERNATIVE}"
            ) from exc
        self._say(attention_line(loaded.attention, self._capabilities, loaded.passed_over))
        self._announce_offload(loaded)
        self.info = EngineInfo(
            "hf",
            self._model.name,
            loaded.attention,
            {
                "torch": version("torch"),
                "transformers": version("transformers"),
                "dtype": str(loaded.model.dtype).removeprefix("torch."),
                "devices": loaded.devices,
                "max_num_seqs": self.max_num_seqs,
                **self._room,
                "batching": self._batching,
                "load_s": round(time.perf_counter() - began, 1),
            },
        )
        self._announce_graphs(loaded)

    def _load(self) -> LoadedModel:
        loaded = load(self._model, self._engine, self._capabilities)
        self.loaded, self.tokenizer, self.context_length = loaded, loaded.tokenizer, loaded.context_length
        self.sampling_defaults = own_sampling(self._model, self._capabilities)
        self._prepare(loaded, min(loaded.context_length, self._model.context_length))
        return loaded

    def _prepare(self, loaded: LoadedModel, limit: int) -> None:
        try:
            sample = settle(loaded, limit)
        except CannotBatch as exc:
            self.max_num_seqs = KEPT  # more would only hold memory
            self._one_at_a_time(loaded, limit, str(exc))
            return
        affordable = affordable_slots(sample, limit)
        if affordable < 1:
            raise EngineUnavailable(f"no memory is left for one conversation of {limit} tokens")
        wanted = self._engine.max_num_seqs or SLOTS.get(loaded.device.type, SLOTS["cpu"])
        self.max_num_seqs = min(wanted, affordable)
        self._room = {"max_model_len": limit, "kv_tokens": affordable * limit}
        forward = Forward(loaded, self.max_num_seqs, limit)
        if forward.graphs.wanted or loaded.no_graphs:
            self._room["cuda_graphs"] = True
        self._batcher = Batcher(
            forward,
            forward.cache,
            loaded.eos,
            partial(_decode, loaded.tokenizer),
            Grammars(loaded.tokenizer, loaded.vocabulary),
            thoughts=_follower(loaded.tokenizer),
            first_look=partial(first_prompt, loaded),
        )

    def _one_at_a_time(self, loaded: LoadedModel, limit: int, why: str) -> None:
        """The fallback where batching is impossible: slower, which the log says."""
        if self._engine.fallback == "never":
            raise EngineUnavailable(f"it can't be batched ({why}) and engine.fallback is never")
        keeping = best_keeping(loaded, limit)
        speed = tokens_per_second(loaded, keeping)
        self._batching = f"one conversation at a time, {SAYS[keeping]}: {why}"
        self._say(
            f"[WARNING] {self._model.name} runs one conversation at a time with Transformers, {SAYS[keeping]} "
            f"({speed:.1f} tokens/s here): {why}. vLLM batches most of these models"
        )
        self._batcher = OneAtATime(
            loaded,
            keeping,
            NativeCaches(self.max_num_seqs, limit),
            partial(_decode, loaded.tokenizer),
            Grammars(loaded.tokenizer, loaded.vocabulary),
            _follower(loaded.tokenizer),
        )

    async def _stop_batching(self, why: str) -> None:
        """One conversation at a time from now on. The slots stay as many: there is memory for them, and as many
        conversations are in flight."""
        async with self._switching:
            batcher, loaded = self._batcher, self.loaded
            if batcher is None or loaded is None or batcher.refusal is None:
                return
            self._batcher = None
            await asyncio.to_thread(batcher.close)
            del batcher
            _free_memory()
            try:
                limit = min(loaded.context_length, self._model.context_length)
                await _on_a_thread_that_ends(partial(self._one_at_a_time, loaded, limit, why))
            except EngineUnavailable as exc:
                self.gone = f"{self._model.name} can't go on with Transformers: {exc}. {ALTERNATIVE}"
                raise EngineStopped(self.gone) from exc
            self.info.details["batching"] = self._batching

    def _announce_offload(self, loaded: LoadedModel) -> None:
        if len(loaded.devices) > 1 and {"cpu", "disk"} & set(loaded.devices):
            self._say(f"[WARNING] {self._model.name} does not fit on the GPUs: layers are offloaded, which is slow")

    def _announce_graphs(self, loaded: LoadedModel) -> None:
        """Once, at the start or whenever a recording fails for the first time."""
        if loaded.no_graphs and self.info.details.get("cuda_graphs") is True:
            self.info.details["cuda_graphs"] = f"no: {loaded.no_graphs}"
            self._say(f"[*] Steps are not recorded as CUDA graphs ({loaded.no_graphs}): decoding is slower")

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        try:
            return await self._completion(prompt, params)
        except CannotBatch as exc:
            await self._stop_batching(str(exc))
            return await self._completion(prompt, params)

    async def _completion(self, prompt: Prompt, params: SamplingParams) -> Completion:
        ids = list(prompt.token_ids)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Request] = loop.create_future()
        request = Request(prompt, ids, params, partial(_hand_over, loop, future))
        began = time.perf_counter()
        async with self._switching:
            if self.gone is not None:
                raise EngineStopped(self.gone)
            if (batcher := self._batcher) is None:
                raise EngineError("the Hugging Face engine is not started")
            batcher.check(ids)
            batcher.submit(request)
        try:
            async with asyncio.timeout(self._engine.request_timeout):
                await future
        except TimeoutError as exc:
            raise EngineError(f"no answer within {self._engine.request_timeout} s (engine.request_timeout)") from exc
        finally:
            request.cancelled = True
            self.gone = self.gone or batcher.failure
        if self.loaded is not None:
            self._announce_graphs(self.loaded)
        assert request.text is not None
        assert request.finish_reason is not None
        return Completion(
            request.text,
            request.finish_reason,
            prompt_tokens=len(ids),
            completion_tokens=len(request.new_tokens),
            cached_tokens=request.cached,
            latency_s=time.perf_counter() - began,
        )

    async def close(self) -> None:
        if self._batcher is not None:
            batcher, self._batcher = self._batcher, None
            await asyncio.to_thread(batcher.close)
            self.loaded = None
            del batcher
            _free_memory()


async def _on_a_thread_that_ends(work: Callable[[], Result]) -> Result:
    """OpenMP keeps helpers for every living thread that ever computed, and once there are more of them than cores it
    puts them to sleep after each operation (docs/performance.md has the price)."""
    thread = ThreadPoolExecutor(1)
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)


def _follower(tokenizer: Any) -> Callable[[SamplingParams], Thought | None]:
    return follower(partial(_encode, tokenizer), partial(_decode, tokenizer))


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _decode(tokenizer: Any, ids: list[int]) -> str:
    """The exact text: special tokens mark the parts of a reply, and nothing is tidied up."""
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _hand_over(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], outcome: Request | BaseException) -> None:
    """Called in the batching thread. If the loop has been closed meanwhile, nothing is waiting for the result."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, future, outcome)


def _settle(future: asyncio.Future[Any], outcome: Request | BaseException) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _free_memory() -> None:
    """What the model held goes back to the system, for the next engine or process on this GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # GPU only: there is nothing to give back elsewhere
        torch.cuda.empty_cache()
