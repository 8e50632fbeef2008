"""Folders as Mistral ships them: with ``tekken.json`` beside the ordinary tokenizer, or with that as exported early."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import make_tiny_model
from vendomini.config.schema import Model
from vendomini.engines.hf.model import load_tokenizer

EARLY = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""How early exports split words: Llama 3's way."""
TEXT = '{"path": {"sku": "SKU09"},\n/x}'


def tekken() -> Path:
    return Path(pytest.importorskip("mistral_common").__file__).parent / "data" / "tekken_240911.json"


def test_the_ordinary_tokenizer_is_taken(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path)
    shutil.copy(tekken(), folder / "tekken.json")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"model_type": "llama"', '"model_type": "mistral"'))
    tokenizer = load_tokenizer(Model(name=str(folder)))
    assert tokenizer.chat_template is not None
    assert len(tokenizer) < 1000


def encoded(tokenizer: Any) -> list[int]:
    return list(tokenizer.encode(TEXT, add_special_tokens=False))


@pytest.mark.parametrize("version", ["4.50.0", "5.10.0"])
def test_a_tokenizer_that_an_early_export_splits_words_of_is_mended(version: str, tmp_path: Path) -> None:
    """The tokens are those of mistral-common itself. Transformers 5 has written the right rule."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

    own = MistralTokenizer.from_file(str(tekken())).instruct_tokenizer.tokenizer.encode(TEXT, bos=False, eos=False)
    tokenizer = convert_tekken_tokenizer(str(tekken()))
    assert encoded(tokenizer) == own
    if version.startswith("4"):
        split = pre_tokenizers.Split(Regex(EARLY), "isolated")
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        assert encoded(tokenizer) != own
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral", "transformers_version": version}))
    assert encoded(load_tokenizer(Model(name=str(tmp_path)))) == own
