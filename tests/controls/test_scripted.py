"""The scripted engine: pure functions of the visible conversation, in the text of a model."""

from __future__ import annotations

import jsonschema
import pytest

from tests.controls.conversation import complete, config, talk
from vendomini.agent import History, reply_schema, system_prompt
from vendomini.engines.base import SamplingParams
from vendomini.engines.scripted import ScriptedEngine
from vendomini.errors import EngineError, EngineUnavailable
from vendomini.worlds.vending import WORLD
from vendomini.worlds.vending.controls import CONTROLS, POSITIVE, fold

STORMY = {"pe_induction__p_shock": 0.5, "pe_induction__pe_mag": "high"}
WELL_FORMED = sorted(set(CONTROLS) - {"garbled", "invalid"})


def test_an_unknown_control_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(EngineUnavailable, match=r"did you mean scripted/oracle\? the controls are collapsed, "):
        ScriptedEngine("scripted/oracel")


def test_the_engine_says_what_it_is() -> None:
    engine = ScriptedEngine("scripted/idle")
    assert (engine.info.backend, engine.info.model, engine.tokenizer) == ("scripted", "scripted/idle", None)
    completion = next(talk("idle", config())).completion
    assert completion.latency_s is None
    assert completion.cached_tokens is None
    assert completion.finish_reason == "stop"
    assert completion.prompt_tokens > completion.completion_tokens > 0


@pytest.mark.parametrize("control", sorted(CONTROLS))
def test_a_reply_follows_from_the_visible_conversation_alone(control: str) -> None:
    """An engine that meets the conversation for the first time says the same as one that followed it."""
    cuts = 0
    for turn in talk(control, config(**STORMY, simulation__max_steps=260)):
        stranger = ScriptedEngine(f"scripted/{control}")
        if turn.outcome.observation["step"] % 7 == 0:
            assert complete(stranger, turn.history, turn.params).text == turn.completion.text
        cuts = turn.history.epoch
    assert cuts > 0, "old turns were never dropped, so forgetting was not tested"


@pytest.mark.parametrize("level", [0, 4])
def test_a_view_carried_along_equals_one_made_anew(level: int) -> None:
    view, epoch, read = None, 0, 0
    for turn in talk("oracle", config(**STORMY, simulation__complexity_level=level)):
        messages = turn.history.messages
        if turn.history.epoch != epoch:
            view, epoch, read = None, turn.history.epoch, 0
        view, read = fold(messages, view, read), len(messages)
        assert view == fold(messages)


def test_the_seed_of_a_request_matters_where_chance_does() -> None:
    turns = talk("diverging", config(simulation__max_steps=120))
    late = next(turn for turn in turns if turn.outcome.observation["step"] > 110)
    texts = {
        complete(ScriptedEngine("scripted/diverging"), late.history, SamplingParams(512, seed=seed)).text
        for seed in range(5)
    }
    assert len(texts) == 5


@pytest.mark.parametrize(
    "mode", ["required", "optional", "required+confidence", "required+uncertainty", "required+full"]
)
@pytest.mark.parametrize("format_", ["minimal", "structured", "rich"])
def test_replies_fit_the_schema_that_the_prompt_asks_for(mode: str, format_: str) -> None:
    run = config(
        agent__interface__prediction_mode=mode,
        agent__interface__prediction_format=format_,
        simulation__max_steps=100,
        simulation__complexity_level=2,
    )
    validator = jsonschema.Draft202012Validator(reply_schema(WORLD(run), run.agent.interface))
    for control in WELL_FORMED:
        for turn in talk(control, run):
            reply = {"thought": turn.action.thought, "tool": turn.action.tool, "arguments": turn.action.arguments}
            validator.validate({**reply, "prediction": turn.action.card})
            assert turn.action.parse == "ok"


def test_a_prompt_of_another_form_is_an_engine_error() -> None:
    history = History("No tools here.", context_length=4096, max_tokens=512)
    history.add_user("Hello")
    with pytest.raises(EngineError, match="can't read this turn"):
        complete(ScriptedEngine("scripted/oracle"), history, SamplingParams(512))
    history = History(
        system_prompt(WORLD(config()), config().agent.interface).replace("TOOLS", "CHESTS"),
        context_length=8192,
        max_tokens=512,
    )
    turn = next(talk("oracle", config()))
    history.add_user(turn.history.messages[1]["content"])
    with pytest.raises(EngineError, match="can't read the rules"):
        complete(ScriptedEngine("scripted/oracle"), history, SamplingParams(512))


def test_positive_controls_are_healthy_first() -> None:
    for control in POSITIVE:
        turns = list(talk(control.name, config(simulation__max_steps=80)))
        assert turns[-1].outcome.ending == "survived", control.name
        assert turns[0].action.tool is not None
