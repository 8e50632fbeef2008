"""``vendomini bench --tune``: which of vLLM's arguments make a model's own episodes faster here.

The prompts are those of recorded runs, made again from their logs, so that every setting is given the same work at the
depth that real episodes have, with their seeds, schemas and thoughts.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from vendomini.bench import Conversation
from vendomini.config import RunSpec
from vendomini.config.models import model_name
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.base import Completion, Engine, EngineInfo, FinishReason, Prompt, SamplingParams
from vendomini.engines.hf.model import load_tokenizer
from vendomini.errors import PromptTooLong, UsageError, VendoMiniError
from vendomini.probe import Capabilities
from vendomini.records import Results, RunInfo, StepRecord, read_steps
from vendomini.runner import Counters, Stop
from vendomini.runner.episode import Episode

Arguments = dict[str, JsonValue]
Asked = list[tuple[list[int], SamplingParams]]

GAIN = 1.03
"""Times as fast as vLLM's own settings that an argument must be, at least, to be chosen."""

NGRAM: Arguments = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
"""Guesses that the reply goes on as it did where the prompt has the same words."""

FASTER: dict[str, Arguments] = {
    "keys and values in 8 bits": {"kv_cache_dtype": "fp8"},
    "n-gram speculation": {"speculative_config": NGRAM},
}
ON_GPU: dict[str, Arguments] = FASTER | {
    "no chunked prefill": {"enable_chunked_prefill": False},
    "4,096 tokens a batch": {"max_num_batched_tokens": 4096},
    "16,384 tokens a batch": {"max_num_batched_tokens": 16_384},
    "blocks of 32 tokens": {"block_size": 32},
    "16 GiB of keys and values in the machine's memory": {"kv_offloading_size": 16},
}
ON_CPU: dict[str, Arguments] = FASTER | {
    "blocks of 64 tokens": {"block_size": 64},
    "blocks of 128 tokens": {"block_size": 128},
}
"""Prompts are not fed in chunks on a CPU: see ``engines/vllm/settings.py``."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting. ``rate`` is completion tokens a second; None, with a reason, where vLLM did not run with it."""

    name: str
    arguments: Arguments
    rate: float | None = None
    reason: str = ""


class Playback(Engine):
    """Answers as a log does, and keeps what it was asked. The world is the same, so the prompts are."""

    def __init__(self, model: Model, info: RunInfo, tokenizer: object, steps: Sequence[StepRecord], stop: Stop) -> None:
        self.info, self.max_num_seqs, self.tokenizer = EngineInfo("playback", model.name), 1, tokenizer
        self.sampling_defaults = {name: value for name, value in info.sampling.items() if value is not None}
        self.context_length = int(info.made_with.get("context length") or 0) or None
        self.asked: Asked = []
        self._rest, self._stop = list(reversed(steps)), stop
        self._refusals = self._shortened()

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        if self._refusals:
            self._refusals -= 1
            raise PromptTooLong("as it was when this was recorded")
        step = self._rest.pop()
        self.asked.append((list(prompt.token_ids), params))
        self._refusals = self._shortened()
        if not self._rest:
            self._stop.request("the log ends")
        finish_reason = cast(FinishReason, step.finish_reason)
        return Completion(
            step.completion, finish_reason, step.prompt_tokens, step.completion_tokens, reasoning=step.reasoning
        )

    def _shortened(self) -> int:
        return (self._rest[-1].shortened or 0) if self._rest else 0


def recorded(results: Results, name: str | None, runs: int, steps: int) -> tuple[Model, list[Asked]]:
    """The model, and what its longest episodes asked in their last steps.

    Args:
        name: of the model; None where the folder has runs of one only.
        runs, steps: as many, at most.

    Raises:
        UsageError: there are none with two steps, or of several models.
    """
    infos = [info for run_id in results.run_ids() if (info := results.info(run_id)) is not None]
    names = sorted({model_name(info.parameters) for info in infos})
    if name is None and len(names) > 1:
        raise UsageError(f"{results.root} has runs of several models: choose one with --model ({', '.join(names)})")
    chosen = [info for info in infos if model_name(info.parameters) == (name or names[0])]
    chosen.sort(key=lambda info: _size(results, info), reverse=True)
    found = [(spec, asked) for info in chosen[:runs] for spec, asked in [_asked(results, info)] if len(asked) > 1]
    if not found:
        raise UsageError(f"{results.root} has no run of {name or 'a model'} with two steps: pilot it first")
    return found[0][0].config().agent.model, [asked[-steps:] for _, asked in found]


def _size(results: Results, info: RunInfo) -> int:
    log = results.run(info.run_id).steps
    return log.stat().st_size if log.exists() else 0


def _asked(results: Results, info: RunInfo) -> tuple[RunSpec, Asked]:
    """Plays a run's log into a fresh episode, up to where its world would answer otherwise."""
    spec = RunSpec(info.run_id, info.parameters, info.seed, info.replication)
    steps = list(read_steps(results.run(info.run_id).steps))
    if not steps:
        return spec, []
    stop, model = Stop(), spec.config().agent.model
    playback = Playback(model, info, load_tokenizer(model), steps, stop)
    with tempfile.TemporaryDirectory() as folder:
        there = Results(Path(folder))
        there.create()
        asyncio.run(Episode(spec, there.run(spec.run_id), playback, Counters()).run(stop))
    return spec, playback.asked


async def tune(
    model: Model, conversations: Sequence[Asked], found: Capabilities, say: Callable[[str], None]
) -> list[Trial]:
    """Measures vLLM's own settings, each argument alone, those that help together, and its own settings again.

    Returns:
        All trials in this order; the first and the last are vLLM as it is.
    """
    tried = ON_GPU if found.gpus.devices else ON_CPU

    async def trial(name: str, arguments: Arguments) -> Trial:
        say(f"[*] Measuring vLLM with {name}")
        try:
            rate = await _rate(model, arguments, conversations, found)
        except VendoMiniError as exc:
            say(f"    not measured: {exc}")
            return Trial(name, arguments, reason=str(exc))
        say(f"    {rate:.1f} tokens/s")
        return Trial(name, arguments, rate)

    trials = [await trial("its own settings", {})]
    if trials[0].rate is None:
        raise UsageError(f"vLLM does not run this model here: {trials[0].reason}")
    trials += [await trial(name, arguments) for name, arguments in tried.items()]
    helpful = _without_conflicts([one for one in trials[1:] if (one.rate or 0) > GAIN * trials[0].rate])
    if len(helpful) > 1:
        together = {key: value for one in helpful for key, value in one.arguments.items()}
        trials.append(await trial(" and ".join(one.name for one in helpful), together))
    return [*trials, await trial("its own settings, again", {})]


def _without_conflicts(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, with only the fastest of several values of one argument."""
    kept: dict[str, Trial] = {}
    for one in sorted(trials, key=lambda one: one.rate or 0):
        kept["".join(one.arguments)] = one
    return list(kept.values())


def best(trials: Sequence[Trial]) -> Trial | None:
    """The fastest, if it is faster than vLLM's own settings were at either time, by ``GAIN`` at least."""
    fastest = max((one for one in trials if one.arguments), key=lambda one: one.rate or 0)
    return fastest if gain(trials, fastest) > GAIN else None


def gain(trials: Sequence[Trial], one: Trial) -> float:
    """The gain over the better of the two measurements of vLLM's own settings."""
    return (one.rate or 0) / max(own.rate or 0 for own in trials if not own.arguments)


async def _rate(model: Model, arguments: Arguments, conversations: Sequence[Asked], found: Capabilities) -> float:
    """Completion tokens a second, all conversations at once, after a first step that fills the cache."""
    from vendomini.engines.vllm.engine import VllmEngine

    config = EngineConfig(backend="vllm", max_num_seqs=len(conversations), engine_args=arguments)
    async with VllmEngine(model, config, found, lambda _: None) as engine:
        prompts = [Conversation() for _ in conversations]

        async def ask(prompt: Conversation, asked: Asked) -> int:
            tokens = 0
            for ids, params in asked:
                prompt.token_ids = ids
                tokens += (await engine.generate(prompt, params)).completion_tokens
            return tokens

        await asyncio.gather(*(ask(prompt, asked[:1]) for prompt, asked in zip(prompts, conversations, strict=True)))
        began = time.perf_counter()
        tokens = await asyncio.gather(
            *(ask(prompt, asked[1:]) for prompt, asked in zip(prompts, conversations, strict=True))
        )
        return sum(tokens) / (time.perf_counter() - began)


def markdown(trials: Sequence[Trial]) -> str:
    own = trials[0].rate or 0
    rows = [
        f"| {one.name} | not measured: {one.reason} | |"
        if one.rate is None
        else f"| {one.name} | {one.rate:.1f} | {one.rate / own:.2f} |"
        for one in trials
    ]
    return "\n".join(["| vLLM with | tokens/s | ratio |", "|---|---|---|", *rows])


def as_yaml(model: Model, chosen: Trial, gain: float, source: str, found: Capabilities) -> str:
    """A file that a phase can inherit in place of ``base.yaml``."""
    import yaml

    where = found.gpus.devices[0].name if found.gpus.devices else "a CPU"
    today = datetime.now(UTC).date().isoformat()
    entry = {"models": {model.name: {"engine.engine_args": chosen.arguments}}}
    return (
        f"# {chosen.name}: {gain:.2f} times the tokens per second of vLLM's own settings, on prompts of {source}.\n"
        f"# {today}, vLLM {found.package('vllm').version}, {where}. A phase uses it with `inherit:` and its name.\n"
        f"inherit: base.yaml\n{yaml.safe_dump(entry, sort_keys=False)}"
    )
