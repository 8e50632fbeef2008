"""A conversation between a control and the world, a step at a time, as the runner holds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.vending.driver import Environment
from vendomini.agent import History, parse_completion, system_prompt
from vendomini.config.paths import assign
from vendomini.engines.base import Completion, SamplingParams
from vendomini.engines.scripted import ScriptedEngine
from vendomini.measures.measured import StepResult
from vendomini.worlds.conversation import user_turn
from vendomini.worlds.protocol import Action
from vendomini.worlds.randomness import sampling_seed
from vendomini.worlds.vending.config import VendingConfig


class Turn(NamedTuple):
    """What there was before a completion, the completion, and what came of it."""

    history: History
    params: SamplingParams
    completion: Completion
    action: Action
    outcome: StepResult


def config(**settings: Any) -> VendingConfig:
    """Dot paths with ``__`` for the dot, over the defaults."""
    tree = VendingConfig().model_dump(mode="json")
    for path, value in settings.items():
        tree = assign(tree, path.replace("__", "."), value)
    return VendingConfig.model_validate(tree)


def complete(engine: ScriptedEngine, history: History, params: SamplingParams) -> Completion:
    """Drives ``generate`` by hand: it must answer without suspending."""
    coroutine = engine.generate(history, params)
    try:
        coroutine.send(None)
    except StopIteration as answer:
        return answer.value
    raise AssertionError("the scripted engine suspended")


def talk(control: str, run: VendingConfig, seed: int = 0) -> Iterator[Turn]:
    """All turns of an episode. The history is the one before the answer was added."""
    engine, environment = ScriptedEngine(f"scripted/{control}"), Environment(run)
    tools = {spec.name for spec in environment.world.tools}
    model = run.agent.model
    history = History(
        system_prompt(environment.world, run.agent.interface),
        context_length=model.context_length,
        max_tokens=model.max_tokens,
    )
    observation, result, ending = environment.reset(seed=seed), None, None
    while ending is None:
        history.add_user(user_turn(observation, result))
        params = SamplingParams(model.max_tokens, seed=sampling_seed(seed, observation["step"]))
        completion = complete(engine, history, params)
        action = parse_completion(completion.text, tools)
        outcome = environment.step(action)
        yield Turn(history, params, completion, action, outcome)
        history.add_assistant(completion.text)
        observation, result, ending = outcome.observation, outcome.result, outcome.ending
