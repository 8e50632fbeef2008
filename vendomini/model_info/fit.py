"""How many GPUs a model needs, and what follows from that. Every verdict shows its arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vendomini.model_info.facts import ModelFacts

GIB = 1 << 30
OVERHEAD = 2 * GIB
"""Per GPU, besides weights and KV: CUDA context, activations, graphs. An allowance, not a measurement."""

LARGE = 72 * GIB
"""Weights that no single 80 GB GPU can hold: Transformers would run them on one GPU after the other."""

LONG_HORIZON = 1000
"""Steps of an episode: from this many on, the engine's speed decides whether an experiment is feasible."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model fits on some GPUs.

    Attributes:
        gpus: how many of them are used: the largest number that the heads divide among.
        room: bytes left for keys and values; negative if the weights alone are too much.
        conversations: how many of the requested length fit into that room.
        arithmetic: the calculation, as a line to show.
    """

    gpus: int
    room: int
    conversations: int
    arithmetic: str

    @property
    def fits(self) -> bool:
        return self.conversations >= 1


def fit(facts: ModelFacts, *, gpus: int, memory: int, tokens: int, utilization: float = 0.9) -> Fit:
    """The arithmetic of vLLM's memory: what the GPUs offer, less weights and overhead, is for keys and values.

    Args:
        memory: bytes of one GPU.
        tokens: of one conversation.
        utilization: ``engine.gpu_memory_utilization``.
    """
    used = facts.tensor_parallel_sizes(gpus)[-1]
    room = int(used * (memory * utilization - OVERHEAD)) - facts.weight_bytes
    # Fewer KV heads than GPUs: each GPU keeps a whole head all the same.
    conversation = facts.kv_bytes(tokens) * max(1, math.ceil(used / facts.kv_heads))
    arithmetic = (
        f"{used} x ({gib(memory)} x {utilization:g} - {gib(OVERHEAD)}) - {gib(facts.weight_bytes)} weights "
        f"= {gib(room)} for KV; {gib(conversation)} for {tokens} tokens"
    )
    return Fit(
        used, room, max(0, room // max(conversation, 1)), arithmetic
    )  # one without keys and values takes no room


def smallest_fit(
    facts: ModelFacts, *, memory: int, tokens: int, conversations: int = 1, most: int = 64, utilization: float = 0.9
) -> Fit | None:
    """The fewest GPUs that hold the model and this many conversations; None if ``most`` of them don't."""
    for gpus in facts.tensor_parallel_sizes(most):
        found = fit(facts, gpus=gpus, memory=memory, tokens=tokens, utilization=utilization)
        if found.conversations >= conversations:
            return found
    return None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to run a model with.

    Attributes:
        flash_attention: ``yes`` or why not.
        vllm: ``avoid``, ``when throughput matters``, ``yes`` or ``strongly recommended``.
        why: the arithmetic behind it.
    """

    flash_attention: str
    vllm: str
    why: str


def recommend(
    facts: ModelFacts, *, gpus: int, memory: int, capability: tuple[int, int], tokens: int, steps: int
) -> Recommendation:
    """Args:
    memory: bytes of one GPU.
    tokens: of one conversation.
    steps: of one episode.
    """
    found = fit(facts, gpus=gpus, memory=memory, tokens=tokens)
    flash = "yes" if capability >= (8, 0) else f"no: compute capability {capability} is below (8, 0)"
    if not found.fits:
        vllm = "avoid"
    elif steps >= LONG_HORIZON:
        vllm = "strongly recommended"
    else:
        vllm = "yes" if facts.weight_bytes > LARGE else "when throughput matters"
    return Recommendation(flash, vllm, found.arithmetic)


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
