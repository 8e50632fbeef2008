"""Choosing tokens: what is left out, what is made less likely, and that it is what Transformers itself does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.engines.conftest import machine
from vendomini.config.schema import SAMPLING, Model
from vendomini.engines.base import SamplingParams
from vendomini.errors import EngineUnavailable
from vendomini.model_info import own_sampling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from vendomini.engines.hf.sampling import Held, penalise, sample  # noqa: E402

VOCABULARY = 40
WAYS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 10_000},
    {"top_p": 0.5},
    {"top_p": 1e-9},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"top_k": 20, "top_p": 0.95, "min_p": 0.05, "temperature": 0.6},
    {"top_k": 20, "top_p": 0.8, "temperature": 0.7, "repetition_penalty": 1.05},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
]


def logits_of(rows: int) -> Any:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(3)) * 3


def own_processors(way: dict[str, Any]) -> Any:
    """Transformers' own, as its ``generate`` lines them up."""
    made = transformers.LogitsProcessorList()
    if "repetition_penalty" in way:
        made.append(transformers.RepetitionPenaltyLogitsProcessor(way["repetition_penalty"]))
    if "temperature" in way:
        made.append(transformers.TemperatureLogitsWarper(way["temperature"]))
    if "top_k" in way:
        made.append(transformers.TopKLogitsWarper(way["top_k"]))
    if "top_p" in way:
        made.append(transformers.TopPLogitsWarper(way["top_p"]))
    if "min_p" in way:
        made.append(transformers.MinPLogitsWarper(way["min_p"]))
    return made


def test_probabilities_of_a_mixed_batch_are_those_of_transformers_row_by_row() -> None:
    """Each row's share of 2,000 evenly spaced draws is its probability, whatever its neighbours are sampled with."""
    logits, draws = logits_of(len(WAYS)), 2000
    prompt, said = [1, 2, 2, 3], [4, 4, 5]
    params = [SamplingParams(1, **({"temperature": 1.0} | way)) for way in WAYS]
    held = [Held(prompt, logits) for _ in WAYS]
    for row in held:
        for token in said:
            row.add(token)
    penalised = penalise(logits, params, held)
    drawn = [sample(penalised, params, [(n + 0.5) / draws] * len(WAYS)) for n in range(draws)]
    for row, way in enumerate(WAYS):
        scores = own_processors(way)(torch.tensor([prompt + said]), logits[row : row + 1].clone())
        expected = torch.softmax(scores[0], dim=-1)
        counts = Counter(tokens[row] for tokens in drawn)
        assert set(counts) <= set(expected.nonzero()[:, 0].tolist()), way
        for token, probability in enumerate(expected.tolist()):
            assert counts[token] / draws == pytest.approx(probability, abs=1.01 / draws), (way, token)


def test_what_a_row_draws_does_not_depend_on_how_its_neighbours_are_sampled() -> None:
    logits = logits_of(1).repeat(2, 1)
    for n in range(50):
        uniform = (n + 0.5) / 50
        (alone,) = sample(logits[:1], [SamplingParams(1)], [uniform])
        assert sample(logits, [SamplingParams(1), SamplingParams(1, top_k=3)], [uniform] * 2)[0] == alone


def test_presence_and_frequency_count_the_completion_and_not_the_prompt() -> None:
    logits = torch.zeros(1, VOCABULARY)
    held = Held([7, 7], logits)
    for token in (8, 9, 9):
        held.add(token)
    params = SamplingParams(1, presence_penalty=0.5, frequency_penalty=0.25)
    after = penalise(logits, [params], [held])[0]
    assert (after[7], after[8], after[9]) == (0.0, -0.75, -1.0)


def test_a_greedy_row_obeys_its_penalties_and_a_forbidden_token_stays_forbidden() -> None:
    logits = torch.tensor([[5.0, 4.0, float("-inf")]])
    params = SamplingParams(1, temperature=0, repetition_penalty=2.0, presence_penalty=-2.0)
    after = penalise(logits, [params], [Held([0, 2], logits)])
    assert sample(after, [params], [0.5]) == [1]
    assert after[0, 2] == float("-inf")


@pytest.mark.parametrize("temperature", [0.0, 1e-6, 1e-300])
def test_a_temperature_that_is_hardly_any_is_greedy(temperature: float) -> None:
    logits = logits_of(1)
    assert sample(logits, [SamplingParams(1, temperature)], [0.99]) == [int(logits.argmax())]


def said(folder: Path, text: str, **model: Any) -> dict[str, float]:
    (folder / "config.json").write_text("{}")
    (folder / "generation_config.json").write_text(text)
    return own_sampling(Model(name=str(folder), **model), machine())


def test_a_models_own_file_says_how_to_sample_it(tmp_path: Path) -> None:
    qwen3 = {"do_sample": True, "temperature": 0.6, "top_k": 20.0, "top_p": 0.95, "eos_token_id": [1, 2], "min_p": None}
    assert said(tmp_path, json.dumps(qwen3)) == {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
    assert said(tmp_path, '{"do_sample": false, "temperature": 0.7}') == {"temperature": 0.0}
    assert said(tmp_path, '{"top_k": -1}') == {"top_k": 0}
    (tmp_path / "generation_config.json").unlink()
    assert own_sampling(Model(name=str(tmp_path)), machine()) == {}


@pytest.mark.parametrize("text", ['{"top_k": "many"}', '{"top_k": 2.5}', '{"top_k": true}'])
def test_a_value_that_is_none_is_named_and_passed_over_where_the_config_has_its_own(tmp_path: Path, text: str) -> None:
    with pytest.raises(EngineUnavailable, match=r"generation_config\.json says top_k: .*: set agent\.model\.top_k$"):
        said(tmp_path, text)
    assert said(tmp_path, text, top_k=3) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '"top_k"'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(EngineUnavailable, match=r"generation_config\.json can't be read"):
        said(tmp_path, text)


def test_every_way_of_sampling_is_a_key_and_a_parameter() -> None:
    assert set(SAMPLING) <= set(Model.model_fields)
    assert set(SAMPLING) <= set(SamplingParams.__struct_fields__)
