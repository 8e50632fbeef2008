"""Mistral's own tokenizers, as mistral-common ships them, with the chat templates that it makes for them.

The prompts of a conversation are held against mistral-common's own encoding, which uses no template.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vendomini.agent import History
from vendomini.errors import ConfigError

TURNS = (("OBSERVATION one", '{"thought": "a", "tool": "b"}'), ("OBSERVATION two", '{"tool": "c", "n": [1, 2]}'))


def files() -> Iterator[Path]:
    import mistral_common

    data = Path(mistral_common.__file__).parent / "data"
    yield from sorted(file for file in data.iterdir() if ".model." in file.name or file.name.startswith("tekken"))


def verdict(file: Path, folder: Path) -> str:
    """``equal``, or what is not."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    tokenizer, own = as_transformers(file, folder), MistralTokenizer.from_file(str(file))
    try:
        history = History("You run a warehouse.", context_length=65_536, max_tokens=64, tokenizer=tokenizer)
    except ConfigError as exc:
        return f"refused: {exc}"
    unequal, messages = [], [{"role": "system", "content": "You run a warehouse."}]
    for turn, (user, answer) in enumerate([*TURNS, ("OBSERVATION three", "")]):
        history.add_user(user)
        messages.append({"role": "user", "content": user})
        if history.token_ids != own_tokens(own, messages):
            unequal.append(turn)
        history.add_assistant(answer)
        messages.append({"role": "assistant", "content": answer})
    return f"differs behind {', '.join(map(str, unequal))} turns" if unequal else "equal"


def own_tokens(own: Any, messages: list[dict[str, str]]) -> list[int]:
    from mistral_common.protocol.instruct.request import ChatCompletionRequest

    return list(own.encode_chat_completion(ChatCompletionRequest.from_openai(messages)).tokens)


def as_transformers(file: Path, folder: Path) -> Any:
    """A tokenizer of Transformers with the same vocabulary, and the template for it."""
    from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template
    from transformers import AutoTokenizer
    from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

    template = convert_tokenizer_to_chat_template(file)
    if file.name.startswith("tekken"):
        return convert_tekken_tokenizer(str(file), template)
    shutil.copy(file, folder / "tokenizer.model")
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "chat_template": template, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return AutoTokenizer.from_pretrained(folder)
