"""The scripted engine: a control in place of a model, using the same text format."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from weakref import WeakKeyDictionary

from vendomini.config.worlds import control_name, split_control
from vendomini.engines.base import Completion, Engine, EngineInfo, Prompt, SamplingParams
from vendomini.errors import ConfigError, EngineUnavailable
from vendomini.worlds.conversation import Control
from vendomini.worlds.protocol import load_world

CHARACTERS_PER_TOKEN = 4
"""There is no tokenizer: token counts are characters divided by this, an estimate for English and JSON."""


@dataclass(slots=True)
class _Conversation:
    """A prompt as far as it has been read. ``seen`` is the control's view of it; ``read`` counts messages,
    ``characters`` their length."""

    epoch: int
    seen: object = None
    read: int = 0
    characters: int = 0


class ScriptedEngine(Engine):
    """A control as an engine. Nothing to load, no tokenizer, no latency; it answers at once, without suspending.

    Args:
        model: ``scripted/<control>``, or ``scripted/<world>/<control>`` in another world than the default one.

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
        text = self._control.reply(conversation.seen, params.seed or 0)
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
        conversation.seen = self._control.read(messages, conversation.seen, conversation.read)
        characters = conversation.characters
        for message in messages[conversation.read :]:
            characters += len(message["content"])
        conversation.read, conversation.characters = len(messages), characters
        return conversation


def _find(model: str) -> type[Control[Any]]:
    world, name = split_control(model)
    try:
        controls = load_world(world).controls()
    except ConfigError as exc:
        raise EngineUnavailable(f"there is no control {model!r}: {exc}") from exc
    if name in controls:
        return controls[name]
    nearest = get_close_matches(name, controls, n=1, cutoff=0.5)
    hint = f"did you mean {control_name(world, nearest[0])}? " if nearest else ""
    raise EngineUnavailable(f"there is no control {model!r}: {hint}the controls are {', '.join(controls)}")
