"""Chat templates as models ship them, held against Transformers' own rendering, token for token.

For each: it is taken apart or refused; the first prompt, and the prompt behind one and three turns, have the tokens of
``apply_chat_template`` on the same messages; and an earlier turn's thought is where the template puts it.
"""

from __future__ import annotations

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
from vendomini.agent.template import PROMPT_DATE, _options, _variants
from vendomini.errors import ConfigError

SYSTEM = 'You run a warehouse.\nTOOLS\n{"name":"tool_end_day","parameters":{}}\n\nREPLY\n{"type":"object"}'
SPECIAL = re.compile(r"<[|｜][^<>|｜\s{}'\"]{1,40}[|｜]>|</?s>|<(?:start|end)_of_turn>|\[/?[A-Z_]{3,20}\]")

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
    """The conversation as the template may be given it: with and without a system role, contents as lists, thoughts in
    a field of their own, before the answer, or left out."""
    start, _, end = messages[-1]["marks"].partition(" ")
    options = {"add_generation_prompt": True, "return_dict": False, **_options(None, PROMPT_DATE)}
    for as_field, sample, tools in product((True, False, None), list(_variants(SYSTEM)), (None, [])):
        told = [_told(message, as_field, start, end) for message in messages]
        if sample[0]["role"] == "system":
            told.insert(0, {"role": "system", "content": SYSTEM})
        else:
            told[0]["content"] = f"{SYSTEM}\n\n{told[0]['content']}"
        if isinstance(sample[-1]["content"], list):
            told = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in told]
        with suppress(Exception):  # templates raise what their authors chose
            yield list(tokenizer.apply_chat_template(told, tools=tools, **options))


def _told(message: dict[str, str], as_field: bool | None, start: str, end: str) -> dict[str, Any]:
    thought = message.get("thought")
    told: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if thought and as_field:
        told |= dict.fromkeys(("reasoning_content", "reasoning", "thinking"), thought)
    elif thought and as_field is False:
        told["content"] = f"{start}\n{thought}\n{end}\n\n{message['content']}"
    return told


# ------------------------------------------------------------------------------------------- what is shipped


def fetch(folder: Path) -> dict[str, str]:
    """The templates of two packages, by name: the source archive of llama-cpp-python and trl. Downloads both."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    if not list(folder.glob("trl-*.whl")):
        subprocess.run([*pip, "trl"], check=True)
    if not list(folder.glob("llama_cpp_python-*.tar.gz")):
        build = ["scikit-build-core", "cmake", "ninja"]  # pip asks an archive for its metadata
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *build], check=True)
        subprocess.run([*pip, "--no-build-isolation", "--no-binary", ":all:", "llama-cpp-python"], check=True)
    return dict(sorted([*_of_llama_cpp(folder), *_of_trl(folder)]))


def _of_llama_cpp(folder: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
        for member in archive.getmembers():
            if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                content = archive.extractfile(member)
                assert content is not None
                yield f"llama.cpp/{Path(member.name).stem}", content.read().decode()


def _of_trl(folder: Path) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(next(folder.glob("trl-*.whl"))) as archive:
        for name in archive.namelist():
            if name.startswith("trl/chat_templates/") and name.endswith(".jinja"):
                yield f"trl/{Path(name).stem}", archive.read(name).decode()
