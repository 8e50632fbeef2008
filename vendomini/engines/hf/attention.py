"""Which attention a Transformers model runs with: what this machine has, and what the model can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vendomini.probe import Capabilities

CAPABILITY = (8, 0)
CUDA = (11, 8)
"""What Flash Attention 2 needs."""

SOFTCAP = "attn_logit_softcapping"
"""Config key of models that cap scores before the softmax; PyTorch's own attention can't do that."""


def attention_choices(capabilities: Capabilities, asked: str) -> list[str]:
    """Attention implementations to try, the fastest first; one that the config names is the only choice.

    Flash Attention 3 is made for compute capability 9 alone.
    """
    if asked != "auto":
        return [asked]
    capability = capabilities.gpus.capability or (0, 0)
    flash = []
    if (9, 0) <= capability < (10, 0) and capabilities.package("flash_attn_3").works:
        flash.append("flash_attention_3")
    if flash_obstacle(capabilities) is None:
        flash.append("flash_attention_2")
    return [*flash, "sdpa", "eager"]


def flash_obstacle(capabilities: Capabilities) -> str | None:
    """Why Flash Attention 2 can't run here; None if nothing prevents it."""
    flash, capability = capabilities.package("flash_attn"), capabilities.gpus.capability
    built_for = capabilities.package("torch").platform
    if flash.version is None:
        return flash.reason
    if capability is None:
        return "needs a GPU"
    if capability < CAPABILITY:
        return f"needs GPU compute capability >= {CAPABILITY}, this is {capability}"
    if built_for.startswith("cuda ") and tuple(map(int, built_for[5:].split(".")[:2])) < CUDA:
        return f"needs CUDA 11.8 or newer, torch is built for {built_for}"
    return None if flash.works else flash.reason


def attention_line(attention: str, capabilities: Capabilities, passed_over: Sequence[str] = ()) -> str:
    """The log's line about the attention that the loaded model reports.

    Args:
        passed_over: implementations that this model could not load or run with, each with the reason.
    """
    if attention.startswith("flash_attention"):
        return f"[*] Using Flash Attention {attention[-1]} (GPU compute capability: {capabilities.gpus.capability})"
    tried = [one.partition(": ")[2] for one in passed_over if one.startswith("flash")]
    failed = f"is installed but fails with this model ({tried[0]})" if tried else "is installed but not used for it"
    obstacle = flash_obstacle(capabilities) or failed
    return f"[*] Flash Attention {obstacle}, using {attention} attention (slower)"


def for_model(choices: list[str], config: Any) -> list[str]:
    """Those of the choices that compute this model correctly."""
    capped = getattr(config.get_text_config(), SOFTCAP, None) is not None
    return [choice for choice in choices if not (capped and choice == "sdpa" and len(choices) > 1)]
