"""Chat templates as models ship them, held against Transformers' own rendering, token for token.

For each: it is taken apart or refused; the first prompt, and the prompt behind one and three turns, have the tokens of
``apply_chat_template`` on the same messages; and an earlier turn's thought is where the template puts it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from vendomini.agent import History
from vendomini.agent.template import _READS_PARTS, _READS_REASONING, PROMPT_DATE, Messages, _options, _variants
from vendomini.errors import ConfigError

SYSTEM = 'You run a warehouse.\nTOOLS\n{"name":"tool_end_day","parameters":{}}\n\nREPLY\n{"type":"object"}'
SPECIAL = re.compile(r"<[|｜][^<>|｜\s{}'\"]{1,40}[|｜]>|</?s>|<(?:start|end)_of_turn>|\[/?[A-Z_]{3,20}\]")

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Fields of an answer in which templates look for its thought."""

WHEELS = ("trl", "xinference", "axolotl", "oumi")
"""Packages that ship templates of models."""

MakeTokenizer = Callable[[list[str]], Any]
"""Special tokens → a fresh tokenizer that knows them."""


@dataclass
class Verdict:
    """What came of one template with one tokenizer.

    Attributes:
        refused: why, where it was.
        unequal: the turns before the prompts whose tokens differ.
        history: the conversation, where one was made.
    """

    name: str
    refused: str = ""
    unequal: list[int] = field(default_factory=list)
    history: History | None = None

    @property
    def line(self) -> str:
        if self.history is None:
            return f"| {self.name} | refused: {self.refused} | | | |"
        form, template = self.history.format, self.history._template
        assert template is not None
        thoughts = "–" if not form.start else "kept" if template.keeps_thoughts else "dropped"
        opened = "yes" if form.opened else ""
        equal = "equal" if not self.unequal else f"differs behind {', '.join(map(str, self.unequal))} turns"
        return f"| {self.name} | {form.name} | {opened} | {thoughts} | {equal} |"


def check(name: str, source: str, make_tokenizer: MakeTokenizer) -> Verdict:
    tokenizer = make_tokenizer(sorted(set(SPECIAL.findall(source))))
    tokenizer.chat_template = source
    try:
        history = History(SYSTEM, context_length=65_536, max_tokens=64, tokenizer=tokenizer)
    except ConfigError as exc:
        return Verdict(name, refused=str(exc))
    verdict = Verdict(name, history=history)
    for turns in (0, 1, 3):
        history.clear()
        messages = _talk(history, turns)
        if history.token_ids not in list(_renderings(tokenizer, messages)):
            verdict.unequal.append(turns)
    return verdict


def _talk(history: History, turns: int) -> list[dict[str, str]]:
    """So many turns and a question, the second turn with a thought; the same as messages."""
    messages = []
    for turn in range(turns):
        user, answer = f'OBSERVATION {{"step":{turn}}}', f'{{"thought":"t{turn}","tool":"x","arguments":{{}}}}'
        thought = "Maybe I wait." if turn == 1 and history.format.start else ""
        history.add_user(user)
        history.add_assistant(answer, thought)
        messages.append({"role": "user", "content": user})
        messages.append({"role": "assistant", "content": answer, "thought": thought})
    history.add_user("OBSERVATION {}")
    form = history.format
    return [*messages, {"role": "user", "content": "OBSERVATION {}", "marks": f"{form.start} {form.end}"}]


def _renderings(tokenizer: Any, messages: list[dict[str, str]]) -> Iterator[list[int]]:
    """The conversation as the template may be given it: with and without a system role, contents as lists. Thoughts are
    in a field of their own where the template looks for one, else before the answer, as the model wrote them: whether
    an old one stays is the template's choice."""
    start, _, end = messages[-1]["marks"].partition(" ")
    options = {"add_generation_prompt": True, "return_dict": False, **_options(None, PROMPT_DATE)}
    for sample, tools, gap in product(list(_variants(SYSTEM)), (None, []), ("\n\n", "")):
        as_field = _reads_thoughts(tokenizer, sample, tools, options)
        told = [_told(message, as_field, start, end + gap) for message in messages]
        if sample[0]["role"] == "system":
            told.insert(0, {"role": "system", "content": SYSTEM})
        else:
            told[0]["content"] = f"{SYSTEM}\n\n{told[0]['content']}"
        if isinstance(sample[-1]["content"], list):
            told = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in told]
        if _READS_PARTS.search(tokenizer.chat_template):
            told = [_in_parts(message) for message in told]
        with suppress(Exception):  # templates raise what their authors chose
            yield list(tokenizer.apply_chat_template(told, tools=tools, **options))


class _Watched(dict[str, Any]):
    """An answer that notes whether anybody asks it for its thought."""

    asked = False

    def __getitem__(self, key: str) -> Any:
        self.asked |= key in THOUGHTS
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked |= key in THOUGHTS
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.asked |= key in THOUGHTS
        return super().__contains__(key)


def _reads_thoughts(tokenizer: Any, sample: Messages, tools: Any, options: dict[str, Any]) -> bool:
    """Whether the template looks for a thought in a field of an answer, old or new: found out by watching it, or, where
    it does so in other conversations only (between calls of tools), by its text."""
    answers = []
    for messages in (sample, sample[:-1]):
        watched = [_Watched(m, **dict.fromkeys(THOUGHTS, "x")) if m["role"] == "assistant" else m for m in messages]
        answers += [message for message in watched if isinstance(message, _Watched)]
        with suppress(Exception):  # templates raise what their authors chose
            tokenizer.apply_chat_template(watched, tools=tools, **options)
    return any(answer.asked for answer in answers) or bool(_READS_REASONING.search(tokenizer.chat_template))


def _told(message: dict[str, str], as_field: bool, start: str, end: str) -> dict[str, Any]:
    thought = message.get("thought")
    told: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if thought and as_field:
        told |= dict.fromkeys(THOUGHTS, thought)
    elif thought:
        told["content"] = f"{start}\n{thought}\n{end}{message['content']}"
    return told


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    """The thought as a part of the content, as Mistral has it."""
    if "thinking" not in message:
        return message
    return {
        **message,
        "content": [
            {"type": "thinking", "thinking": message["thinking"]},
            {"type": "text", "text": message["content"]},
        ],
    }


# ------------------------------------------------------------------------------------------- what is shipped


def fetch(folder: Path) -> dict[str, str]:
    """The different templates of some packages, by name. Downloads the packages."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    for package in WHEELS:
        if not list(folder.glob(f"{package}-*.whl")):
            subprocess.run([*pip, package], check=True)
    if not list(folder.glob("llama_cpp_python-*.tar.gz")):
        build = ["scikit-build-core", "cmake", "ninja"]  # pip asks an archive for its metadata
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *build], check=True)
        subprocess.run([*pip, "--no-build-isolation", "--no-binary", ":all:", "llama-cpp-python"], check=True)
    found = [*_of_llama_cpp(folder), *(pair for package in WHEELS for pair in _of_wheel(folder, package))]
    different: dict[str, str] = {}
    for name, source in found:
        different.setdefault(source.strip(), name)
    return dict(sorted((name, source) for source, name in different.items()))


def _of_llama_cpp(folder: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
        for member in archive.getmembers():
            if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                content = archive.extractfile(member)
                assert content is not None
                yield f"llama.cpp/{Path(member.name).stem}", content.read().decode()


def _of_wheel(folder: Path, package: str) -> Iterator[tuple[str, str]]:
    """Files that are chat templates, and those in lists of models."""
    with zipfile.ZipFile(next(folder.glob(f"{package}-*.whl"))) as archive:
        for name in archive.namelist():
            if name.endswith(".jinja") and "messages" in (source := archive.read(name).decode()):
                yield f"{package}/{Path(name).stem}", source
            elif name.endswith(".json") and b'"chat_template"' in (data := archive.read(name)):
                yield from _in_list(package, json.loads(data))


def _in_list(package: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for item in value:
            yield from _in_list(package, item)
    elif isinstance(value, dict) and "{%" in str(value.get("chat_template")):
        yield f"{package}/{value['model_name']}", value["chat_template"]
