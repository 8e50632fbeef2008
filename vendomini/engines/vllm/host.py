"""The process that hosts vLLM: ``python -m vendomini.engines.vllm.host``, started by ``vllm.VllmEngine`` only.

vLLM starts processes of its own, and some of them outlive a parent that was killed, holding the GPU's memory. Here all
of them share this process's group. When the pipe from the parent ends, the parent is gone, and the whole group is
killed, this process included.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from vendomini.engines.vllm.protocol import (
    Abort,
    Done,
    Failed,
    FromHost,
    Generate,
    Ready,
    Refused,
    Start,
    Stop,
    ToHost,
    frame,
    pack_ids,
    receive,
    unpack_ids,
)

SHUTDOWN_S = 15.0
"""vLLM's own 5 s sometimes end in a forced kill."""


class Host:
    """One AsyncLLM and the requests on it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._llm: Any = None
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Serves until told to stop; if the parent is gone, everything is killed."""
        decoder = msgspec.msgpack.Decoder(ToHost)
        while True:
            match await receive(reader, decoder):
                case None:
                    os.killpg(0, signal.SIGKILL)
                case Start() as start:
                    self._tasks[-1] = asyncio.create_task(self._start(start))
                case Generate() as request:
                    self._tasks[request.id] = asyncio.create_task(self._generate(request))
                case Abort(id=request_id):
                    if task := self._tasks.get(request_id):
                        task.cancel()
                case Stop():
                    return await self._stop()

    def _send(self, message: FromHost) -> None:
        self._writer.write(frame(message))

    async def _start(self, start: Start) -> None:
        try:
            self._llm = await asyncio.to_thread(_load, start.engine_args)
            # Some engines start and then fail on their first request (no kernel for this head size, say).
            await self._complete(Generate(0, pack_ids([1, 2, 3]), {"max_tokens": 1, "seed": 0}, None))
            self._send(_ready(self._llm))
        except BaseException as exc:  # the parent decides what to do about any failure
            self._send(Failed(f"{type(exc).__name__}: {exc}"))

    async def _generate(self, request: Generate) -> None:
        try:
            self._send(await self._complete(request))
        except asyncio.CancelledError:
            pass  # the parent no longer listens; vLLM aborts the request when its task is cancelled
        except Exception as exc:  # a request that fails must be answered, whatever the reason
            self._send(Refused(request.id, f"{type(exc).__name__}: {exc}", self._llm is None or self._llm.errored))
        finally:
            del self._tasks[request.id]

    async def _complete(self, request: Generate) -> Done:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        params = SamplingParams(
            **request.sampling,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(**request.constraint) if request.constraint else None,
        )
        prompt = {"prompt_token_ids": unpack_ids(request.prompt)}
        answers = [answer async for answer in self._llm.generate(prompt, params, str(request.id))]
        final = answers[-1]
        output = final.outputs[0]
        if output.finish_reason not in {"stop", "length"}:
            raise RuntimeError(f"vLLM ended the request with {output.finish_reason!r}")
        return Done(request.id, output.text, output.finish_reason, len(output.token_ids), final.num_cached_tokens)

    async def _stop(self) -> None:
        if self._llm is not None:
            await asyncio.to_thread(self._llm.shutdown, timeout=SHUTDOWN_S)
        await self._writer.drain()


def _load(engine_args: dict[str, Any]) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_args))


def _ready(llm: Any) -> Ready:
    import torch
    import transformers
    import vllm

    config = llm.vllm_config
    cache, parallel = config.cache_config, config.parallel_config
    details = {
        "vllm": vllm.__version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "tensor_parallel_size": parallel.tensor_parallel_size,
        "enforce_eager": config.model_config.enforce_eager,
        "prefix_caching": cache.enable_prefix_caching,
    }
    kv_tokens = (cache.num_gpu_blocks or 0) * cache.block_size
    return Ready(config.model_config.max_model_len, config.scheduler_config.max_num_seqs, kv_tokens, details)


async def main() -> None:
    """Speaks over the pipes it was started with; whatever else is printed goes to the log on standard error."""
    loop = asyncio.get_running_loop()
    pipe_in, pipe_out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # A process forked by vLLM must not keep the pipes open: their end tells the other side that we are gone.
    for descriptor in (pipe_in.fileno(), pipe_out.fileno()):
        os.register_at_fork(after_in_child=partial(os.close, descriptor))
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe_in)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe_out)
    await Host(asyncio.StreamWriter(transport, protocol, None, loop)).serve(reader)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)  # threads that vLLM leaves behind must not keep us alive
