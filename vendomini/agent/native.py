"""Calls in the forms that models were trained on and that hold no JSON object: tags, and Python.

==================================================  ========================================
form                                                used by
==================================================  ========================================
``<function=f><parameter=k>v</parameter>…``         Qwen3-Coder and later, Nemotron 3, Step
``<invoke name="f"><parameter name="k">v…``         MiniMax M2, DeepSeek V3.2
``<tool_call>f<arg_key>k</arg_key><arg_value>v…``   GLM 4.5 and later
``[f(k=v)]``                                        LFM2, Llama 4
``f(k=v)``, alone or in a fence named tool_code     Gemma 3
==================================================  ========================================
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection

import msgspec

_TAGGED = re.compile(
    r"<(?P<tag>function|invoke)(?:=| +name=)[\"']?(?P<name>[\w.-]+)[\"']?\s*>"
    r"(?P<body>(?:(?!<(?:function|invoke)\b).)*?)</(?P=tag)>"
    r"|(?<=<tool_call>)\s*(?P<glm>[\w.-]+)\s*(?P<pairs>(?:<arg_key>(?:(?!<tool_call>).)*?)?)(?=</tool_call>)",
    re.DOTALL,
)
_PAIR = re.compile(
    r"\s*(?:<parameter(?:=| +name=)[\"']?(?P<key>[\w.-]+)[\"']?[^<>]*>(?P<value>.*?)</parameter>"
    r"|<arg_key>(?P<glm>[^<>]+)</arg_key>\s*<arg_value>(?P<given>.*?)</arg_value>)\s*",
    re.DOTALL,
)
_PYTHON = re.compile(
    r"(?:<\|[\w-]+\|>\s*|```tool_code\s)?\s*(?P<calls>\[\s*\w+\(.*\)\s*\]|\w+\(.*\))\s*(?:<\|[\w-]+\|>|```)?", re.DOTALL
)
_ASKED = frozenset({"thought", "arguments", "prediction"})

_decode = msgspec.json.Decoder().decode


def in_json(answer: str, tools: Collection[str]) -> str:
    """The answer with such calls of these tools written as objects, all else as it was."""
    if (python := _PYTHON.fullmatch(answer)) and (calls := _from_python(python["calls"], tools)):
        return calls
    if "</" not in answer:
        return answer
    return _TAGGED.sub(lambda found: _object(found, tools), answer)


def _object(found: re.Match[str], tools: Collection[str]) -> str:
    name, body = found["name"] or found["glm"], found["body"] or found["pairs"] or ""
    tool, arguments = name.removeprefix("functions."), _arguments(body)
    if tool not in tools or arguments is None:
        return found[0]
    if "arguments" in arguments and arguments.keys() <= _ASKED:  # the form that was asked for, in tags
        return json.dumps({"tool": tool, **arguments})
    return json.dumps({"tool": tool, "arguments": arguments})


def _arguments(body: str) -> dict[str, object] | None:
    """The arguments in the body of a call; None if it holds anything else, or one of them twice."""
    arguments: dict[str, object] = {}
    position = 0
    while pair := _PAIR.match(body, position):
        key = pair["key"] or pair["glm"]
        if key in arguments:
            return None
        arguments[key] = _value(pair["value"] if pair["key"] else pair["given"])
        position = pair.end()
    return None if body[position:].strip() else arguments


def _value(text: str) -> object:
    """Numbers, objects and the like are JSON in all of these forms, texts stand as they are."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text.strip("\n")


def _from_python(text: str, tools: Collection[str]) -> str | None:
    """The calls in a Python list, or one without a list; None where there is anything else."""
    try:
        found = ast.parse(text, mode="eval").body
        calls = [_call(call) for call in (found.elts if isinstance(found, ast.List) else [found])]
        return json.dumps(calls) if all(call["tool"] in tools for call in calls) else None
    except (ValueError, SyntaxError, AttributeError, TypeError, RecursionError, MemoryError):
        return None


def _call(call: ast.expr) -> dict[str, object]:
    if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
        raise ValueError("arguments without a name")
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    return {"tool": call.func.id, "arguments": given}  # type: ignore[attr-defined]
