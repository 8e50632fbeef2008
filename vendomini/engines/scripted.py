"""The scripted engine: a control in the place of a model, speaking the same text."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from weakref import WeakKeyDictionary

from vendomini.config.schema import SCRIPTED_PREFIX
from vendomini.engines.base import Completion, Engine, EngineInfo, Prompt, SamplingParams
from vendomini.errors import EngineUnavailable
from vendomini.worlds.vending.controls import CONTROLS, View, fold

CHARACTERS_PER_TOKEN = 4
"""There is no tokenizer: token counts are characters divided by this, an estimate for English and JSON."""


@dataclass(slots=True)
class _Conversation:
    """A prompt as far as it was read. ``read`` counts messages, ``characters`` their length."""

    epoch: int
    view: View | None = None
    read: int = 0
    characters: int = 0


class ScriptedEngine(Engine):
    """A control as an engine. Nothing to load, no tokenizer, no latency; it answers at once, without suspending.

    Args:
        model: ``scripted/<control>``.

    Raises:
        EngineUnavailable: there is no such control.
    """

    tokenizer = None
    context_length = None
    max_num_seqs = 64

    def __init__(self, model: str) -> None:
        self._control = _find(model)()
        self._conversations: WeakKeyDictionary[Prompt, _Conversation] = WeakKeyDictionary()
        self.info = EngineInfo(backend="scripted", model=model, details={"token_counts": "estimated from characters"})

    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """Raises:
        EngineError: the conversation is not in the form that the prompt promises.
        """
        conversation = self._follow(prompt)
        assert conversation.view is not None
        text = self._control.reply(conversation.view, params.seed or 0)
        return Completion(
            text=text,
            finish_reason="stop",
            prompt_tokens=conversation.characters // CHARACTERS_PER_TOKEN,
            completion_tokens=len(text) // CHARACTERS_PER_TOKEN,
        )

    def _follow(self, prompt: Prompt) -> _Conversation:
        """Reads what was added since the last time, or everything when something else changed."""
        conversation = self._conversations.get(prompt)
        if conversation is None or conversation.epoch != prompt.epoch:
            conversation = self._conversations[prompt] = _Conversation(prompt.epoch)
        messages = prompt.messages
        conversation.view = fold(messages, conversation.view, conversation.read)
        for message in messages[conversation.read :]:
            conversation.characters += len(message["content"])
        conversation.read = len(messages)
        return conversation


def _find(model: str) -> type:
    name = model.removeprefix(SCRIPTED_PREFIX)
    if name in CONTROLS:
        return CONTROLS[name]
    nearest = get_close_matches(name, CONTROLS, n=1, cutoff=0.5)
    hint = f"did you mean {SCRIPTED_PREFIX}{nearest[0]}? " if nearest else ""
    raise EngineUnavailable(f"there is no control {model!r}: {hint}the controls are {', '.join(CONTROLS)}")
