"""How families of models mark their thoughts and answers: one entry per family.

The markers are the literal text of special or ordinary tokens, as completions keep them. ``docs/replies.md`` has the
same table.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

from vendomini.config.schema import ReplyMarkers
from vendomini.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """Where a reply's thought ends and its answer begins.

    Attributes:
        name: of the family.
        start, end: markers around a thought; empty where the family has none.
        header: what must follow ``end``, in families that have such a header.
        answer: headers that may precede the answer; text before one is not part of it.
        signs: strings by which a template or vocabulary is recognised as this family's; else ``end``.
        opened: the prompt itself ends with an open thought, so that a completion begins inside it.
        found_in: where the family was found: ``chat template``, ``vocabulary`` or ``config``.
    """

    name: str
    start: str = ""
    end: str = ""
    answer: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    header: str = ""
    opened: bool = False
    found_in: str = ""


_TAG = re.compile(r"<(think[\w:.-]*)>")

PLAIN = ReplyFormat("plain")
HARMONY = ReplyFormat(
    *("harmony", "<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
    *(("<|channel|>final<|message|>",), ("<|channel|>",)),
    header="<|channel|>final<|message|>",
)

FAMILIES: tuple[ReplyFormat, ...] = (
    HARMONY,
    ReplyFormat(
        *("cohere", "<|START_THINKING|>", "<|END_THINKING|>", ("<|START_RESPONSE|>", "<|START_TEXT|>")),
        header="<|START_RESPONSE|>",
    ),
    ReplyFormat("gemma", "<|channel>", "<channel|>", signs=("<|channel>", "<channel|>")),
    ReplyFormat(
        *("kimi-k3", "<|open|>think<|sep|>", "<|close|>think<|sep|>"),
        answer=("<|open|>response<|sep|>",),
        signs=("<|open|>", "<|sep|>"),
        header="<|open|>response<|sep|>",
    ),
    ReplyFormat("muse", "to=self<|message|>", "<|eom|>", ("<|start|>assistant<|message|>",), ("to=self<|message|>",)),
    ReplyFormat("open-thoughts", "<|begin_of_thought|>", "<|end_of_thought|>", ("<|begin_of_solution|>",)),
    ReplyFormat("apertus", "<|inner_prefix|>", "<|inner_suffix|>"),
    ReplyFormat("plamo", "<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    ReplyFormat("inkling", "<|content_thinking|>", "<|end_message|>", signs=("<|content_thinking|>",)),
    ReplyFormat("medgemma", "<unused94>thought", "<unused95>"),
    ReplyFormat("mistral", "[THINK]", "[/THINK]"),
    ReplyFormat("kimi-vl", "◁think▷", "◁/think▷"),
    ReplyFormat(
        *("apriel", "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", ("[BEGIN FINAL RESPONSE]",)),
        signs=("Here are my reasoning steps:",),
    ),
    ReplyFormat("granite-3.2", "Here is my thought process:", "Here is my response:", ("Here's my response:",)),
    ReplyFormat("seed", "<seed:think>", "</seed:think>"),
    ReplyFormat("minimax", "<mm:think>", "</mm:think>"),
    ReplyFormat("solar", "<|think|>", "<|end|>", ("<|content|>",), signs=("<|think|>", "<|content|>")),
    ReplyFormat("thinking", "<thinking>", "</thinking>"),
    ReplyFormat("think", "<think>", "</think>", ("<response>", "<answer>")),
)
"""The first whose end marker the model knows is the model's; the most common is last."""


def named_format(asked: str | ReplyMarkers | None) -> ReplyFormat | None:
    """What ``agent.model.reply_format`` names; None where it names nothing.

    Raises:
        ConfigError: there is no such family.
    """
    if isinstance(asked, ReplyMarkers):
        headers = (asked.answer,) if asked.answer else ()
        return ReplyFormat("custom", asked.start, asked.end, headers, opened=asked.opened, found_in="config")
    if asked is None:
        return None
    known = {family.name: family for family in (PLAIN, *FAMILIES)}
    if asked not in known:
        raise ConfigError(f"agent.model.reply_format: {asked!r} is no known family: {', '.join(known)}")
    return replace(known[asked], found_in="config")


class Vocabulary(Protocol):
    """What the family is found by, of a Transformers tokenizer."""

    def get_added_vocab(self) -> dict[str, int]: ...


def template_source(tokenizer: object) -> str | None:
    """A tokenizer's chat template: of several, the default, else one without a special purpose."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        named = {"tool_use", "rag"}
        template = template.get("default") or next((t for name, t in template.items() if name not in named), None)
    return str(template) if template else None


def family_of(tokenizer: Vocabulary, asked: str | ReplyMarkers | None) -> ReplyFormat:
    """The family that the config names, else that of a tokenizer, before any prompt is known.

    Raises:
        ConfigError: as :func:`named_format`.
    """
    return named_format(asked) or find_format(template_source(tokenizer) or "", tokenizer.get_added_vocab(), "")


def find_format(template: str, added_tokens: Collection[str], opening: str) -> ReplyFormat:
    """The family of a model, from its chat template, the tokens added to its vocabulary, and the end of its prompts.

    Args:
        template: source of the chat template.
        added_tokens: texts of the tokenizer's added tokens.
        opening: what a prompt ends with, after the user's text.
    """
    for family in FAMILIES:
        signs = family.signs or (family.end,)
        if all(sign in template or sign in added_tokens for sign in signs):
            found_in = "chat template" if all(sign in template for sign in signs) else "vocabulary"
            return opened_by(replace(family, found_in=found_in), opening)
    for token in added_tokens:  # a tag with a suffix of one model
        if (tag := _TAG.fullmatch(token)) and f"</{tag[1]}>" in added_tokens:
            return opened_by(ReplyFormat("think", token, f"</{tag[1]}>", found_in="vocabulary"), opening)
    return PLAIN


def opened_by(family: ReplyFormat, opening: str) -> ReplyFormat:
    """The family, with ``opened`` set for a prompt that ends like this."""
    if not family.start:
        return family
    return replace(family, opened=family.opened or opening.rfind(family.start) > opening.rfind(family.end))
