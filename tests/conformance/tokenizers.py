"""Tokenizers of the kinds that models have, made on the spot."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from tests.tiny_model import corpus, make_tokenizer


def byte_level(special: list[str]) -> Any:
    """As of GPT-2, Llama 3 and Qwen: bytes, merged inside words."""
    return _with(_byte_level(), special)


def sentence_piece(special: list[str]) -> Any:
    """As of Llama 2 and Mistral: spaces are letters, and a text begins with one."""
    return _with(_sentence_piece(), special)


TOKENIZERS = {"byte-level": byte_level, "SentencePiece": sentence_piece}


def _with(tokenizer: Any, special: list[str]) -> Any:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": special, "bos_token": "<s>", "eos_token": "</s>"})
    return tokenizer


@cache
def _byte_level() -> Any:
    return make_tokenizer(2000)


@cache
def _sentence_piece() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    piece = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    piece.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    piece.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<unk>", *bytes_], show_progress=False)
    piece.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=piece, unk_token="<unk>")
