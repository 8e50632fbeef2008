"""Calls in the forms that models were trained on and that hold no JSON object: tags, Python, and Gemma's own.

==================================================  ========================================
form                                                used by
==================================================  ========================================
``<function=f><parameter=k>v</parameter>…``         Qwen3-Coder and later, Nemotron 3, Step
``<invoke name="f"><parameter name="k">v…``         MiniMax M2, DeepSeek V3.2, Step 3
``<tool_call>f<arg_key>k</arg_key><arg_value>v…``   GLM 4.5 and later, LongCat
``[f(k=v)]``                                        LFM2, Llama 4
``f(k=v)`` in a tag or a fence                      OLMo 3, SmolLM3, Gemma 3, Llama 3.1
``call:f{k:v}``                                     FunctionGemma, Gemma 4
==================================================  ========================================

Tags may have a prefix of their family: ``<steptml:invoke>``, ``<longcat_arg_key>``, ``<｜DSML｜parameter>``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterator

import msgspec

from vendomini.agent.objects import KeyTwiceError, read_json, read_python

_PREFIX = re.compile(r"<(/?)(?:\w+:|｜\w+｜|\w+_)(?=(?:invoke|parameter|tool_call|arg_key|arg_value)\b)")
_TAGGED = re.compile(
    r"<(?P<tag>function|invoke)(?:=| +name=)[\"']?(?P<name>[\w.-]+)[\"']?\s*>"
    r"(?P<body>(?:(?!<(?:function|invoke)\b).)*?)</(?P=tag)>"
    r"|(?<=<tool_call>)\s*(?P<glm>[\w.-]+)\s*(?P<pairs>(?:<arg_key>(?:(?!<tool_call>).)*?)?)(?=</tool_call>)",
    re.DOTALL,
)
_PAIR = re.compile(
    r"\s*(?:<parameter(?:=| +name=)[\"']?(?P<key>[\w.-]+)[\"']?(?P<more>[^<>]*)>(?P<value>.*?)</parameter>"
    r"|<arg_key>(?P<glm>[^<>]+)</arg_key>\s*<arg_value>(?P<given>.*?)</arg_value>)\s*",
    re.DOTALL,
)
_PYTHON = re.compile(
    r"(?:<\|[\w-]+\|>|<function_calls>|<code>|```tool_code\b|(?=\[))\s*(?P<calls>\[\s*\w+\(.*\)\s*\]|[\w.]+\(.*\))\s*"
    r"(?:<\|[\w-]+\|>|</function_calls>|</code>|```)?",
    re.DOTALL,
)
_GEMMA = re.compile(
    r"\bcall:(?P<name>[\w.-]+)(?P<given>\{(?:(?!call:).)*?\})(?=<end_function_call>|<tool_call\|>|\s*$)", re.DOTALL
)
_GEMMA_PART = re.compile(
    r"(?P<quote><escape>|<\|\"\|>)(?P<text>.*?)(?P=quote)|(?<=[{,])\s*(?P<key>[A-Za-z_]\w*)(?=\s*:)", re.DOTALL
)
_ASKED = frozenset({"thought", "arguments", "prediction"})


def in_json(answer: str, tools: Collection[str]) -> str:
    """The answer with such calls of these tools written as objects, all else as it was.

    Raises:
        KeyTwiceError: a call gives an argument twice, or an object in it has a key twice.
    """
    if (python := _PYTHON.fullmatch(answer)) and (calls := _from_python(python["calls"], tools)):
        return calls
    if "call:" in answer:
        answer = _GEMMA.sub(lambda found: _from_gemma(found, tools), answer)
    if "</" not in answer:
        return answer
    return _TAGGED.sub(lambda found: _object(found, tools), _PREFIX.sub(r"<\1", answer))


def _object(found: re.Match[str], tools: Collection[str]) -> str:
    name, body = found["name"] or found["glm"], found["body"] or found["pairs"] or ""
    tool = name.removeprefix("functions.")
    arguments = _arguments(body) if tool in tools else None
    if arguments is None:
        return found[0]
    if "arguments" in arguments and arguments.keys() <= _ASKED:  # the form that was asked for, in tags
        return json.dumps({"tool": tool, **arguments})
    return json.dumps({"tool": tool, "arguments": arguments})


def _arguments(body: str) -> dict[str, object] | None:
    """The arguments in the body of a call; None if it holds anything else.

    Raises:
        KeyTwiceError: it holds one of them twice.
    """
    arguments: dict[str, object] = {}
    position = 0
    while pair := _PAIR.match(body, position):
        key = pair["key"] or pair["glm"]
        if key in arguments:
            raise KeyTwiceError
        text = pair["value"] if pair["key"] else pair["given"]
        arguments[key] = text if 'string="true"' in (pair["more"] or "") else _value(text)
        position = pair.end()
    return None if body[position:].strip() else arguments


def _value(text: str) -> object:
    """Numbers, objects and the like are JSON in all of these forms, texts stand as they are."""
    try:
        return read_json(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text.strip("\n")


def _from_gemma(found: re.Match[str], tools: Collection[str]) -> str:
    if found["name"] not in tools:
        return found[0]
    given = _GEMMA_PART.sub(lambda part: json.dumps(part["key"] or part["text"] or ""), found["given"])
    try:
        arguments = read_json(given)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return found[0]
    return json.dumps({"tool": found["name"], "arguments": arguments})


def _from_python(text: str, tools: Collection[str]) -> str | None:
    """The calls in Python, alone or in a list; None where there is anything else."""
    try:
        calls = [_call(call) for line in ast.parse(text).body for call in _expressions(line)]
        return json.dumps(calls) if all(call["tool"] in tools for call in calls) else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _expressions(line: ast.stmt) -> Iterator[ast.expr]:
    """What a line consists of, out of a list or ``print()``."""
    if not isinstance(line, ast.Expr):
        raise ValueError("a statement")
    match line.value:
        case ast.List(elts=several):
            yield from several
        case ast.Call(func=ast.Name(id="print"), args=[one], keywords=[]):
            yield one
        case one:
            yield one


def _call(call: ast.expr) -> dict[str, object]:
    match call:
        case ast.Call(func=ast.Name(id=name), args=[], keywords=words):
            pass
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="call"), args=[], keywords=words):
            pass
        case ast.Call(func=ast.Attribute(value=ast.Name(id="default_api"), attr=name), args=[], keywords=words):
            pass
        case _:
            raise ValueError("no call with named arguments")
    arguments = {_named(word): read_python(word.value) for word in words}
    if len(arguments) < len(words):
        raise KeyTwiceError
    return {"tool": name, "arguments": arguments}


def _named(word: ast.keyword) -> str:
    if word.arg is None:
        raise ValueError("arguments without a name")
    return word.arg
