"""A completion → its parts: the model's thought and its answer.

Thoughts contain drafts of actions, so no part of a thought may be taken for the answer. A model's family is found from
its template (``formats``), but the markers of *all* families count in every reply: a draft must not be executed when a
model was trained on another one's thoughts, or when a server does not reveal its template.

A complete JSON object outside a thought is skipped as one piece, so that ``</think>`` inside its strings is text.
"""

from __future__ import annotations

import json
import re
from typing import Annotated

import msgspec

from vendomini.model_info.formats import FAMILIES, HARMONY, PLAIN, ReplyFormat

MAX_OBJECTS = 32
"""Opening braces at which an object is looked for."""

_lenient = json.JSONDecoder(strict=False)

_TAG = (
    r"(?i:(?:[\w.-]+[:|_-])?(?:think\w*|thoughts?|reason(?:ing|s)?|reflect\w*|scratchpad|analysis|inner[_-]\w+|cot"
    r"|rationale|monologue|deliberat\w*|internal|plan(?:ning)?|drafts?|brainstorm\w*)(?:[:_|-][\w.-]+)?)"
)
_STEM = r"(?:think|thought|reason|cot\b)"
_PIPED = rf"<[|｜](?![^|｜<>]*(?:/|end|close|stop))(?i:[^|｜<>\s]*{_STEM}[^|｜<>\s]*)[|｜]>"
_PIPED_END = re.compile(rf"<[|｜](?=[^|｜<>]*(?:/|end|close|stop))(?i:[^|｜<>\s]*{_STEM}[^|｜<>\s]*)[|｜]>")
_CLOSERS = (
    *("</response>", "</answer>", "<|END_RESPONSE|>", "<|END_TEXT|>"),
    *("<|begin_of_box|>", "<|end_of_box|>", "<|end_of_solution|>", "<|close|>response<|sep|>", "[END FINAL RESPONSE]"),
)


def _one_of(texts: set[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))


_LISTED = [family for family in FAMILIES if family is not HARMONY]
_ENDS = {family.start: family.end for family in _LISTED}
_MARKS = re.compile(
    rf"(?P<brace>\{{)|(?P<start>{_one_of(set(_ENDS))})|(?P<tag><(?P<name>{_TAG})(?:\s[^<>]{{0,80}})?>)"
    rf"|(?P<end>{_one_of({f.end for f in _LISTED} - {'<|end|>', '<|eom|>'})}|</{_TAG}\s*>|{_PIPED_END.pattern})"
    rf"|(?P<piped>{_PIPED})"
    rf"|(?P<header>{_one_of({header for f in _LISTED for header in f.answer})})|(?P<closer>{_one_of(set(_CLOSERS))})"
)
_ENDING_TOKEN = re.compile(
    r"(?:<[|｜][^|｜<>\s]{1,60}[|｜]>|\[\|[^|\[\]\s]{1,60}\|\]|</?s>|<pad>|<(?:\w+:)?eos>|<end_of_turn>|<SPECIAL_\d+>)$"
)
_CHANNELS = re.compile(
    r"(?:<\|start\|>assistant)?(?P<to>[^<]{0,200})<\|channel\|>(?P<channel>[^<]{0,200})"
    r"(?:<\|constrain\|>[^<]{0,40})?<\|message\|>"
    r"(?P<body>.*?)(?P<end><\|end\|>|<\|return\|>|<\|call\|>|(?=<\|start\|>|<\|channel\|>)|\Z)",
    re.DOTALL,
)
_BARE_ANALYSIS = re.compile(r"\s*analysis(?=[^\s:,.])")


_Value = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float | str | bool | list[str] | None


class Asked(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """An answer in the form that was asked for, whose values need no cleaning."""

    tool: str
    arguments: dict[str, _Value]
    thought: str | msgspec.UnsetType = msgspec.UNSET
    prediction: dict[str, _Value] | msgspec.UnsetType | None = msgspec.UNSET


_decode_asked = msgspec.json.Decoder(Asked).decode
_decode = msgspec.json.Decoder().decode


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A completion taken apart.

    Attributes:
        reasoning: all that was thought.
        answer: the rest; empty where there is none.
        unclosed: the reply ends inside a thought.
        finish_reason: how it ended: ``stop``, ``length`` or ``refused``.
        value: of an answer that is JSON from end to end, as :class:`Asked` if it is one; UNSET of any other.
    """

    reasoning: str
    answer: str
    unclosed: bool = False
    finish_reason: str = "stop"
    value: object = msgspec.UNSET


def read_reply(
    text: str, form: ReplyFormat = PLAIN, *, finish_reason: str = "stop", reasoning: str | None = None
) -> Reply:
    """The parts of a completion of a model of this family; the arguments are the completion's."""
    if reasoning is not None:
        form = PLAIN
    if text[:1] == "{" and not (form.opened or "<|channel|>" in text or "assistantfinal" in text):
        value = _decoded(text)
        if value is not msgspec.UNSET:  # as in most replies
            return Reply((reasoning or "").strip(), text.strip(), False, finish_reason, value)
    thought, answer, unclosed = split(text, form)
    if reasoning:
        thought = f"{reasoning}\n{thought}"
    answer = _without_ending_tokens(answer)
    return Reply(thought.strip(), answer, unclosed, finish_reason, _decoded(answer))


def _decoded(text: str) -> object:
    """See :attr:`Reply.value`."""
    try:
        return _decode_asked(text)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, ValueError, RecursionError):
        return msgspec.UNSET
    try:
        return _decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.UNSET


def _without_ending_tokens(text: str) -> str:
    text = text.strip()
    while text.endswith((">", "]")) and (ending := _ENDING_TOKEN.search(text[-64:])):
        text = text[: -len(ending[0])].rstrip()
    return text


def split(text: str, form: ReplyFormat) -> tuple[str, str, bool]:
    """Reasoning, answer, and whether the text ends inside a thought."""
    if form.name == "harmony" and form.opened:
        text = form.start + text
    if "<|channel|>" in text and "<|message|>" in text:
        return _channels(text)
    if "assistantfinal" in text or _BARE_ANALYSIS.match(text):
        return _bare_channels(text)
    return _Splitter(text, form).split()


class _Splitter:
    def __init__(self, text: str, form: ReplyFormat) -> None:
        self._text, self._form = text, form
        self._thoughts: list[str] = []
        self._answer: list[str] = []
        self._position = 0
        self._objects = 0

    def split(self) -> tuple[str, str, bool]:
        if self._form.opened and not self._think_until(self._form.end, 0):
            return self._text, "", True
        while (mark := self._next()) is not None:
            if not self._take(mark):
                return "\n".join(self._thoughts), "".join(self._answer), True
        self._answer.append(self._text[self._position :])
        return "\n".join(self._thoughts), "".join(self._answer), False

    def _next(self) -> re.Match[str] | None:
        found = _MARKS.search(self._text, self._position)
        form = self._form
        if form.name != "custom":
            return found
        own = re.compile(
            f"(?P<start>{re.escape(form.start)})|(?P<end>{re.escape(form.end)})"
            f"|(?P<header>{_one_of(set(form.answer)) or '(?!)'})"
        ).search(self._text, self._position)
        return min((mark for mark in (own, found) if mark), key=lambda mark: mark.start(), default=None)

    def _take(self, mark: re.Match[str]) -> bool:
        """Continues after a mark; False if the text ends inside a thought."""
        before = self._text[self._position : mark.start()]
        self._position = mark.end()
        match mark.lastgroup:
            case "brace":
                self._position = self._object_end(mark.start())
                self._answer.append(before + self._text[mark.start() : self._position])
            case "start":
                self._answer.append(before)
                return self._think_until(_ENDS.get(mark[0], self._form.end), mark.end())
            case "tag":
                self._answer.append(before)
                end = re.compile(rf"</{re.escape(mark['name'])}\s*>", re.IGNORECASE).search(self._text, mark.end())
                return self._think_to(end, mark.end())
            case "piped":
                self._answer.append(before)
                return self._think_to(_PIPED_END.search(self._text, mark.end()), mark.end())
            case "closer":
                self._answer.append(before)
            case _:  # an end without a start, or the answer's header: the text before was no answer
                self._thoughts.append("".join((*self._answer, before)))
                self._answer.clear()
        return True

    def _think_until(self, end: str, begin: int) -> bool:
        position = self._text.find(end, begin)
        self._thoughts.append(self._text[begin : position if position >= 0 else None])
        self._position = position + len(end)
        return position >= 0

    def _think_to(self, end: re.Match[str] | None, begin: int) -> bool:
        self._thoughts.append(self._text[begin : end.start() if end else None])
        self._position = end.end() if end else len(self._text)
        return end is not None

    def _object_end(self, start: int) -> int:
        """The end of the JSON object that begins here; right after its brace if it is no object."""
        self._objects += 1
        if self._objects > MAX_OBJECTS:
            return start + 1
        try:
            return _lenient.raw_decode(self._text, start)[1]
        except (ValueError, RecursionError):
            return start + 1


def _channels(text: str) -> tuple[str, str, bool]:
    """Messages of gpt-oss. The final channel is the answer, and so is a call to a tool on another one."""
    thoughts, answers, unclosed, position = [], [], False, 0
    for message in _CHANNELS.finditer(text):
        thoughts.append(text[position : message.start()])
        position = message.end()
        channel, body = message["channel"].strip(), message["body"]
        recipient = re.search(r"to=(?:functions\.)?(\S+)", f"{message['to']} {channel}")
        if recipient:
            answers.append(f"[TOOL_CALLS]{recipient[1]}[ARGS]{body}")
        elif channel.startswith("final"):
            answers.append(body)
        else:
            thoughts.append(body)
        unclosed = not message["end"] and position == len(text) and not channel.startswith("final") and not recipient
    thoughts.append(text[position:])
    return "\n".join(filter(str.strip, thoughts)), "\n".join(answers), unclosed


def _bare_channels(text: str) -> tuple[str, str, bool]:
    """Split a reply whose special tokens were dropped: ``analysis…assistantfinal…``."""
    thought, found, answer = text.rpartition("assistantfinal")
    return (thought, answer, False) if found else (text, "", True)
