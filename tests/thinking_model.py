"""A model that thinks: its weights are a chain of tokens, so that it says what it is told to say, through any engine.

Attention and feed-forward layers add nothing, embeddings are nearly orthogonal, and the output layer maps each link's
embedding to the next link. A link is a token of its own, however long its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from tests.tiny_model import make_tokenizer, open_with

DRAFT = '{"thought":"draft","tool":"tool_check_budget","arguments":{},"prediction":null}'
ANSWER = '{"thought":"t","tool":"tool_end_day","arguments":{}}'
HIDDEN = 256


def make_thinking_model(
    folder: Path,
    links: Sequence[str],
    *,
    opening: str = "",
    loop: str = "",
    known: Sequence[str] = (),
    also: Sequence[Sequence[str]] = (),
) -> Path:
    """Writes a model that answers every prompt with these links and then ends.

    Args:
        links: what it says, a token each.
        opening: what its template puts behind the assistant's label.
        loop: a link that is followed by itself for ever.
        known: more special tokens of its vocabulary.
        also: further chains, each said to a prompt that ends with its first link.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(600)
    tokenizer.add_tokens(sorted({*links, *known, opening, *chain.from_iterable(also)} - {""}), special_tokens=True)
    open_with(tokenizer, opening)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], add_generation_prompt=True, return_dict=False
    )
    chains = [[prompt[-1], *tokenizer.convert_tokens_to_ids(links)], *map(tokenizer.convert_tokens_to_ids, also)]
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=HIDDEN, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=16_384, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        _embed(model)
        following = {pair for said in chains for pair in pairwise([*said, tokenizer.eos_token_id])}
        _chain(model, following, tokenizer.convert_tokens_to_ids(loop) if loop else None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _embed(model: Any) -> None:
    import torch

    embeddings = torch.randn(model.config.vocab_size, HIDDEN, generator=torch.Generator().manual_seed(0))
    model.model.embed_tokens.weight.copy_(torch.nn.functional.normalize(embeddings))
    model.lm_head.weight.zero_()
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()


def _chain(model: Any, pairs: Iterable[tuple[int, int]], loop: int | None) -> None:
    for token, following in pairs:
        model.lm_head.weight[token if token == loop else following] += model.model.embed_tokens.weight[token]
