"""How fast the engines are, each figure as a ratio of two measurements of one run.

    python benchmarks/engines.py throughput    tokens a second, against the original's way
    python benchmarks/engines.py runner        whole episodes, against the bare engine on the same token ids
    python benchmarks/engines.py cache         share of the prompt served from the cache in a long episode
    python benchmarks/engines.py tokenise      cost of a step's prompt at short and long histories
    python benchmarks/engines.py decode        the Hugging Face engine's decoding, against plain batched generate
    python benchmarks/engines.py batching      whole conversations on it, against Transformers' own continuous batching

The first three take --backend hf or vllm. Weights are in bfloat16 where this CPU computes in it, else in float32: a CPU
that must convert them at every step takes minutes for what others do in seconds.

The model is made on the spot: a Llama with random weights. What it says makes no sense and takes as long as
sense would. ``decode`` and ``batching`` take the trained model of the tests, SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.gpu import engines as tasks
from benchmarks.gpu.plan import Plan
from tests.tiny_model import make_character_tokenizer, make_tiny_model, make_tokenizer, open_with
from tests.trained_model import trained_model
from vendomini.agent import History, history
from vendomini.bench import Conversation, converse, together
from vendomini.config import expand, load_config
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines import Completion, Engine, SamplingParams
from vendomini.engines.hf.engine import HuggingFaceEngine
from vendomini.engines.hf.model import LoadedModel
from vendomini.engines.resolve import start_engine
from vendomini.probe import probe
from vendomini.records import Results
from vendomini.runner import Counters, Stop
from vendomini.runner.episode import Episode

CONVERSATIONS, TURNS, ADDED, NEW = 16, 6, 150, 48
"""The bare workload: conversations, turns of each, prompt tokens that a turn adds, tokens that it asks for."""

BFLOAT16 = bool((here := probe()).gpus.devices or here.bfloat16)
"""Whether this machine has instructions for it."""

CONTEXT = 8192
"""Tokens that each conversation may have: an engine that can't hold all of them at once keeps none of them."""

RULES = "Run the warehouse: order, ship, and answer with one JSON object. " * 40
OBSERVATION = 'OBSERVATION {"step": %d, "actions_left_today": 3, "budget": 1234.5, "open_orders": 4}'

DECODE_CONTEXT = 1700
"""Tokens that each row holds while it is decoded."""


def elsewhere(function: Callable[..., Any], *arguments: object) -> Any:
    """Calls it in a process of its own: what computes here slows an engine here (see ``HuggingFaceEngine.start``)."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def model_of_87m(folder: Path, one_character_a_token: bool, thoughts: bool = False) -> Path:
    """A model made on the spot, of 87 million parameters.

    Args:
        thoughts: its template begins every answer with one.
    """
    tokenizer = make_character_tokenizer(2000) if one_character_a_token else make_tokenizer(2000)
    if thoughts:
        tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
        open_with(tokenizer, "<think>")
    shape = {"hidden": 768, "layers": 12, "heads": 12, "vocab": 2000, "context": 16384}
    shape["dtype"] = "bfloat16" if BFLOAT16 else "float32"
    return make_tiny_model(folder, tokenizer=tokenizer, **shape)


# ------------------------------------------------------------------------------------- bare workload


async def bare(engine: Engine, first: int) -> tuple[float, float]:
    """Completion tokens a second with all conversations at once, and the share of prompt tokens that was cached.

    Args:
        first: number of the first conversation; what was said before stays in the engine's cache.
    """
    if engine.max_num_seqs < CONVERSATIONS:
        sys.exit(f"memory for {engine.max_num_seqs} of {CONVERSATIONS} conversations: they would evict each other")
    rate, answers = await together(
        converse(engine, turns_of(number), NEW, number * 100, 0.7) for number in range(first, first + CONVERSATIONS)
    )
    return rate, sum(answer.cached_tokens for answer in answers) / sum(answer.prompt_tokens for answer in answers)


def turns_of(number: int) -> list[list[int]]:
    generator = random.Random(number)
    return [[generator.randrange(5, 400) for _ in range(ADDED)] for _ in range(TURNS)]


def original_way(folder: Path, number: int) -> float:
    """Completion tokens a second, one conversation at a time, the whole history prefilled at every turn."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if BFLOAT16 else torch.float32).eval()
    generator, ids, tokens, began = random.Random(number), [], 0, time.perf_counter()
    for _ in range(TURNS):
        prompt = torch.tensor([ids + [generator.randrange(5, 400) for _ in range(ADDED)]])
        mask = torch.ones_like(prompt)
        with torch.inference_mode():
            output = model.generate(prompt, attention_mask=mask, max_new_tokens=NEW, do_sample=True, temperature=0.7)
        tokens += output.shape[1] - prompt.shape[1]
        ids = output[0].tolist()
    return tokens / (time.perf_counter() - began)


# -------------------------------------------------------------------------------- through the runner


class Recorder(Engine):
    """Passes everything on, and remembers what was asked by whom, and how long it was asked nothing.

    Attributes:
        between: seconds from each answer to its conversation's next request; from the start, for the first.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.info, self.max_num_seqs = engine.info, engine.max_num_seqs
        self.tokenizer, self.context_length = engine.tokenizer, engine.context_length
        self.asked: dict[int, list[tuple[list[int], SamplingParams]]] = {}
        self.keep: list[object] = []
        self.between = 0.0
        self._began = time.perf_counter()
        self._answered: dict[int, float] = {}

    async def generate(self, prompt, params: SamplingParams) -> Completion:
        if id(prompt) not in self.asked:
            self.keep.append(prompt)
        self.asked.setdefault(id(prompt), []).append((list(prompt.token_ids), params))
        self.between += time.perf_counter() - self._answered.get(id(prompt), self._began)
        answer = await self._engine.generate(prompt, params)
        self._answered[id(prompt)] = time.perf_counter()
        return answer


def specs_of(folder: Path, episodes: int, steps: int, **values: object) -> list:
    overrides = [
        f"agent.model.name={folder}",
        f"simulation.max_steps={steps}",
        f"experiment.replications={episodes}",
        "crash_detector.continue_after_crash=1000000",
        "demand.max_failures=1000000",
        "simulation.initial_budget=1000000",
        *(f"{key.replace('__', '.')}={value}" for key, value in values.items()),
    ]
    return list(expand(load_config("configs/base.yaml", overrides)))


async def episodes_on(engine: Engine, specs: list) -> tuple[float, float]:
    """Completion tokens a second of whole episodes, all at once, with world, measures and logs on disk; and the
    seconds that took."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder))
        results.create()
        began = time.perf_counter()
        runs = [Episode(spec, results.run(spec.run_id), engine, Counters()) for spec in specs]
        summaries = await asyncio.gather(*(run.run(Stop()) for run in runs))
        seconds = time.perf_counter() - began
    return sum(summary.completion_tokens for summary in summaries) / seconds, seconds


async def replay(engine: Engine, asked: dict[int, list[tuple[list[int], SamplingParams]]]) -> float:
    """Completion tokens a second of the bare engine, fed the same token ids in the same order within each episode."""

    async def one(steps: list[tuple[list[int], SamplingParams]]) -> list[Completion]:
        prompt, answers = Conversation(), []
        for ids, params in steps:
            prompt.token_ids = ids
            answers.append(await engine.generate(prompt, params))
        return answers

    return (await together(one(steps) for steps in asked.values()))[0]


# ---------------------------------------------------------------------------------------- the figures


async def throughput(backend: str, rounds: int) -> None:
    """The engine and the original's way in turns, so that a machine whose speed drifts is the same for both."""
    with tempfile.TemporaryDirectory() as name:
        folder = elsewhere(model_of_87m, Path(name), True)
        model, config, _ = setting(folder, backend)
        print(
            f"{backend}, {CONVERSATIONS} conversations, {TURNS} turns of +{ADDED} prompt, {NEW} new tokens;"
            " the original way: Transformers, one at a time, re-prefill"
        )
        ratios = []
        async with await start_engine(model, config) as engine:
            await bare(engine, 10_000)
            for number in range(rounds):
                before, (rate, cached), after = (
                    elsewhere(original_way, folder, 2 * number),
                    await bare(engine, 100 * number),
                    elsewhere(original_way, folder, 2 * number + 1),
                )
                ratios.append(rate / ((before + after) / 2))
                print(
                    f"  engine {rate:6.1f} tokens/s, {cached:.0%} of the prompts cached;"
                    f" the original way {before:5.1f} before, {after:5.1f} after; ratio {ratios[-1]:.1f}"
                )
        print(f"  ratio, median of {rounds} rounds: {statistics.median(ratios):.1f}")


async def runner_share(backend: str, rounds: int, structured: bool, thoughts: bool) -> None:
    """Whole episodes, and the bare engine on the same token ids, in turns, each first in every other round; both on an
    engine that is empty but warm."""
    with tempfile.TemporaryDirectory() as name:
        folder = elsewhere(model_of_87m, Path(name), False, thoughts)
        model, config, specs = setting(folder, backend, structured, thoughts)
        rates: dict[str, list[float]] = {"through the runner": [], "the bare engine": []}
        asked: dict[int, list[tuple[list[int], SamplingParams]]] = {}
        for number in range(rounds):
            for what in list(rates)[:: 1 if number % 2 == 0 else -1]:
                async with await start_engine(model, config) as engine:
                    await warm(engine)
                    if what == "the bare engine":
                        rate, between = await replay(engine, asked), ""
                    else:
                        rate, seconds = await episodes_on(recorder := Recorder(engine), specs)
                        asked = recorder.asked
                        share = recorder.between / (seconds * len(specs))
                        between = f", {share:.2%} of the time between an answer and the next request"
                rates[what].append(rate)
                print(f"  {backend}, {what} {rate:.1f} tokens/s{between}")
        through, alone = map(statistics.median, rates.values())
        print(f"  ratio of the medians of {rounds} rounds: {through / alone:.3f}")


async def warm(engine: Engine) -> None:
    """What is compiled for a first answer is compiled."""
    await together(converse(engine, turns_of(number)[:1], NEW, number, 0.7) for number in range(CONVERSATIONS))


def setting(
    folder: Path, backend: str, structured: bool = False, thoughts: bool = False
) -> tuple[Model, EngineConfig, list]:
    """The model, the engine's config, and as many short episodes as there are conversations."""
    values: dict[str, object] = {"agent__model__max_tokens": NEW, "agent__model__context_length": CONTEXT}
    values["agent__interface__structured_output"] = str(structured).lower()
    if thoughts:  # half of the tokens
        values |= {"agent__model__max_thinking_tokens": NEW // 2, "agent__model__max_tokens": NEW // 2}
    specs = specs_of(folder, CONVERSATIONS, 4, **values)
    return specs[0].config().agent.model, EngineConfig(backend=backend, max_num_seqs=CONVERSATIONS), specs


async def cache_share(backend: str) -> None:
    """300 turns in a context that is full several times over: cut in chunks, and slid at every turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = make_tiny_model(Path(name), vocab=2000, context=16384)
        model = Model(name=str(folder), context_length=8192, max_tokens=64)
        for label, keep in (("cut in chunks", history.KEEP), ("slid at every turn", 1.0)):
            history.KEEP = keep
            async with await start_engine(model, EngineConfig(backend=backend, max_num_seqs=1)) as engine:
                talk = History(RULES, context_length=8192, max_tokens=64, tokenizer=engine.tokenizer)
                said = [await one_turn(engine, talk, turn) for turn in range(300)]
            share = sum(one.cached_tokens or 0 for one in said) / sum(one.prompt_tokens for one in said)
            print(f"  {engine.info.backend}, {label}: {share:.1%} of the prompt tokens cached")


async def one_turn(engine: Engine, talk: History, turn: int) -> Completion:
    talk.add_user(OBSERVATION % turn)
    said = await engine.generate(talk, SamplingParams(64, seed=turn))
    talk.add_assistant(said.text)
    return said


def tokenise() -> None:
    """Microseconds to add one turn, at the beginning of a conversation and after a thousand turns."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as name:
        tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(Path(name), vocab=2000))
    kept = History("system", context_length=1_000_000, max_tokens=64, tokenizer=tokenizer)
    costs = []
    for turn in range(1000):
        began = time.perf_counter()
        kept.add_user(OBSERVATION % turn)
        kept.add_assistant('{"thought": "wait", "tool": "tool_end_day", "arguments": {}}')
        costs.append(time.perf_counter() - began)
    early, late = (sorted(part)[len(part) // 2] * 1e6 for part in (costs[:100], costs[-100:]))
    print(f"  first 100 turns {early:.0f} µs, turns 900 to 1000 {late:.0f} µs ({len(kept.token_ids)} tokens), ", end="")
    print(f"ratio {late / early:.2f}")


async def decode(rounds: int, dtypes: Sequence[str], context: int) -> None:
    """Processor time of a decoded token, in turns; rows of equal length, so that ``generate`` has no padding."""
    for dtype, rows in itertools.product(dtypes, (1, 4)):
        model = Model(name=str(trained_model()), dtype=dtype, context_length=context + 2 * NEW, max_tokens=NEW)
        async with await start_engine(model, EngineConfig(backend="hf", max_num_seqs=rows)) as engine:
            prompts = [[(7 * i + 13 * row) % 1000 + 100 for i in range(context)] for row in range(rows)]
            conversations = [Conversation() for _ in prompts]
            for conversation, prompt in zip(conversations, prompts, strict=True):
                conversation.token_ids = prompt
            ours, plain, kept = [], [], await asyncio.to_thread(prefilled, engine.loaded, prompts)
            for _ in range(rounds + 1):
                ours.append(await decoded_by_engine(engine, conversations))
                plain.append(await asyncio.to_thread(decoded_by_generate, engine.loaded, *kept))
            ratios = [theirs / mine for mine, theirs in zip(ours[1:], plain[1:], strict=True)]  # the first prefills
            print(
                f"  {dtype}, {rows} rows of {context} tokens: ours {statistics.median(ours[1:]):.1f} ms a step,"
                f" generate {statistics.median(plain[1:]):.1f}; generate over ours, median of {rounds} rounds:"
                f" {statistics.median(ratios):.2f}"
            )


async def decoded_by_engine(engine: HuggingFaceEngine, conversations: list[Conversation]) -> float:
    """Milliseconds of processor time for a step, all rows at once; their prompts are cached from the second call on."""
    params = SamplingParams(max_tokens=NEW, temperature=0)
    began = time.process_time()
    answers = await asyncio.gather(*(engine.generate(one, params) for one in conversations))
    return (time.process_time() - began) * 1000 / max(answer.completion_tokens for answer in answers)


GREEDY = {"do_sample": False, "pad_token_id": 0}


def prefilled(loaded: LoadedModel, prompts: list[list[int]]) -> tuple[Any, Any]:
    """Prompts with a first answer token each, ``[rows, context + 1]``, and the cache of the prompts."""
    import torch

    ids = torch.tensor(prompts)
    with torch.inference_mode():
        first = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, return_dict_in_generate=True, **GREEDY
        )
    return first.sequences, first.past_key_values


def decoded_by_generate(loaded: LoadedModel, ids: Any, cache: Any) -> float:
    import torch

    with torch.inference_mode():
        began = time.process_time()
        out = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), past_key_values=cache, max_new_tokens=NEW, **GREEDY
        )
        took = time.process_time() - began
        cache.crop(ids.shape[1] - 1 - cache.get_seq_length())
    return took * 1000 / (out.shape[1] - ids.shape[1])


def batching(rounds: int, dtypes: Sequence[str]) -> None:
    """Processor time of a new token in conversations of several turns, in turns, each in a process of its own."""
    folder = trained_model()
    for dtype in dtypes:
        shape = {"dtype": dtype, "vocab": 49_000}
        plan = Plan("cpu", shape=shape, conversations=8, turns=4, added=150, new=32)
        ratios = []
        for _ in range(rounds):
            mine, theirs = (elsewhere(task, plan, folder)["cpu_ms"] for task in (tasks.ours, tasks.continuous))
            ratios.append(theirs / mine)
            print(f"  {dtype}: ours {mine:.1f} ms a token, continuous batching {theirs:.1f}; ratio {ratios[-1]:.2f}")
        print(f"  {dtype}, theirs over ours, median of {rounds} rounds: {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "runner", "cache", "tokenise", "decode", "batching"])
    parser.add_argument("--backend", default="hf", choices=["hf", "vllm"])
    parser.add_argument("--rounds", type=int, default=3, help="of all but cache and tokenise")
    parser.add_argument("--structured", action="store_true", help="runner: replies held to their JSON schema")
    parser.add_argument("--thoughts", action="store_true", help="runner: replies begin with a thought")
    parser.add_argument("--context", type=int, default=DECODE_CONTEXT, help="tokens of each row of decode")
    dtypes = ["float32", "bfloat16"] if BFLOAT16 else ["float32"]
    parser.add_argument("--dtype", nargs="+", default=dtypes, help="of decode and batching")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers")))
    if arguments.what == "tokenise":
        tokenise()
    elif arguments.what == "decode":
        asyncio.run(decode(arguments.rounds, arguments.dtype, arguments.context))
    elif arguments.what == "batching":
        batching(arguments.rounds, arguments.dtype)
    elif arguments.what == "cache":
        asyncio.run(cache_share(arguments.backend))
    elif arguments.what == "runner":
        asyncio.run(runner_share(arguments.backend, arguments.rounds, arguments.structured, arguments.thoughts))
    else:
        asyncio.run(throughput(arguments.backend, arguments.rounds))


if __name__ == "__main__":
    main()
