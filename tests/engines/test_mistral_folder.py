"""A folder as Mistral ships it: beside the ordinary tokenizer lies ``tekken.json``, which has no chat template."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tiny_model import make_tiny_model
from vendomini.config.schema import Model
from vendomini.engines.hf.model import load_tokenizer


def test_the_ordinary_tokenizer_is_taken(tmp_path: Path) -> None:
    data = Path(pytest.importorskip("mistral_common").__file__).parent / "data"
    folder = make_tiny_model(tmp_path)
    shutil.copy(data / "tekken_240911.json", folder / "tekken.json")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"model_type": "llama"', '"model_type": "mistral"'))
    tokenizer = load_tokenizer(Model(name=str(folder)))
    assert tokenizer.chat_template is not None
    assert len(tokenizer) < 1000
