"""Mistral's own tokenizers: the tokens of a conversation are those of mistral-common, which uses no template."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mistral_common")

from tests.conformance import mistral

EQUAL = ("tokenizer.model.v1", "mistral_instruct_tokenizer_241114.model.v7")
RULES_IN_THE_LAST_TURN = ("mistral_instruct_tokenizer_240323.model.v3",)
"""mistral-common puts the rules into the last user turn, which would change every prompt from its beginning."""


@pytest.mark.parametrize("name", [*EQUAL, *RULES_IN_THE_LAST_TURN])
def test_prompts_have_its_tokens(name: str, tmp_path: Path) -> None:
    (file,) = [file for file in mistral.files() if file.name == name]
    expected = "equal" if name in EQUAL else "differs behind 1, 2 turns"
    assert mistral.verdict(file, tmp_path) == expected
