"""Hostile input in short: what was found before, sound inputs with parts of them spoiled, and values of every kind.

``make fuzz`` does the same for minutes and guided by coverage.
"""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import TARGETS, load
from vendomini.config.paths import leaf_paths
from vendomini.config.worlds import phase_config
from vendomini.worlds.vending.config import VendingConfig

EXAMPLES = {"config": 60, "template": 150, "log": 60, "completion": 150, "tool": 100, "http": 200}


def short(examples: int) -> settings:
    """The same examples everywhere. A failure is shown as it is: shrinking a log takes minutes."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet,
        phases=[Phase.generate],
    )  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_stays_mended(name):
    target = load(name)
    for seed in target.seeds[:200]:
        target.check(seed)
    for file in target.found():
        target.check(file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_spoiled(name):
    target = load(name)
    tokens = [token.encode("utf-8", "surrogatepass") for token in target.tokens]
    place = st.integers(0, 1 << 16)
    edit = st.tuples(
        st.sampled_from(["flip", "cut", "repeat", "insert", "splice"]),
        place,
        st.integers(1, 40),
        st.sampled_from(tokens) | st.binary(min_size=1, max_size=4),
    )

    @short(EXAMPLES[name])
    @given(st.sampled_from(target.seeds), st.sampled_from(target.seeds), st.lists(edit, min_size=1, max_size=6))
    def spoil(seed, other, edits):
        data = bytearray(seed)
        for kind, at, length, token in edits:
            at %= len(data) + 1
            if kind == "flip" and at < len(data):
                data[at] ^= 1 << length % 8
            elif kind == "cut":
                del data[at : at + length]
            elif kind == "repeat":
                data[at:at] = data[at : at + length]
            elif kind == "insert":
                data[at:at] = token
            elif kind == "splice":
                data[at:] = other[at:]
        target.check(bytes(data[: target.longest]))

    spoil()


# ------------------------------------------------------------------------------------------ of every kind

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from([0, 1, 3.0, 1e308, 10**12, 2**63, "high", "SUP1", "S1", "", "\ud800", "\0", "x" * 5000])
    | st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
paths = st.sampled_from(
    [*leaf_paths(VendingConfig), *leaf_paths(phase_config(VendingConfig)), "grid", "fixed", "agent", "inherit", "x.y"]
)


def nested(flat):
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    tree = {}
    for path, value in flat.items():
        node, (*parents, last) = tree, path.split(".")
        for parent in parents:
            below = node.setdefault(parent, {})
            node = below if isinstance(below, dict) else node
        node[last] = value
    return tree


@short(100)
@given(
    sections=st.dictionaries(paths, values, max_size=2),
    grid=st.dictionaries(paths, st.lists(values, max_size=3) | values, max_size=2),
    fixed=st.dictionaries(paths, values, max_size=2),
    overrides=st.dictionaries(paths.flatmap(lambda path: st.sampled_from([path, f"grid.{path}"])), values, max_size=2),
)
def test_config_values_of_every_kind(sections, grid, fixed, overrides):
    tree = {**nested(sections), **({"grid": grid} if grid else {}), **({"fixed": fixed} if fixed else {})}
    lines = [f"-o {key}={json.dumps(value)}" for key, value in overrides.items()]
    load("config").check("\n".join([*lines, yaml.safe_dump(tree)]).encode("utf-8", "surrogateescape"))


def names(known):
    return st.sampled_from(known) | st.text(max_size=8)


@short(60)
@given(st.data())
def test_tool_calls_of_every_kind(data):
    from tests.fuzz.agent import ARGUMENTS, CARD, SPECS, perform

    tools = st.sampled_from([spec.name for spec in SPECS]) | values
    arguments = st.dictionaries(names(ARGUMENTS), values, max_size=4) | values
    card = st.dictionaries(names(CARD), values, max_size=6) | values
    call = st.fixed_dictionaries({"tool": tools, "arguments": arguments, "card": card, "thought": values})
    for each in data.draw(st.lists(call, min_size=1, max_size=8)):
        perform(each)
