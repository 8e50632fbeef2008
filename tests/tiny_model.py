"""A real Hugging Face model, made on the spot: random weights, a byte-level BPE trained here, a chat template.

It says nothing sensible, but it is loaded, tokenised, batched and sampled as any other model is, and costs a second.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def corpus() -> list[str]:
    """Text like that of an episode, so that its tokens are longer than a byte."""
    tools = ["tool_order", "tool_quote", "tool_check_inbox", "tool_ship_customer_order", "tool_end_day"]
    lines = [
        json.dumps(
            {"thought": f"day {n}, stock is low", "tool": tools[n % 5], "arguments": {"sku": f"SKU{n % 25:02d}"}}
        )
        for n in range(200)
    ]
    words = "The warehouse orders supplies, predicts the delivery day, cost and storage, and ships customer orders."
    return [*lines, *[f"OBSERVATION {line}" for line in lines], *[words] * 50]


def make_tokenizer(vocab: int) -> Any:
    """A fast tokenizer with special tokens for the four roles and the end of a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>", chat_template=CHAT_TEMPLATE
    )


def open_with(tokenizer: Any, opening: str) -> None:
    """Makes its template put this behind the assistant's label."""
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<|assistant|>\n{% endif %}", f"<|assistant|>\n{opening}{{% endif %}}"
    )


def make_character_tokenizer(vocab: int) -> Any:
    """One character a token, so that any answer, even of random weights, encodes to the very tokens it came from, as a
    trained model's answers nearly do."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    characters = [chr(0x4E00 + number) for number in range(vocab - len(SPECIAL_TOKENS))]
    tokens = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *characters])}
    single = Tokenizer(models.BPE(tokens, []))
    single.add_special_tokens(SPECIAL_TOKENS)
    single.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=single, pad_token="<|pad|>", eos_token="<|end|>")


def make_tiny_model(
    folder: Path,
    *,
    tokenizer: Any = None,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 2,
    kv_heads: int | None = None,
    vocab: int = 512,
    context: int = 4096,
    dtype: str = "float32",
    seed: int = 0,
) -> Path:
    """Writes a random Llama and its tokenizer into ``folder`` and returns the folder.

    Args:
        tokenizer: else one is trained.
        hidden, heads: vLLM has kernels for heads of 32 dimensions and more only.
        vocab: size of the tokenizer's vocabulary at most; the model's own is what the training reached.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or make_tokenizer(vocab)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads or heads,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    finally:
        torch.random.set_rng_state(state)
    tokenizer.save_pretrained(folder)
    return folder
