"""YAML files as plain trees, with the file and line of every key, merged along ``inherit``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from vendomini.config.shipped import shipped
from vendomini.errors import ConfigError

KeyPath = tuple[str, ...]

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
"""Most nodes of a YAML file with its aliases expanded: more is a mistake or an alias bomb."""

MAX_DEPTH = 50
"""Mappings and lists within each other, and parts of a dot path."""


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a key."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


def read(file: Path, stack: tuple[Path, ...] = ()) -> tuple[dict[str, object], dict[KeyPath, Place]]:
    """The file merged over what it inherits, and the place of every key."""
    file = file.resolve()
    if file in stack:
        chain = " → ".join(p.name for p in (*stack, file))
        raise ConfigError(f"{shown(stack[-1])}: inherit goes in a circle ({chain})")
    raw, places = _parse(file)
    parent = raw.pop("inherit", None)
    if parent is None:
        return raw, places
    place = places[("inherit",)]
    if not isinstance(parent, str):
        raise ConfigError(f"{place}: inherit must name one file, as a path from this file's folder")
    try:
        target = (file.parent / parent).resolve()
        if not target.is_file():  # a copy of a shipped phase, in any folder
            target = shipped("configs") / target.name
        exists = target.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, or links in a circle
        exists = False
    if not exists:
        raise ConfigError(f"{place}: inherit names {parent}, which is neither beside it nor a shipped config")
    base, base_places = read(target, (*stack, file))
    return _merge(base, raw), base_places | places


def _parse(file: Path) -> tuple[dict[str, object], dict[KeyPath, Place]]:
    name = shown(file)
    try:
        node = yaml.compose(_text(file, name), Loader=_Loader)
        if node is None:
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{name}:{node.start_mark.line + 1}: a config is a mapping of keys to values")
        places = _places(node, name)
        tree = _Loader.construct(node)
        assert isinstance(tree, dict), "made of a mapping"
        return tree, places
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 0
        raise ConfigError(f"{name}:{line}: not valid YAML: {exc.problem}") from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigError(f"{name}: not valid YAML: {str(exc).splitlines()[0]}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{name}: not valid YAML: nested too deeply") from exc
    except OSError as exc:
        raise ConfigError(f"can't read {name}: {exc.strerror}") from exc


def _text(file: Path, name: str) -> str:
    with file.open("rb") as opened:
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{name}: larger than {MAX_BYTES >> 20} MiB: this is no config")
    return data.decode()


def _places(node: yaml.Node, name: str) -> dict[KeyPath, Place]:
    places: dict[KeyPath, Place] = {}
    for count, (at, place) in enumerate(_walk(node, (), name)):
        if count > MAX_NODES:
            raise ConfigError(f"{name}: more than {MAX_NODES} entries, aliases expanded: this is no config")
        places[at] = place
    return places


def _walk(node: yaml.Node, at: KeyPath, name: str) -> Iterator[tuple[KeyPath, Place]]:
    """Every key below a node with its place; refuses duplicates and keys that are no plain scalars."""
    if len(at) > MAX_DEPTH:
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: nested more than {MAX_DEPTH} deep: this is no config")
    if isinstance(node, yaml.ScalarNode):
        _check_text(node, name)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield (*at, str(index)), Place(name, child.start_mark.line + 1)
            yield from _walk(child, (*at, str(index)), name)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise ConfigError(f"{name}:{line}: keys are plain names; merge a file with inherit")
            _check_text(key, name)
            if key.value in lines:
                raise ConfigError(f"{name}:{line}: {key.value} is given twice (first in line {lines[key.value]})")
            lines[key.value] = line
            yield (*at, key.value), Place(name, line)
            yield from _walk(child, (*at, key.value), name)


def _check_text(node: yaml.ScalarNode, name: str) -> None:
    try:
        node.value.encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: half of a surrogate pair is no text") from exc


def parse_value(text: str, name: str) -> object:
    """A YAML value on a command line.

    Args:
        name: of the option, for messages.

    Raises:
        yaml.YAMLError: it is not a YAML value.
        ConfigError: it is an alias bomb.
    """
    node = yaml.compose(text, Loader=_Loader)
    if node is None:
        return None
    _places(node, name)
    return _Loader.construct(node)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: 1e-3 is a number, 12:30:00 and 2024-01-01 are text, and so are yes, no, on and off. No tags:
    a file can't choose the type that a value is made into."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if (tag := getattr(event, "tag", None)) is not None:
            raise yaml.MarkedYAMLError(None, None, f"a config has no tags, and this is {tag!r}", event.start_mark)
        return super().compose_node(parent, index)

    @classmethod
    def construct(cls, node: yaml.Node) -> object:
        loader = cls("")
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()


def _add_resolvers() -> None:
    for tag, pattern, first in (
        ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
        ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
        ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
        ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
        ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
        ("merge", r"^(?:<<)$", "<"),
    ):
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


def _integer(_: yaml.Loader, node: yaml.ScalarNode) -> int:
    """An integer of 64 bits, which is what a plan and a run's id can hold."""
    if len(node.value) > 20 or not -(2**63) <= (value := int(node.value)) < 2**63:
        raise yaml.MarkedYAMLError(None, None, "an integer of more than 64 bits", node.start_mark)
    return value


_add_resolvers()
# A zero in front is decimal in YAML 1.2; PyYAML would read octal.
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor(
    "tag:yaml.org,2002:float", lambda _, node: float(re.sub(r"\.(?=inf|nan)", "", node.value.lower()))
)


def _merge(base: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    """``over`` on ``base``: mappings merge, everything else (lists, too) is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def shown(file: Path) -> str:
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)
