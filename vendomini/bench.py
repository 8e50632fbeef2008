"""Throughput of engines and attention implementations, side by side on one model, with the roofline beside them.

A token can't be decoded faster than the weights are read, so the roofline of decoding alone is the memory's measured
copy bandwidth over the weights' bytes; a batch of N reads them once for N tokens. Prompts are in the measured time but
not in the roofline, and neither are keys and values: the fraction reached is of an ideal that leaves both out.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.base import Completion, Engine, SamplingParams
from vendomini.engines.hf.attention import attention_choices
from vendomini.engines.resolve import vllm_refusal
from vendomini.errors import UsageError, VendoMiniError
from vendomini.model_info import model_facts
from vendomini.probe import Capabilities
from vendomini.worlds.conversation import Message

WARM_UP_TOKENS = 8
COPY_BYTES = {"cuda": 2 << 30, "cpu": 256 << 20}
COPIES = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """The task that every engine is given.

    Attributes:
        batch: prompts at once in the second measurement; the first has one.
    """

    batch: int = 16
    prompt_tokens: int = 512
    new_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One engine. Speeds are completion tokens a second; None, with a reason, where it could not be measured."""

    engine: str
    load_s: float | None = None
    single: float | None = None
    batched: float | None = None
    reason: str = ""


@dataclass(slots=True)
class Report:
    """Everything measured. ``roofline`` is tokens a second for one conversation."""

    model: str
    setting: Setting
    weight_bytes: int
    bandwidth: float
    rows: list[Row]
    versions: dict[str, str | None]
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    @property
    def roofline(self) -> float:
        return self.bandwidth / self.weight_bytes

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "roofline": self.roofline}

    def markdown(self) -> str:
        """A Markdown table, with the fraction of the roofline in brackets."""
        one, many = "1 conversation", f"{self.setting.batch} conversations"
        lines = [
            f"{self.model}: {self.setting.prompt_tokens} prompt tokens, {self.setting.new_tokens} new; "
            f"weights {self.weight_bytes / 1e9:.2f} GB, copy bandwidth {self.bandwidth / 1e9:.1f} GB/s, "
            f"roofline {self.roofline:.1f} tokens/s for {one}; {self.date}; "
            + ", ".join(f"{name} {version}" for name, version in self.versions.items() if version),
            "",
            f"| engine | load | tokens/s, {one} | tokens/s, {many} |",
            "|---|---|---|---|",
        ]
        for row in self.rows:
            if row.single is None or row.batched is None:
                lines.append(f"| {row.engine} | – | not measured: {row.reason} | |")
                continue
            lines.append(
                f"| {row.engine} | {row.load_s:.1f} s | {row.single:.1f} ({row.single / self.roofline:.0%}) "
                f"| {row.batched:.1f} ({row.batched / self.roofline / self.setting.batch:.0%}) |"
            )
        return "\n".join(lines)


@dataclass(eq=False)
class Conversation:
    """Token ids that grow at the end, in place of an episode's conversation."""

    token_ids: list[int] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    epoch: int = 0


async def converse(
    engine: Engine, turns: Sequence[Sequence[int]], new_tokens: int, seed: int, temperature: float = 1.0
) -> list[Completion]:
    """One conversation: each turn's token ids, followed by the engine's answer.

    Args:
        seed: of the first answer; each later answer takes the next number.
    """
    prompt = Conversation()
    answers: list[Completion] = []
    for number, ids in enumerate(turns):
        if answers:
            said = engine.tokenizer.encode(answers[-1].text, add_special_tokens=False)
            prompt.token_ids = prompt.token_ids + said
        prompt.token_ids = prompt.token_ids + list(ids)
        answers.append(await engine.generate(prompt, SamplingParams(new_tokens, temperature, seed=seed + number)))
    return answers


async def together(conversations: Iterable[Awaitable[list[Completion]]]) -> tuple[float, list[Completion]]:
    """Completion tokens a second of concurrent conversations, and all their answers."""
    began = time.perf_counter()
    answers = [answer for each in await asyncio.gather(*conversations) for answer in each]
    seconds = time.perf_counter() - began
    return sum(answer.completion_tokens for answer in answers) / seconds, answers


async def bench(
    model: Model, setting: Setting, found: Capabilities, say: Callable[[str], None], title: str | None = None
) -> Report:
    """Measures one engine after the other; one that can't run here is a row with its reason.

    Args:
        title: what the report calls the model; its name by default.

    Raises:
        EngineUnavailable: the model's files are not here.
    """
    facts = model_facts(model.name, model.revision, found)
    rows = []
    for name, begin in _engines(model, setting, found):
        say(f"[*] Measuring {name}")
        rows.append(await _measure(name, begin, setting))
    packages = ("torch", "transformers", "vllm", "flash_attn")
    versions = {name: found.package(name).version for name in packages}
    return Report(title or model.name, setting, facts.weight_bytes, copy_bandwidth(), rows, versions)


def _engines(model: Model, setting: Setting, found: Capabilities) -> list[tuple[str, Callable[[], Engine] | str]]:
    """Name → how to make it, or why it can't be."""
    from vendomini.engines.hf.engine import HuggingFaceEngine
    from vendomini.engines.vllm.engine import VllmEngine

    def hugging_face(attention: Any) -> Callable[[], Engine]:
        config = EngineConfig(attn_implementation=attention, max_num_seqs=setting.batch)
        return lambda: HuggingFaceEngine(model, config, found, _quiet)

    possible = attention_choices(found, "auto")
    engines: list[tuple[str, Callable[[], Engine] | str]] = [
        ("Transformers, eager", hugging_face("eager")),
        ("Transformers, sdpa", hugging_face("sdpa")),
    ]
    for attention in ("flash_attention_2", "flash_attention_3"):
        package = found.package("flash_attn" if attention.endswith("2") else "flash_attn_3")
        why = package.reason if found.gpus.devices else f"no GPU here ({package.reason})"
        engines.append((f"Transformers, {attention}", hugging_face(attention) if attention in possible else why))
    refusal = vllm_refusal(EngineConfig(), os.environ, found)
    config = EngineConfig(max_num_seqs=setting.batch)
    engines.append(("vLLM", refusal or (lambda: VllmEngine(model, config, found, _quiet))))
    return engines


def _quiet(_: str) -> None:
    """Silent: the table says it."""


async def _measure(name: str, begin: Callable[[], Engine] | str, setting: Setting) -> Row:
    if isinstance(begin, str):
        return Row(name, reason=begin)
    began = time.perf_counter()
    try:
        async with begin() as engine:
            load_s = time.perf_counter() - began
            await _throughput(engine, 1, setting.prompt_tokens, WARM_UP_TOKENS)
            single = await _throughput(engine, 1, setting.prompt_tokens, setting.new_tokens)
            batched = await _throughput(engine, setting.batch, setting.prompt_tokens, setting.new_tokens)
            return Row(name, load_s, single, batched)
    except VendoMiniError as exc:
        return Row(name, reason=str(exc))


async def _throughput(engine: Engine, batch: int, prompt_tokens: int, new_tokens: int) -> float:
    """Completion tokens a second over ``batch`` prompts at once, none of which shares a beginning with another."""
    generator = random.Random(batch * 1000 + new_tokens)
    vocabulary = len(engine.tokenizer)
    prompts = [[generator.randrange(vocabulary) for _ in range(prompt_tokens)] for _ in range(batch)]
    rate, _ = await together(converse(engine, [ids], new_tokens, seed) for seed, ids in enumerate(prompts))
    return rate


def copy_bandwidth() -> float:
    """Bytes a second, read and written together, of a large copy on the device that models run on here."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.zeros(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = math.inf
    for _ in range(COPIES):
        began = time.perf_counter()
        target.copy_(source)
        if device == "cuda":  # GPU only: there the copies have only been queued so far
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return float(2 * source.numel() / best)


def write_random_model(config: Path, folder: Path) -> Path:
    """A model of the given architecture with random weights, and a tokenizer with one word a token.

    Args:
        config: a ``config.json`` or the folder with one.

    Raises:
        UsageError: there is none, or Transformers does not know its architecture.
    """
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    file = config / "config.json" if config.is_dir() else config
    try:
        settings = json.loads(file.read_text())
        architecture = AutoConfig.for_model(settings.pop("model_type"), **settings)
    except (OSError, ValueError, KeyError) as exc:
        raise UsageError(f"--random-weights needs the config.json of a model that Transformers knows: {exc}") from exc
    dtype = architecture.dtype or "bfloat16"
    with ThreadPoolExecutor(1) as passing:  # why it must end: HuggingFaceEngine.start
        model = passing.submit(AutoModelForCausalLM.from_config, architecture, dtype=dtype, trust_remote_code=False)
        passing.submit(lambda: model.result().save_pretrained(folder)).result()
    size = architecture.get_text_config().vocab_size
    words = Tokenizer(models.WordLevel({f"t{n}": n for n in range(size)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder
