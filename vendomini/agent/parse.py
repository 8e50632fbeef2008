"""A reply's answer → an :class:`Action`. Nothing that a model writes raises an exception, and nothing is guessed.

``ok`` is exactly one JSON object of the requested form. ``repaired`` is a call that had to be extracted, but is
unmistakable to a reader: one distinct call of a tool of this world, in an object that stands on its own, with prose, a
fence or tags around it, single quotes, trailing commas, other keys for the same thing, or a model's native form of a
call. ``cut_off`` is a reply that reached the limit of its length before its answer was complete. Everything else is
``unparsable``, and that is what the world is told: no action is ever substituted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

import msgspec
from msgspec import UNSET

from vendomini.agent.clean import clean, clean_text
from vendomini.agent.mention import mentioned, remark, taken_back
from vendomini.agent.native import in_json
from vendomini.agent.objects import Found, KeyTwiceError, objects_in, read_json, says_twice
from vendomini.agent.reply import Asked, Reply, read_reply
from vendomini.model_info.formats import PLAIN, ReplyFormat
from vendomini.worlds.protocol import Action

MAX_SCAN = 65_536
"""Characters of a malformed answer that are searched for an object."""

COMPLAINTS = {
    "empty": "the reply was empty",
    "cut_off": "the reply was cut off at the limit of its length, before its answer was complete: reply with less",
    "no_answer": "the reply holds thoughts and no answer",
    "refused": "the reply was a refusal",
    "no_object": "the reply holds no JSON object",
    "broken": "the reply holds a JSON object that is broken or not complete",
    "no_call": "the reply holds no JSON object that calls one of the tools",
    "key_twice": "an object in the reply has a key twice: give each key once",
    "ambiguous": "the reply holds more than one call, or one that is only mentioned: reply with one JSON object",
    "code": "the reply is program code: reply with one JSON object",
}
"""Reason → what the agent is told."""

_TOOL_KEYS = ("tool", "tool_name", "name", "action", "function")
_ARGUMENT_KEYS = ("arguments", "args", "parameters", "params", "tool_input", "action_input", "input", "kwargs")
_CARD_KEYS = ("prediction", "prediction_card", "card", "predictions")
_THOUGHT_KEYS = ("thought", "thoughts", "reasoning", "thinking")
_NESTED_KEYS = ("tool", "tool_call", "tool_calls", "function_call", "function", "action", "call")
_LABEL_KEYS = ("id", "type", "call_id", "index")
_KNOWN_KEYS = frozenset((*_TOOL_KEYS, *_ARGUMENT_KEYS, *_CARD_KEYS, *_THOUGHT_KEYS, *_NESTED_KEYS, *_LABEL_KEYS))
_ASKED_KEYS = frozenset(("thought", "tool", "arguments", "prediction"))

_ANNOUNCES = tuple(":：>[]`*|")
_CLOSES = tuple("]},;`*<[|.。")
"""What may come before and after an object on its lines for it to count as a call, not as an example."""
_BLANK = " \t\r\n\xa0\u200b\u2060\ufeff"

_WRAPPER = re.compile(r"<(?!/)([\w:.-]+)[^<>]*>$")
_ANSWER_TAGS = re.compile(
    r"(?:\w+:)?(?:final(?:_answer)?|answer|response|reply|output|solution|action|act|call|tool_?(?:call|use)s?"
    r"|(?:start_)?function(?:_?calls?)?|invoke|json|result)",
    re.IGNORECASE,
)
"""Tags around an answer; an object in another one is quoted."""

_CODE = re.compile(
    r"^[ \t]*(?:def |class |import \w|from \w[\w.]* import |return\b|print\(|async |const |let |var |function )"
    r"|^[ \t]*[\w.\[\]]+ ?= ?(?:[\w.]*[\[({\"']|$)|^[ \t]*(?:for|if|while) .*:$|^```(?!json|text|plaintext|tool)\w+",
    re.MULTILINE,
)
_CODE_BEFORE = ("(", "=", ",", "+", '"""', "'''")

_NATIVE = re.compile(
    r"(?:\[TOOL_CALLS\]\s*(?P<mistral>\w+)(?:\[CALL_ID\]\w+)?\s*(?:\[ARGS\])?\s*"
    r"|<\|tool_call_begin\|>\s*(?:functions\.)?(?P<kimi>\w+)(?::\d+)?\s*<\|tool_call_argument_begin\|>\s*"
    r"|<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?(?P<deepseek>\w+)\s*(?:<｜tool▁sep｜>)?\s*(?:```json)?\s*"
    r"|<function=(?P<llama>\w+)>\s*|>>>(?P<functionary>\w+)\n\s*"
    r"|\bAction:[ *`]*(?P<react>\w+)[ *`]*\n[ *]*Action Input:[ *]*\s*(?:```json)?\s*)$"
)
"""Native calls that name the tool outside of the object, which then holds the arguments."""


def parse_completion(
    text: str,
    tools: Collection[str],
    form: ReplyFormat = PLAIN,
    *,
    finish_reason: str = "stop",
    reasoning: str | None = None,
) -> Action:
    """:func:`parse_reply` of a text as it was generated."""
    return parse_reply(read_reply(text, form, finish_reason=finish_reason, reasoning=reasoning), tools)


def parse_reply(reply: Reply, tools: Collection[str]) -> Action:
    """Reads an answer of the form ``{"thought", "tool", "arguments", "prediction"}``.

    Args:
        tools: names of the tools of this world.
    """
    if reply.finish_reason == "refused":
        return _unparsable("refused", reply)
    if reply.unclosed:
        return _unparsable("no_answer", reply)
    try:
        action = _asked(reply) or _repair(reply, tools)
    except KeyTwiceError:
        action = "key_twice"
    if isinstance(action, Action):
        return action
    return _unparsable(action, reply)


def complain(reason: str) -> str:
    """What the agent is told; an unknown reason, from another version, is passed on as it is."""
    return COMPLAINTS.get(reason, reason)


def _unparsable(reason: str, reply: Reply) -> Action:
    if reply.finish_reason == "length":
        return Action("cut_off", error=complain("cut_off"), reason="cut_off")
    return Action("unparsable", thought=clean_text(reply.reasoning), error=complain(reason), reason=reason)


def _asked(reply: Reply) -> Action | None:
    """The action of an answer in exactly the requested form."""
    value = reply.value
    tool: object
    arguments: object
    card: object
    thought: object
    if type(value) is Asked:
        tool, arguments, card, thought = value.tool, value.arguments, value.prediction, value.thought
    elif type(value) is dict and value.keys() <= _ASKED_KEYS:
        tool, arguments = value.get("tool"), clean(value.get("arguments"))
        card, thought = clean(value["prediction"]) if "prediction" in value else UNSET, value.get("thought", UNSET)
        if type(tool) is not str or type(arguments) is not dict or not (thought is UNSET or type(thought) is str):
            return None
    else:
        return None
    keys = 2 + (card is not UNSET) + (thought is not UNSET) + len(arguments) + (len(card) if type(card) is dict else 0)
    if says_twice(reply.answer, keys):
        return None
    stated = reply.reasoning if thought is UNSET else thought
    return Action("ok", tool, arguments, None if card is UNSET else card, stated)


Kind = TypeVar("Kind")


def _repair(reply: Reply, tools: Collection[str]) -> Action | str:
    """The one call in an answer, or the reason why there is none."""
    answer = in_json(reply.answer[:MAX_SCAN], tools)
    if not answer:
        return "no_answer" if reply.reasoning else "empty"
    if "{" not in answer:
        return "no_object"
    objects = list(objects_in(answer))
    if objects and objects[-1] is None:
        return "broken"
    calls = [(found, call) for found in objects if found for call in _calls(answer, found, tools, reply.reasoning)]
    if not calls:
        return "no_call"
    if any((call.tool, call.arguments) != (calls[0][1].tool, calls[0][1].arguments) for _, call in calls):
        return "ambiguous"
    outside = _outside(answer, [found for found in objects if found])
    if _CODE.search(outside) or any(answer[: found.start].rstrip().endswith(_CODE_BEFORE) for found, _ in calls):
        return "code"
    if not all(_stands_alone(answer, found) for found, _ in calls):
        return "ambiguous"
    last, call = calls[-1]
    if reply.finish_reason == "length" and answer[last.end :].strip(" \n`]>"):
        return "cut_off"
    return call


def _outside(text: str, objects: list[Found]) -> str:
    """The text without its objects."""
    pieces, position = [], 0
    for found in objects:
        pieces.append(text[position : found.start])
        position = found.end
    return "{}".join((*pieces, text[position:]))


def _stands_alone(text: str, found: Found) -> bool:
    """Whether an object has its lines to itself, or follows a colon, or is wrapped, or has a remark behind it, and no
    word about it says that it is an example, a draft or no longer meant: then it is a call."""
    before = text[text.rfind("\n", 0, found.start) + 1 : found.start].strip(_BLANK)
    line_end = text.find("\n", found.end)
    after = text[found.end : line_end if line_end >= 0 else len(text)].strip(_BLANK)
    announced = not before or before.endswith(_ANNOUNCES) or _NATIVE.search(before[-200:])
    ended = not after or after.startswith(_CLOSES) or remark(after)
    return bool(announced and ended) and not _doubtful(text, found)


def _doubtful(text: str, found: Found) -> bool:
    lead = text[max(0, found.start - 500) : found.start].rstrip().removesuffix("[").rstrip("`\n ")
    lead = re.sub(r"```\w*$", "", lead).rstrip()
    while (tag := _WRAPPER.search(lead)) and not _NATIVE.search(lead[-200:]):
        if not _ANSWER_TAGS.fullmatch(tag[1]):
            return True
        lead = lead[: tag.start()].rstrip()
    line = lead[lead.rfind("\n") + 1 :]
    rest = re.sub(r"^[\s`\]}>*;,.]+", "", text[found.end : found.end + 200])
    return line == ">" or mentioned(re.sub(r"\{.*\}", "", line)) or taken_back(rest)


# ------------------------------------------------------------------------------------------------ calls


def _calls(answer: str, found: Found, tools: Collection[str], reasoning: str) -> Iterator[Action]:
    """The calls that an object makes: mostly one, or none."""
    before = answer[max(0, found.start - 200) : found.start]
    if (native := _NATIVE.search(before)) and (tool := native[native.lastgroup or 0]) in tools:
        yield Action("repaired", tool, clean(found.value), None, clean_text(reasoning))
        return
    yield from _read_object(found.value, tools, reasoning)


def _read_object(value: dict[str, object], tools: Collection[str], reasoning: str) -> Iterator[Action]:
    inner = [nested for key in _NESTED_KEYS for nested in _nested(value.get(key))]
    for nested in inner:
        yield from _read_object({**{k: v for k, v in value.items() if k in _OUTER_KEYS}, **nested}, tools, reasoning)
    if tool := _key_that_calls(value, tools):
        value = {"tool": tool, "arguments": value[tool], **{k: v for k, v in value.items() if k in _OUTER_KEYS}}
    names = [name for key in _TOOL_KEYS if isinstance(name := value.get(key), str)]
    if not names or names[0] not in tools or (inner and "tool" not in value):
        return
    given = [value[key] for key in _ARGUMENT_KEYS if value.get(key) not in (None, {}, "")]
    if _describes(value, given) or not (given or _calls_without_arguments(value)):
        return
    thought = clean_text(_first(value, _THOUGHT_KEYS, str) or reasoning)
    card = clean(_first(value, _CARD_KEYS, object))
    for name in (name for name in names if name in tools):  # more than one only where it contradicts itself
        for arguments in given or [{}]:
            yield Action("repaired", name, clean(_json_object(arguments)), card, thought)


def _key_that_calls(value: Mapping[str, object], tools: Collection[str]) -> str | None:
    """The tool of ``{"tool_order": {"quantity": 3}}``, as Apertus writes a call."""
    (*keys,) = value.keys() - _OUTER_KEYS
    return keys[0] if len(keys) == 1 and keys[0] in tools and isinstance(value[keys[0]], dict) else None


_OUTER_KEYS = frozenset((*_CARD_KEYS, *_THOUGHT_KEYS))


def _nested(value: object) -> list[dict[str, object]]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, dict)]


def _describes(value: Mapping[str, object], given: list[object]) -> bool:
    """Whether this describes a tool instead of calling it."""
    schemas = (item for item in given if isinstance(item, dict) and {"type", "properties"} <= item.keys())
    return "description" in value or "inputSchema" in value or any(schemas)


def _calls_without_arguments(value: Mapping[str, object]) -> bool:
    """Whether the call really has no arguments: any that are beside the tool's name must not be lost."""
    if any(key in value for key in _ARGUMENT_KEYS):
        return True
    return "tool" in value and value.keys() <= _KNOWN_KEYS


def _first(value: Mapping[str, object], keys: tuple[str, ...], kind: type[Kind]) -> Kind | None:
    return next((found for key in keys if key in value and isinstance(found := value[key], kind)), None)


def _json_object(given: object) -> object:
    """Arguments as JSON in a string, as some chat APIs write them; anything else stays what it is."""
    if not isinstance(given, str):
        return given
    try:
        value = read_json(given)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return given
    return value if isinstance(value, dict) else given
