"""Rows of a batch that lie apart in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vendomini.config.schema import EngineConfig, Model
from vendomini.engines.hf.forward import Forward
from vendomini.engines.hf.model import load
from vendomini.probe import Capabilities


@pytest.mark.parametrize("new", [1, 3])
def test_rows_that_lie_apart_are_computed_as_if_alone(tiny: Path, here: Capabilities, new: int) -> None:
    """Their keys are copied together for the step; reading them from the wrong row would change the logits."""
    model = Model(name=str(tiny), dtype="float32", context_length=512, max_tokens=64)
    loaded = load(model, EngineConfig(), here)
    forward = Forward(loaded, slots=8, limit=64)
    texts = {0: [(7 * n) % 97 + 3 for n in range(20)], 7: [(11 * n) % 89 + 5 for n in range(20)]}
    with torch.inference_mode():
        for slot, ids in texts.items():
            forward([(slot, ids[:-new], 0)])
        together = forward([(slot, ids[-new:], 20 - new) for slot, ids in texts.items()])
        alone = [loaded.model(torch.tensor([ids]), use_cache=False).logits[0, -1] for ids in texts.values()]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-5)
