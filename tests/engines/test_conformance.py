"""A few families of ``make conformance``, one for each way in which a model is unlike a Llama."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.architectures import examine, make_model
from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.hf.check import first_prompt
from vendomini.engines.hf.model import load
from vendomini.errors import EngineError
from vendomini.probe import Capabilities


@pytest.mark.parametrize(
    ("family", "verdict", "note"),
    [
        ("mistral3", "batched", ""),
        ("bloom", "one at a time", "keeping each conversation"),
        ("gpt_neo", "one at a time", "batching changes its answers"),
        ("phi3", "one at a time", "beyond 64 tokens its rotary factors depend on the longest row of a batch"),
        ("mamba", "one at a time", "computing each prompt anew"),
    ],
)
def test_a_family_answers_as_generate_does(family: str, verdict: str, note: str) -> None:
    outcome = examine(family)
    assert outcome.verdict == verdict, outcome.note
    assert note in outcome.note


def test_a_first_prompt_whose_logits_are_wrong_stops_the_engine_and_says_what_to_set(
    tmp_path: Path, here: Capabilities
) -> None:
    make_model("llama", tmp_path)
    loaded = load(Model(name=str(tmp_path), dtype="float32"), EngineConfig(), here)
    ids = loaded.some_tokens(20)
    import torch

    with torch.inference_mode():
        right = loaded.model(torch.tensor([ids])).logits[0, -1]
    first_prompt(loaded, ids, right)
    with pytest.raises(EngineError, match=r"of 20 tokens, are not those .* set engine\.attn_implementation to eager"):
        first_prompt(loaded, ids, right.flip(0))
