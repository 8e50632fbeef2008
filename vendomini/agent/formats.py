"""How families of models mark what they think and what they answer: one entry a family.

The markers are the literal text of special or ordinary tokens, as :class:`vendomini.engines.base.Completion` keeps
them. ``docs/models.md`` has the same table with the models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vendomini.config.schema import ReplyMarkers
from vendomini.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """Where a reply's thought ends and its answer begins.

    Attributes:
        name: of the family.
        start, end: what stands around a thought; empty where the family has none.
        answer: headers that may stand before the answer; what stands before one is no answer.
        opened: the prompt itself ends with an open thought, so that a completion begins inside it.
    """

    name: str
    start: str = ""
    end: str = ""
    answer: tuple[str, ...] = ()
    opened: bool = False


PLAIN = ReplyFormat("plain")
HARMONY = ReplyFormat("harmony", "<|channel|>analysis<|message|>", "<|end|>", ("<|channel|>final<|message|>",))

FAMILIES: tuple[ReplyFormat, ...] = (
    HARMONY,
    ReplyFormat("cohere", "<|START_THINKING|>", "<|END_THINKING|>", ("<|START_RESPONSE|>", "<|START_TEXT|>")),
    ReplyFormat("gemma", "<|channel>thought\n", "<channel|>"),
    ReplyFormat("kimi-k3", "<|open|>think<|sep|>", "<|close|>think<|sep|>", ("<|open|>response<|sep|>",)),
    ReplyFormat("open-thoughts", "<|begin_of_thought|>", "<|end_of_thought|>", ("<|begin_of_solution|>",)),
    ReplyFormat("apertus", "<|inner_prefix|>", "<|inner_suffix|>"),
    ReplyFormat("plamo", "<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    ReplyFormat("inkling", "<|content_thinking|>", "<|end_message|>"),
    ReplyFormat("medgemma", "<unused94>thought", "<unused95>"),
    ReplyFormat("mistral", "[THINK]", "[/THINK]"),
    ReplyFormat("kimi-vl", "◁think▷", "◁/think▷"),
    ReplyFormat("apriel", "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", ("[BEGIN FINAL RESPONSE]",)),
    ReplyFormat("granite-3.2", "Here is my thought process:", "Here is my response:", ("Here's my response:",)),
    ReplyFormat("seed", "<seed:think>", "</seed:think>"),
    ReplyFormat("minimax", "<mm:think>", "</mm:think>"),
    ReplyFormat("solar", "<|think|>", "<|end|>", ("<|content|>",)),
    ReplyFormat("thinking", "<thinking>", "</thinking>"),
    ReplyFormat("think", "<think>", "</think>", ("<response>", "<answer>")),
)
"""The first whose end marker the model knows is the model's; the commonest stands last."""


def named_format(asked: str | ReplyMarkers | None) -> ReplyFormat | None:
    """What ``agent.model.reply_format`` names; None where it names nothing.

    Raises:
        ConfigError: there is no such family.
    """
    if isinstance(asked, ReplyMarkers):
        return ReplyFormat("custom", asked.start, asked.end, (asked.answer,) if asked.answer else (), asked.opened)
    if asked is None:
        return None
    known = {family.name: family for family in (PLAIN, *FAMILIES)}
    if asked not in known:
        raise ConfigError(f"agent.model.reply_format: {asked!r} is no known family: {', '.join(known)}")
    return known[asked]


def find_format(template: str, added_tokens: Any, opening: str) -> ReplyFormat:
    """The family of a model, from its chat template, the tokens added to its vocabulary, and the end of its prompts.

    Args:
        template: source of the chat template.
        added_tokens: texts of the tokenizer's added tokens; anything with ``in``.
        opening: what a prompt ends with, behind the user's text.
    """
    for family in FAMILIES:
        marks = [mark.strip() for mark in (family.start, family.end)]
        if all(mark in template or mark in added_tokens for mark in marks) or _harmony(family, template):
            return opened_by(family, opening)
    return PLAIN


def opened_by(family: ReplyFormat, opening: str) -> ReplyFormat:
    """The family as it stands behind a prompt with this end."""
    if not family.start:
        return family
    return replace(family, opened=family.opened or opening.rfind(family.start.strip()) > opening.rfind(family.end))


def _harmony(family: ReplyFormat, template: str) -> bool:
    """Its templates put the markers together from pieces."""
    return family is HARMONY and "<|channel|>" in template
