"""A config file and the command line over it: it loads, or it is refused in one printable line."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator

from tests.fuzz import scratch
from vendomini.agent import output_schema, system_prompt
from vendomini.config import build_phase, count, expand, load_config, select
from vendomini.config.paths import leaf_paths
from vendomini.config.shipped import shipped
from vendomini.config.worlds import phase_config
from vendomini.errors import VendoMiniError
from vendomini.worlds.protocol import open_world
from vendomini.worlds.vending.config import VendingConfig

_FOLDER = scratch()
_FILE = _FOLDER / "fuzz.yaml"
_SHIPPED = sorted(shipped("configs").rglob("*.yaml"))
for _file in _SHIPPED:  # for `inherit`
    shutil.copy(_file, _FOLDER)

RUNS = 20
"""Of a grid that are looked at: a config may ask for billions."""

TOKENS = [
    *leaf_paths(VendingConfig),
    *(path.rpartition(".")[2] + ": " for path in leaf_paths(phase_config(VendingConfig))),
    *("grid:\n  ", "fixed:\n  ", "inherit: base.yaml\n", "max_steps_by_level: {0: 1}\n", "\n-o ", "\n--only "),
    *("!!bool ", "!!int ", "!!float ", "!!set ", "!!binary ", "!!timestamp ", "&a ", "*a", "<<: ", "? ", "|\n", ">-\n"),
    *(".nan", ".inf", "1e999", "null", "true", "[]", "{}", '"\\ud800"', '"\\0"', '"\\e[2J"', "\u2028", "9" * 40),
]


def seeds() -> Iterator[bytes]:
    for file in _SHIPPED:
        yield file.read_text(encoding="utf-8").encode()
    yield b"-o pe_induction.p_shock=0.2\n--only p_shock=0.20\ngrid:\n  pe_induction.p_shock: [0, 0.2]\n"
    yield b"-o grid.agent.model.name=[a/b, c]\n-o engine=hf\n--only model=c\n--only seed=0\ninherit: base.yaml\n"
    yield b"-o agent.model.chat_template_kwargs={enable_thinking: false}\nfixed: {demand.sale_markup: 2}\n"
    yield b'-o "\\e[2J"=1\n"\\e]0;title\\a": 1\n'
    yield b'"a\\nerror: b": 1\n'
    yield b"max_steps_by_level: {1: 10, 2: 20}\ngrid: {simulation.complexity_level: [1, 2, 3]}\n"


def check(data: bytes) -> None:
    """First lines that begin with ``-o`` and ``--only`` are the command line, the rest is the file."""
    lines = data.split(b"\n")
    head = list(itertools.takewhile(lambda line: line.startswith((b"-o ", b"--only ")), lines))
    _FILE.write_bytes(b"\n".join(lines[len(head) :]))
    words = [line.decode("utf-8", "surrogateescape").split(" ", 1) for line in head]  # as the shell hands them over
    try:
        _use([text for name, text in words if name == "-o"], [text for name, text in words if name == "--only"])
    except VendoMiniError as exc:
        assert str(exc), "a refusal that says nothing"
        assert str(exc).isprintable(), f"not one printable line: {str(exc)!r}"


def _use(overrides: list[str], only: list[str]) -> None:
    """What every command does with a config before it starts an engine."""
    phase = load_config(_FILE, overrides)
    assert count(phase) > 0
    saved = phase.config.model_dump(mode="json")
    again = build_phase(json.loads(json.dumps(saved, allow_nan=False)))
    specs = list(itertools.islice(expand(phase), RUNS))
    assert specs == list(itertools.islice(expand(again), RUNS)), "a saved plan is another"
    assert len({spec.run_id for spec in specs}) == len(specs), "two runs with one id"
    for spec in specs[:2]:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", spec.run_id), f"{spec.run_id!r} is no file name"
        config = spec.config()
        world, interface = open_world(spec.world, config), config.agent.interface
        world.reset(seed=spec.seed, audit=lambda _: [])
        json.dumps(output_schema(world, interface))
        system_prompt(world, interface).encode()
    list(select(iter(specs), only))
