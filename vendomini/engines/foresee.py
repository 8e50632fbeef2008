"""Which engine, which attention, batched or not: predicted from a model's config alone, before anything is loaded."""

from __future__ import annotations

import json
import os

from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.hf.attention import SOFTCAP, attention_choices
from vendomini.engines.resolve import chain, passed_over
from vendomini.errors import VendoMiniError
from vendomini.model_info import locate
from vendomini.model_info.layers import Config
from vendomini.probe import Capabilities

BATCHED = {"full_attention", "sliding_attention"}
"""Layer types that the Hugging Face engine batches."""

SWITCHING = {"longrope", "dynamic"}
"""Rotary embeddings whose factors follow the longest row of a batch."""

ONE_AT_A_TIME = {
    "bamba", "bloom", "falcon_h1", "falcon_mamba", "gpt_neo", "granitemoehybrid", "jamba", "kimi_linear", "lfm2",
    "lfm2_moe", "llama4", "llama4_text", "mamba", "mamba2", "minimax", "mpt", "nemotron_h", "olmo_hybrid", "qwen3_5",
    "qwen3_5_moe", "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2",
}  # fmt: skip
"""Model types that are known not to batch and whose files need not show why (docs/engines.md has the whole table)."""

FLASH_HEAD_DIM = 256


def foresee(model: Model, engine: EngineConfig, found: Capabilities) -> str:
    """What would run this model here, as half a sentence; or why nothing would."""
    try:
        backends = chain(model, engine)
    except VendoMiniError as exc:
        return f"nothing: {exc}"
    reasons = []
    for backend in backends:
        try:
            refusal = passed_over(backend, model, engine, os.environ, found)
        except VendoMiniError as exc:
            refusal = str(exc)
        if refusal is None:
            return _hugging_face(model, engine, found) if backend.name == "hf" else backend.title
        reasons.append(f"{backend.name}: {refusal}")
        if engine.fallback == "never" and engine.backend == backend.name:
            break
    return f"nothing ({'; '.join(reasons)})"


def _hugging_face(model: Model, engine: EngineConfig, found: Capabilities) -> str:
    try:
        folder = locate(model.name, model.revision, found)
        config = json.loads((folder / "config.json").read_text()) if folder else {}
    except (VendoMiniError, OSError, ValueError) as exc:
        return f"Hugging Face Transformers, if its files can be read ({exc})"
    if not config:
        return "Hugging Face Transformers; attention and batching are known once its files are here"
    text = config.get("text_config") or config
    attention = next(iter(_attentions(text, config, model, engine, found)), "eager")
    obstacle = why_not_batched(text, config, model.context_length)
    if obstacle is None:
        return f"Hugging Face Transformers, {attention}, batched"
    if engine.fallback == "never":
        return f"nothing ({obstacle}, and engine.fallback is never)"
    return f"Hugging Face Transformers, {attention}, one conversation at a time: {obstacle}"


def _attentions(text: Config, config: Config, model: Model, engine: EngineConfig, found: Capabilities) -> list[str]:
    choices = attention_choices(found, engine.attn_implementation)
    dtype = (
        model.dtype if model.dtype != "auto" else text.get("dtype") or config.get("dtype") or text.get("torch_dtype")
    )
    heads, dim = text.get("num_attention_heads") or 1, max(text.get("head_dim") or 0, text.get("global_head_dim") or 0)
    dim = dim or int(text.get("hidden_size") or 0) // int(heads)
    if dtype == "float32" or dim > FLASH_HEAD_DIM:
        choices = [choice for choice in choices if "flash" not in choice] or choices
    if text.get(SOFTCAP):
        choices = [choice for choice in choices if choice != "sdpa"] or choices
    return choices


def why_not_batched(text: Config, config: Config, context_length: int) -> str | None:
    """Why conversations with this model would be computed one at a time; None if they would be batched.

    Args:
        text: ``config.json``, or the part of it that describes the language model.
    """
    stateful = set(text.get("layer_types") or ()) - BATCHED
    if stateful:
        return f"its layers of type {', '.join(sorted(stateful))} keep a state"
    kinds = {str(config.get("model_type")), str(text.get("model_type"))}
    if known := sorted(kinds & ONE_AT_A_TIME):
        return f"{known[0]} does not batch"
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    switch = rope.get("original_max_position_embeddings") or text.get("original_max_position_embeddings")
    limit = min(context_length, text.get("max_position_embeddings") or context_length)
    if (rope.get("rope_type") or rope.get("type")) in SWITCHING and switch and limit > switch:
        return f"its rotary factors change at {switch} tokens; with agent.model.context_length: {switch} it is batched"
    return None
