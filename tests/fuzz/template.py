"""What becomes a prompt or a job's script: nothing in it turns into an option, a command or a turn of its own."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.cluster.described import offers
from tests.fuzz import scratch
from tests.tiny_model import make_tokenizer
from vendomini.agent import History
from vendomini.cluster.launch import launch, offers_of
from vendomini.cluster.script import scripts
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.submit import Request, Submission, prepare
from vendomini.cluster.templates import MARKER, load_template
from vendomini.config import expand, load_config
from vendomini.config.experiments import results_of
from vendomini.config.shipped import shipped
from vendomini.errors import VendoMiniError

_FOLDER = scratch()
_PHASE = load_config("configs/base.yaml", ["experiment.replications=1", "experiment.name=fuzz"])
_SPECS = list(expand(_PHASE))
_OFFERS = offers(templates=_FOLDER)
_DESCRIBED = {
    "version": "23.02",
    "max_array_size": 1001,
    "partitions": [
        {"name": "gpu", "default": True, "time_limit": "2-00:00:00", "nodes": 9, "gres": "gpu:a100:4", "state": "up"}
    ],
}

TOKENS = [
    *("script\n", "values\n", "chat\n", MARKER, "#SBATCH --gpus-per-node=", "#SBATCH --comment=", "\n#SBATCH -"),
    *("\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\\n", "²", "٣", "'", '"', "$(true)", "`true`", " #", "%j"),
    *("{{ ", " }}", "{% for m in messages %}", "{% endfor %}", "{% if ", "{% endif %}", "messages", "['content']"),
    *("raise_exception('')", "vmFirstMark", "vmSystemMark", "|reverse", "<|end|>", "add_generation_prompt"),
    *('"account":', '"partition":', '"results":', '"time":', '"slurm":', '"name":', '"gres":', '"time_limit":'),
]  # fmt: skip


def seeds() -> Iterator[bytes]:
    for gpus in (0, 4):
        yield b"script\n" + (shipped("slurm") / f"gpu{gpus}.sbatch").read_bytes()
    yield f"script\n#!/bin/bash\n#SBATCH -t 60\n#SBATCH --signal=USR2@120\n# x\nexport A=1\n\n{MARKER} x".encode()
    values = {"account": "lab", "partition": "gpu", "time": "12:00:00", "results": "results/a", "slurm": _DESCRIBED}
    yield b"values\n" + json.dumps(values).encode()
    yield b"values\n" + json.dumps({"account": "a b'c\n#SBATCH --x\nexit", "results": "a\nexit", "time": "1"}).encode()
    template = tokenizer().chat_template
    yield f"chat\n{template}\0rules\0what is seen\0what is said".encode()
    for loop in ("messages", "messages|reverse", "messages[1:]", "messages + messages"):
        text = f"{{% for m in {loop} %}}[{{{{ m['role'] }}}}]{{{{ m['content'] }}}}{{% endfor %}}"
        yield f"chat\n{text}\0<|system|>\0<|end|>\nvmLastMark\0{{{{ messages }}}}".encode()


def check(data: bytes) -> None:
    """The first line says what the rest is: a ``script`` of the site's, ``values`` for one, or a ``chat`` template."""
    kind, _, rest = data.partition(b"\n")
    judge = {b"script": _check_script, b"values": _check_values, b"chat": _check_chat}.get(kind)
    if judge is None:
        return
    try:
        judge(rest)
    except VendoMiniError as exc:
        assert str(exc), "a refusal that says nothing"


# ---------------------------------------------------------------------------------------- sbatch scripts


def _check_script(text: bytes) -> None:
    """A template is carried over line by line: what was a comment stays one."""
    file = _FOLDER / "gpu0.sbatch"
    file.write_bytes(text)
    template = load_template(0, _FOLDER)
    lines = text.replace(b"\r\n", b"\n").decode().split("\n")
    assert set(template.setup) <= set(lines), "the setup has lines that the template has not"
    if template.options.get("gpus-per-node") or template.options.get("gres"):
        return  # the model of this phase needs none
    submission = prepare(_PHASE, _SPECS, _results("a"), Request(), _OFFERS, _sizing())
    _check_lines(submission, set(template.options))


def _check_values(text: bytes) -> None:
    """What a user or a described cluster names goes into a script as one word."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(values, dict):
        return
    account, partition, time = (
        value if isinstance(value := values.get(name), str) else None for name in ("account", "partition", "time")
    )
    if any(value and "\0" in value for value in values.values() if isinstance(value, str)):
        return  # no command line can hold one
    described = _FOLDER / "cluster.json"
    described.write_text(json.dumps({"capabilities": {"slurm": values.get("slurm", _DESCRIBED)}}))
    chosen = offers_of(None, described, time, {"account": account, "partition": partition})
    results = values.get("results")
    folder = _FOLDER / "r" / results.lstrip("/") if isinstance(results, str) else None
    outcome = launch(_PHASE, results_of(_PHASE, folder), chosen, Request(), dry_run=True)
    json.dumps(outcome.as_json())
    sent = _check_lines(outcome.submission, {"account"} if account else set())
    assert sent.get("account") == (account or None)
    assert sent["partition"] == chosen(0).site.partition


_OURS = {"job-name", "nodes", "ntasks-per-node", "open-mode", "output", "partition", "signal", "time", "array"}
_SHIPPED = set(load_template(0).options)


def _check_lines(submission: Submission, carried: set[str]) -> dict[str, str]:
    """Every script has the options it should have, each one word, and no command that the template has not."""
    sent: dict[str, str] = {}
    for script, template in zip(scripts(submission), submission.templates.values(), strict=True):
        head, _, command = script.partition("\n# command\n")
        head, _, setup = head.partition("\n# setup\n")
        assert setup.rstrip("\n") == "\n".join(template.setup).rstrip("\n")
        for line in head.split("\n"):
            if not line.startswith("#SBATCH "):
                assert line in {"#!/bin/bash", "", "# Parameters"}, f"a line of its own: {line!r}"
                continue
            word, *more = shlex.split(line.removeprefix("#SBATCH "))
            assert not more
            name, _, value = word.removeprefix("--").partition("=")
            assert name not in sent, f"{name} twice"
            assert name in _OURS | _SHIPPED | carried, f"an option that nobody gave: {name}"
            sent[name] = value
        lines = command.rstrip("\n").split("\n")
        assert len(lines) == 1, f"a command of its own: {lines!r}"
        assert shlex.split(lines[0])[:3] == ["srun", "--export=ALL", "--unbuffered"]
    return sent


def _results(name: str) -> Any:
    return results_of(_PHASE, _FOLDER / "r" / name)


def _sizing() -> Sizing:
    return Sizing(_PHASE.config.engine, _OFFERS)


# ---------------------------------------------------------------------------------------- chat templates


@cache
def tokenizer() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"
    return make_tokenizer(400)


def _check_chat(data: bytes) -> None:
    """Any template is taken apart or refused, and what is said stands in the conversation as it was said."""
    template, system, user, answer = (data.decode("utf-8", "replace").split("\0") + [""] * 4)[:4]
    reader = tokenizer()
    reader.chat_template = template
    history = History(system, context_length=4096, max_tokens=16, tokenizer=reader)
    plain = History(system, context_length=4096, max_tokens=16)
    for conversation in (history, plain):
        for _ in range(3):
            conversation.add_user(user)
            conversation.add_assistant(answer)
        conversation.add_user(user)
    assert history.messages[-1] == {"role": "user", "content": user}
    if "\ufffd" not in user + answer:
        text = reader.decode(history.token_ids)
        assert user in text
        assert answer in text
