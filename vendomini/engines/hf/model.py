"""Loading a Transformers model: which attention it can run, on which devices, in how much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vendomini.config import schema
from vendomini.errors import EngineUnavailable, MissingExtraError
from vendomini.probe import Capabilities

Tensor = Any

CAPABILITY = (8, 0)
CUDA = (11, 8)
"""What Flash Attention 2 needs."""


@dataclass(slots=True)
class LoadedModel:
    """A model and what it says of itself."""

    model: Any
    tokenizer: Any
    attention: str
    context_length: int
    eos: frozenset[int]

    @property
    def device(self) -> Any:
        """Where the embeddings are, and so where token ids go."""
        return self.model.get_input_embeddings().weight.device

    @property
    def devices(self) -> list[str]:
        placed = getattr(self.model, "hf_device_map", None)
        return sorted({str(device) for device in placed.values()}) if placed else [str(self.device)]

    @property
    def flash(self) -> bool:
        return "flash" in self.attention


def attention_choices(capabilities: Capabilities, asked: str) -> list[str]:
    """Attention implementations to try, the fastest first; what was asked for stands alone.

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
    """Why Flash Attention 2 can't run here; None if nothing speaks against it."""
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


def attention_line(attention: str, capabilities: Capabilities) -> str:
    """What the log says of the attention that the loaded model reports."""
    if attention.startswith("flash_attention"):
        return f"[*] Using Flash Attention {attention[-1]} (GPU compute capability: {capabilities.gpus.capability})"
    obstacle = flash_obstacle(capabilities) or "is installed but not used for this model"
    return f"[*] Flash Attention {obstacle}, using {attention} attention (slower)"


def load(model: schema.Model, engine: schema.EngineConfig, capabilities: Capabilities) -> LoadedModel:
    """Loads weights and tokenizer.

    Raises:
        EngineUnavailable: it can't be loaded here, with the reason.
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging as transformers_logging
    except ImportError as exc:
        raise MissingExtraError("the Hugging Face engine", exc.name or "transformers", "hf") from exc
    transformers_logging.disable_progress_bar()
    options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    tokenizer = load_tokenizer(model)
    failures = []
    for attention in attention_choices(capabilities, engine.attn_implementation):
        try:
            loaded = AutoModelForCausalLM.from_pretrained(
                model.name,
                dtype=model.dtype,
                attn_implementation=attention,
                device_map=_device_map(torch.cuda.device_count()),
                **options,
            )
        except (ImportError, ValueError) as exc:
            failures.append(f"{attention}: {first_line(exc)}")
        except (OSError, RuntimeError, SafetensorError) as exc:
            raise EngineUnavailable(f"Hugging Face Transformers can't load {model.name}: {first_line(exc)}") from exc
        else:
            loaded.eval()
            return LoadedModel(
                loaded, tokenizer, loaded.config._attn_implementation, _context(loaded.config), _eos(loaded, tokenizer)
            )
    raise EngineUnavailable(f"Hugging Face Transformers can't load {model.name}: {'; '.join(failures)}")


def load_tokenizer(model: schema.Model) -> Any:
    """Raises:
    EngineUnavailable: it can't be loaded, with the reason.
    MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as exc:
        raise MissingExtraError("the tokenizer of a model", exc.name or "transformers", "hf") from exc
    options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    try:
        return AutoTokenizer.from_pretrained(model.name, **options)
    except (OSError, ValueError, ImportError) as exc:
        raise EngineUnavailable(f"the tokenizer of {model.name} can't be loaded: {first_line(exc)}") from exc


def _device_map(gpus: int) -> str | None:
    """Transformers' own placing, which offloads what does not fit; nothing to place without a GPU."""
    return "auto" if gpus else None


def _context(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 1 << 20)


def _eos(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*ids, tokenizer.eos_token_id) if token is not None)


def first_line(exc: BaseException) -> str:
    """An exception as half a sentence: libraries explain themselves in paragraphs."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    if "trust_remote_code" in str(exc):
        return "it needs code of its own to be run: read it, and allow it with agent.model.trust_remote_code: true"
    return f"{type(exc).__name__}: {lines[0] if lines else 'no message'}"
