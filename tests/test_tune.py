"""Tuning on recorded episodes: the work is theirs, and only what helps is written down. (vLLM itself takes minutes.)"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.engines.conftest import machine
from tests.tiny_model import make_tiny_model
from vendomini.config import expand, load_config
from vendomini.config.schema import EngineConfig
from vendomini.engines.base import Completion, SamplingParams
from vendomini.engines.hf.engine import HuggingFaceEngine
from vendomini.errors import UsageError
from vendomini.records import Results
from vendomini.runner import Counters, Stop
from vendomini.runner.episode import Episode
from vendomini.tune import Trial, _without_conflicts, as_yaml, best, gain, markdown, recorded


class Recording(HuggingFaceEngine):
    asked: dict[int, list[tuple[list[int], SamplingParams]]]

    async def generate(self, prompt, params) -> Completion:
        self.asked.setdefault(id(prompt), []).append((list(prompt.token_ids), params))
        return await super().generate(prompt, params)


def test_the_prompts_are_those_that_the_episodes_asked(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", context=8192)
    overrides = [
        f"agent.model.name={folder}", "agent.model.context_length=8192", "agent.model.max_tokens=8",
        "simulation.max_steps=4", "experiment.replications=2", "crash_detector.continue_after_crash=9",
    ]  # fmt: skip
    specs = list(expand(load_config("configs/base.yaml", overrides)))
    results = Results(tmp_path / "results")
    results.create()
    engine = Recording(specs[0].config().agent.model, EngineConfig(max_num_seqs=2), machine(), print)
    engine.asked = {}

    async def run() -> None:
        async with engine:
            episodes = [Episode(spec, results.run(spec.run_id), engine, Counters()) for spec in specs]
            await asyncio.gather(*(episode.run(Stop()) for episode in episodes))

    asyncio.run(run())
    model, asked = recorded(results, None, runs=2, steps=3)
    assert model.name == str(folder)
    wanted = sorted([(ids, p.seed, p.max_tokens) for ids, p in steps[-3:]] for steps in engine.asked.values())
    assert sorted([(ids, p.seed, p.max_tokens) for ids, p in steps] for steps in asked) == wanted
    assert len(recorded(results, None, runs=1, steps=9)[1][0]) == 4
    with pytest.raises(UsageError, match="has no run of other/model with two steps"):
        recorded(results, "other/model", runs=2, steps=3)


OWN = Trial("its own settings", {}, 100.0)


def test_what_helps_less_than_the_machine_wavers_is_not_chosen() -> None:
    fast = Trial("blocks", {"block_size": 64}, 110.0)
    assert best([OWN, fast, Trial("again", {}, 99.0)]) == fast
    assert gain([OWN, fast, Trial("again", {}, 104.0)], fast) == pytest.approx(110 / 104)
    assert best([OWN, fast, Trial("again", {}, 108.0)]) is None
    assert best([OWN, Trial("fp8", {"kv_cache_dtype": "fp8"}, reason="it did not start"), OWN]) is None


def test_of_two_values_of_one_argument_the_faster_is_combined() -> None:
    trials = [Trial(str(size), {"block_size": size}, rate) for size, rate in ((64, 130.0), (128, 120.0))]
    other = Trial("fp8", {"kv_cache_dtype": "fp8"}, 110.0)
    assert {one.name for one in _without_conflicts([*trials, other])} == {"64", "fp8"}


def test_a_phase_inherits_the_file(tmp_path: Path) -> None:
    model = load_config("configs/demo_model.yaml").base["agent"]["model"]["name"]
    chosen = Trial(
        "n-gram speculation", {"speculative_config": {"method": "ngram", "num_speculative_tokens": 4}}, 120.0
    )
    spec = next(expand(load_config("configs/demo_model.yaml"))).config().agent.model
    (tmp_path / "tuned.yaml").write_text(as_yaml(spec, chosen, 1.2, "results/x", machine()))
    (tmp_path / "mine.yaml").write_text(f"inherit: tuned.yaml\ngrid:\n  agent.model.name: [{model}]\n")
    phase = load_config(tmp_path / "mine.yaml")
    assert phase.engines[str(model)].engine_args == chosen.arguments


def test_the_table_has_every_trial() -> None:
    table = markdown([OWN, Trial("fp8", {"a": 1}, reason="no kernel"), Trial("blocks", {"b": 1}, 125.0)])
    assert table.splitlines()[2:] == [
        "| its own settings | 100.0 | 1.00 |",
        "| fp8 | not measured: no kernel | |",
        "| blocks | 125.0 | 1.25 |",
    ]
