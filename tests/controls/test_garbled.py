"""Malformed output: what can be repaired is, what can't is not guessed."""

from __future__ import annotations

import pytest

from tests.controls.conversation import config, talk
from vendomini.agent import parse_completion
from vendomini.worlds.vending.controls.garbled import HOPELESS, REPAIRABLE, garble
from vendomini.worlds.vending.tools import tool_specs


def _sound() -> list[str]:
    texts = {}
    for turn in talk("oracle", config(simulation__max_steps=60)):
        texts[turn.action.tool] = turn.completion.text
    return list(texts.values())


SOUND = _sound()
TOOLS = {spec.name for spec in tool_specs(config())}


def test_there_is_something_to_garble() -> None:
    assert len(SOUND) >= 5


@pytest.mark.parametrize("name", sorted(REPAIRABLE))
def test_repairable_output_keeps_its_call(name: str) -> None:
    for text in SOUND:
        meant, found = parse_completion(text, TOOLS), parse_completion(garble(text, REPAIRABLE[name]), TOOLS)
        assert (found.tool, found.arguments) == (meant.tool, meant.arguments)
        assert found.parse == "repaired"


@pytest.mark.parametrize("name", sorted(HOPELESS))
def test_hopeless_output_is_no_call(name: str) -> None:
    for text in SOUND:
        found = parse_completion(garble(text, HOPELESS[name]), TOOLS)
        assert found.parse == "unparsable"
        assert found.tool is None
        assert found.error
