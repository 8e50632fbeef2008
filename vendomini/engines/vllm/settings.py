"""vLLM's arguments and environment, from the config, the machine and the model's own files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vendomini.config import schema
from vendomini.engines.vllm.caches import cache_variables, warm_cache
from vendomini.engines.vllm.nodes import NodeGroup
from vendomini.engines.vllm.thought import reasoning_config
from vendomini.errors import EngineUnavailable
from vendomini.model_info import GIB, ModelFacts, model_facts
from vendomini.model_info.formats import PLAIN, ReplyFormat
from vendomini.probe import Capabilities

CPU_SEQS = 16
"""Episodes in flight on a CPU where the config leaves it open."""

CPU_BLOCK = 32
"""Tokens of a cache block on a CPU, the smallest that vLLM's fast kernels take. Of a prompt that grew, only whole
blocks are found again: with vLLM's default of 128 about half a turn would be recomputed."""

SHARED_MEMORY_PER_RANK = 512 << 20
"""Bytes; an allowance. vLLM's broadcast queue takes up to 240 MiB of it."""


@dataclass(frozen=True)
class Settings:
    model: schema.Model
    engine: schema.EngineConfig
    capabilities: Capabilities

    def engine_args(self, thinking: ReplyFormat = PLAIN) -> dict[str, Any]:
        """Arguments of ``AsyncEngineArgs``; the config's own ``engine_args`` override everything.

        Args:
            thinking: how the model marks a thought.
        """
        model, engine = self.model, self.engine
        max_model_len = self._max_model_len()
        arguments: dict[str, Any] = {
            "model": model.name,
            "revision": model.revision,
            "tokenizer_revision": model.revision,
            "trust_remote_code": model.trust_remote_code,
            "dtype": self._dtype(),
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
            arguments["block_size"] = CPU_BLOCK
            if self._alone_on_cpu:
                arguments["distributed_executor_backend"] = "uni"
        if thinking.start and "reasoning_parser" not in engine.engine_args:
            arguments["reasoning_config"] = reasoning_config(thinking)
        group = NodeGroup.of(engine.nodes, os.environ)
        return arguments | (group.engine_args() if group else {}) | engine.engine_args

    @property
    def _alone_on_cpu(self) -> bool:
        """Whether one process computes on CPUs, in the scheduler's own process. vLLM would start a second one, which
        the scheduler polls without pause and for which a core is kept free: half of a machine with two cores."""
        one = self.engine.engine_args.get("tensor_parallel_size", 1) == 1 and self.engine.nodes == 1
        return self._on_cpu and one

    @property
    def _on_cpu(self) -> bool:
        return self.capabilities.package("vllm").platform == "cpu"

    @cached_property
    def _facts(self) -> ModelFacts | None:
        """What the model's files say, if they are here already."""
        try:
            return model_facts(self.model.name, self.model.revision, self.capabilities)
        except EngineUnavailable:
            return None

    def _max_model_len(self) -> int:
        """The configured length, else the agent's context, but not more than the model was made for: vLLM refuses
        that."""
        if self.engine.max_model_len:
            return self.engine.max_model_len
        made_for = self._facts and self._facts.context_length
        return min(self.model.context_length, made_for or self.model.context_length)

    def _dtype(self) -> str:
        if self.model.dtype != "auto" or not self._on_cpu or self._facts is None:
            return self.model.dtype
        return self._facts.dtype_on_cpu(self.capabilities)

    def _tensor_parallel_size(self) -> int:
        """All GPUs of the job, or as many as vLLM can spread the model on."""
        gpus = len(self.capabilities.gpus.devices[: self.engine.gpus])
        if self._on_cpu or gpus <= 1 or self._facts is None:
            return 1 if self._on_cpu else max(1, gpus)
        return self._facts.tensor_parallel_sizes(gpus)[-1]

    def reduced_gpus(self) -> str | None:
        """A line for the log if some of the GPUs stay idle."""
        gpus, used = len(self.capabilities.gpus.devices[: self.engine.gpus]), self._tensor_parallel_size()
        if self._on_cpu or used >= gpus or self._facts is None:
            return None
        facts = self._facts
        if facts.attention_heads % gpus:
            reason = f"{facts.attention_heads} attention heads"
        else:
            reason = f"{facts.kv_heads} KV heads and layers of {', '.join(map(str, facts.divided))}"
        return f"[*] {reason}: using {used} of {gpus} GPUs"

    def environ(self, ours: Mapping[str, str], cache: Path | None = None) -> dict[str, str]:
        """Environment of the host. vLLM's own default on a CPU would take nearly all memory for keys and values.

        Args:
            cache: where vLLM compiles, as ``caches.job_cache`` makes it.
        """
        environ = {"VLLM_NO_USAGE_STATS": "1", **ours}
        if cache is not None:
            environ |= cache_variables(ours, cache)
        if self.engine.batch_invariant:
            environ["VLLM_BATCH_INVARIANT"] = "1"
        if self._on_cpu:
            environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(self._cpu_kv_gib()))
        if self._alone_on_cpu:
            # Without it vLLM takes the executor "uni" for "mp".
            environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        return environ

    def warm_cache(self, ours: Mapping[str, str]) -> Path:
        """The folder that keeps, from job to job, what is compiled for this very start."""
        found, args = self.capabilities, self.engine_args()
        shapes = [f"{key}={args[key]}" for key in sorted(args) if key not in {"model", "revision"}]
        gpu = found.gpus.devices[0].name if found.gpus.devices else "cpu"
        versions = (found.package("vllm").version, found.package("torch").version)
        return warm_cache(ours, *versions, gpu, self.model.name, self.model.revision, *shapes)

    def shared_memory_needed(self) -> int:
        """Bytes of ``/dev/shm`` that the queues between its processes take, NCCL's included."""
        ranks = int(self.engine_args()["tensor_parallel_size"])
        return SHARED_MEMORY_PER_RANK * ranks if ranks > 1 else 0

    def _cpu_kv_gib(self) -> int:
        """What the episodes in flight need at most, within a third of the machine's memory; whole GiB, at least 1."""
        ceiling = max(1, self.capabilities.memory // 3 // GIB)
        if self._facts is None:
            return ceiling
        needed = (self.engine.max_num_seqs or CPU_SEQS) * self._facts.kv_bytes(self._max_model_len())
        if self._dtype() == "float32" and self._facts.weight_bytes < 3 * (self._facts.parameters or 0):
            needed *= 2  # than as stored
        return min(ceiling, 1 + needed // GIB)
