"""Loading a Transformers model: its class, its devices and the attention to try first."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from vendomini.config import schema
from vendomini.engines.hf.attention import attention_choices, for_model
from vendomini.engines.hf.slots import install
from vendomini.errors import EngineUnavailable, MissingExtraError
from vendomini.model_info import model_facts
from vendomini.probe import Capabilities

Tensor = Any


@dataclass(slots=True)
class LoadedModel:
    """A loaded model and what it reports about itself.

    Attributes:
        attentions: implementations that it may run with here, the fastest first; it runs with the first.
        passed_over: those that could not load or run, each with the reason.
        no_graphs: why its steps are no longer recorded on a GPU.
    """

    model: Any
    tokenizer: Any
    attentions: list[str]
    context_length: int
    eos: frozenset[int]
    passed_over: list[str] = field(default_factory=list)
    no_graphs: str = ""

    @property
    def attention(self) -> str:
        """The implementation that the model itself reports."""
        return str(self.model.config._attn_implementation)

    @property
    def device(self) -> Any:
        """The device of the embeddings, to which token ids go."""
        return self.model.get_input_embeddings().weight.device

    @property
    def devices(self) -> list[str]:
        placed = getattr(self.model, "hf_device_map", None)
        return sorted({str(device) for device in placed.values()}) if placed else [str(self.device)]

    @property
    def flash(self) -> bool:
        return "flash" in self.attention

    @property
    def vocabulary(self) -> int:
        """Logits after each token."""
        head = self.model.get_output_embeddings()
        weight = getattr(head, "weight", None)
        return int(weight.shape[0] if weight is not None else self.model.config.get_text_config().vocab_size)

    @property
    def keeps_logits(self) -> bool:
        """Whether the model can be asked for the logits of some tokens alone."""
        return "logits_to_keep" in inspect.signature(self.model.forward).parameters

    @property
    def tolerance(self) -> float:
        """Relative error of logits that rounding explains."""
        import torch

        return 1e-3 if self.model.dtype == torch.float32 else 0.2

    def some_tokens(self, count: int) -> list[int]:
        """Token ids for a trial, the same each time; the first few, which mark ends and padding, are left out."""
        size = self.model.get_input_embeddings().weight.shape[0]
        return [(7 * n + n * n // 64) % max(1, min(97, size - 3)) + 3 for n in range(count)]

    def use(self, attention: str) -> None:
        self.model.set_attn_implementation(attention)

    def next_attention(self, reason: str) -> bool:
        """Switches to the next implementation; False if there is none."""
        self.passed_over.append(f"{self.attention}: {reason}")
        del self.attentions[0]
        while self.attentions:
            try:
                self.use(self.attentions[0])
            except (ImportError, ValueError) as exc:
                self.passed_over.append(f"{self.attentions.pop(0)}: {first_line(exc)}")
            else:
                return True
        return False


def load(model: schema.Model, engine: schema.EngineConfig, capabilities: Capabilities) -> LoadedModel:
    """Loads weights and tokenizer. Its first pass decides which attention it really runs with.

    Raises:
        EngineUnavailable: it can't be loaded here, with the reason.
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoConfig
        from transformers.utils import logging as transformers_logging
    except ImportError as exc:
        raise MissingExtraError("the Hugging Face engine", exc.name or "transformers", "hf") from exc
    transformers_logging.disable_progress_bar()
    install()
    options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    tokenizer = load_tokenizer(model)
    try:
        config = AutoConfig.from_pretrained(model.name, **options)
        maker = _class_of(config)
    except (ImportError, OSError, ValueError, KeyError) as exc:
        raise EngineUnavailable(f"Hugging Face Transformers can't load {model.name}: {first_line(exc)}") from exc
    dtype = _dtype(model, capabilities)
    attentions = for_model(attention_choices(capabilities, engine.attn_implementation), config)
    passed_over = []
    for at, attention in enumerate(attentions):
        try:
            loaded = maker.from_pretrained(
                model.name,
                dtype=dtype,
                attn_implementation=attention,
                device_map=_device_map(torch.cuda.device_count()),
                **options,
            )
        except (ImportError, ValueError) as exc:
            passed_over.append(f"{attention}: {first_line(exc)}")
        except (OSError, RuntimeError, SafetensorError) as exc:
            raise EngineUnavailable(f"Hugging Face Transformers can't load {model.name}: {first_line(exc)}") from exc
        else:
            loaded.eval()
            return LoadedModel(
                loaded, tokenizer, attentions[at:], _context(config), _eos(loaded, tokenizer), passed_over
            )
    raise EngineUnavailable(f"Hugging Face Transformers can't load {model.name}: {'; '.join(passed_over)}")


def _dtype(model: schema.Model, capabilities: Capabilities) -> str:
    if model.dtype != "auto" or capabilities.gpus.devices:
        return model.dtype
    try:
        return model_facts(model.name, model.revision, capabilities).dtype_on_cpu(capabilities)
    except EngineUnavailable:
        return model.dtype


def _class_of(config: Any) -> Any:
    """What loads this model: the class that its config names, where that can write text, else the automatic one.

    Some models are wrappers around a causal one (for images, say) and no causal model by their own name.
    """
    import transformers

    for name in getattr(config, "architectures", None) or ():
        named = getattr(transformers, name, None)
        if named is not None and hasattr(named, "generate"):
            return named
    known = transformers.AutoModelForCausalLM
    if type(config) in known._model_mapping or "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return known
    return transformers.AutoModelForImageTextToText


def rope_switch(config: Any) -> int | None:
    """Length at which the rotary factors change by the longest row of a batch; None where they never do."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    for one in kinds:
        if (one.get("rope_type") or one.get("type")) in {"longrope", "dynamic"}:
            return int(
                one.get("original_max_position_embeddings")
                or getattr(text, "original_max_position_embeddings", None)
                or text.max_position_embeddings
            )
    return None


def load_tokenizer(model: schema.Model) -> Any:
    """Raises:
    EngineUnavailable: it can't be loaded, with the reason.
    MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as exc:
        raise MissingExtraError("the tokenizer of a model", exc.name or "transformers", "hf") from exc
    options: dict[str, Any] = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.name, **options)
        if getattr(tokenizer, "chat_template", None) is None and _is_mistrals_own(tokenizer):
            options["mistral_format"] = False
            tokenizer = AutoTokenizer.from_pretrained(model.name, **options)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if getattr(backend, "fix_mistral_regex", None) is False:  # an early export splits words at wrong places
            tokenizer = AutoTokenizer.from_pretrained(model.name, fix_mistral_regex=True, **options)
        return tokenizer
    except (OSError, ValueError, ImportError) as exc:
        raise EngineUnavailable(f"the tokenizer of {model.name} can't be loaded: {first_line(exc)}") from exc


def _is_mistrals_own(tokenizer: Any) -> bool:
    """If mistral-common is installed, Transformers takes a folder's tekken.json for the tokenizer, which has no chat
    template; the folder's ordinary tokenizer has one."""
    return type(tokenizer).__name__ == "MistralCommonBackend"


def _device_map(gpus: int) -> str | None:
    """Transformers' own placing, which offloads what does not fit; nothing to place without a GPU."""
    return "auto" if gpus else None


def _context(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 1 << 20)


def _eos(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config or model.config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*ids, tokenizer.eos_token_id) if token is not None)


def first_line(exc: BaseException) -> str:
    """An exception as half a sentence: libraries' messages run to paragraphs."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    if "trust_remote_code" in str(exc):
        return "it needs code of its own to be run: read it, and allow it with agent.model.trust_remote_code: true"
    return f"{type(exc).__name__}: {lines[0] if lines else 'no message'}"
