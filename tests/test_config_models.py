"""``models:`` in a phase: who gets what, what is refused, and that the shipped models are set so that none is cut."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vendomini.agent import system_prompt
from vendomini.agent.prompt import MAX_THOUGHT
from vendomini.config import expand, load_config
from vendomini.config.schema import REPLY_FORMATS
from vendomini.config.shipped import phases
from vendomini.errors import ConfigError
from vendomini.model_info.formats import FAMILIES, PLAIN
from vendomini.worlds.protocol import open_world

GRID = "grid: {agent.model.name: [org/a, org/b]}\n"

CONTEXT = {
    "Qwen/Qwen3-32B": 40960,
    "meta-llama/Llama-3.3-70B-Instruct": 131072,
    "openai/gpt-oss-20b": 131072,
    "Qwen/Qwen2.5-72B-Instruct": 32768,
    "meta-llama/Llama-3.1-8B-Instruct": 131072,
    "allenai/OLMo-2-1124-13B-Instruct": 4096,
    "deepseek-ai/deepseek-llm-7b-chat": 4096,
}
"""Every shipped model, and the max_position_embeddings of its config.json on the Hub."""

THINKS = {"Qwen/Qwen3-32B", "openai/gpt-oss-20b"}
"""Those that think unless told otherwise, as their cards say."""


def models(phase: Any) -> dict[str, dict[str, Any]]:
    return {spec.model: spec.parameters["agent"]["model"] for spec in expand(phase)}


def ids(phase: Any) -> dict[str, str]:
    return {spec.model: spec.run_id for spec in expand(phase)}


class TestWhoGetsWhat:
    def test_a_name_and_a_pattern(self, phase):
        text = GRID + "models: {org/a: {agent.model.top_k: 20}, 'org/*': {agent.model.min_p: 0.1, engine.gpus: 2}}\n"
        loaded = phase(text)
        found = models(loaded)
        assert [(m["top_k"], m["min_p"]) for m in found.values()] == [(20, 0.1), (None, 0.1)]
        assert {name: engine.gpus for name, engine in loaded.engines.items()} == {"org/a": 2, "org/b": 2}

    def test_the_later_pattern_wins_and_the_name_always(self, phase):
        text = (
            GRID
            + "models: {org/a: {agent.model.top_k: 1}, '*': {agent.model.top_k: 2}, 'org/?': {agent.model.top_k: 3}}"
        )
        assert [m["top_k"] for m in models(phase(text)).values()] == [1, 3]

    def test_over_the_sections_and_below_fixed_and_grid(self, phase):
        own = "models: {org/*: {agent.model.top_k: 1, agent.model.top_p: 0.5, agent.model.temperature: 0.1}}\n"
        text = "agent: {model: {top_k: 9}}\nfixed: {agent.model.top_p: 0.9}\n" + own
        text += "grid: {agent.model.name: [org/a], agent.model.temperature: [0.2, 0.3]}\n"
        runs = [spec.parameters["agent"]["model"] for spec in expand(phase(text))]
        assert [(m["top_k"], m["top_p"], m["temperature"]) for m in runs] == [(1, 0.9, 0.2), (1, 0.9, 0.3)]

    def test_an_axis_reaches_into_a_mapping_that_a_model_sets(self, phase):
        own = "models: {org/a: {agent.model.chat_template_kwargs: {think: false, date: x}}}\n"
        text = own + "grid: {agent.model.name: [org/a], agent.model.chat_template_kwargs.think: [true]}\n"
        assert models(phase(text))["org/a"]["chat_template_kwargs"] == {"think": True, "date": "x"}

    def test_without_a_grid_the_one_model_gets_its_own(self, phase):
        text = "agent: {model: {name: org/a}}\nmodels: {org/a: {agent.model.top_k: 3}}\n"
        assert models(phase(text))["org/a"]["top_k"] == 3

    def test_a_child_adds_to_its_parents_entries(self, phase, tmp_path):
        (tmp_path / "parent.yaml").write_text("models: {org/a: {agent.model.top_k: 3, agent.model.min_p: 0.1}}\n")
        found = models(phase("inherit: parent.yaml\n" + GRID + "models: {org/a: {agent.model.top_k: 4}}\n"))["org/a"]
        assert (found["top_k"], found["min_p"]) == (4, 0.1)

    def test_a_saved_plan_expands_to_the_same_runs(self, phase):
        from vendomini.config import build_phase

        loaded = phase(GRID + "models: {org/a: {agent.model.top_k: 3, engine.gpus: 2}}\n")
        again = build_phase(json.loads(json.dumps(loaded.config.model_dump(mode="json"))))
        assert (ids(again), again.engines) == (ids(loaded), loaded.engines)

    def test_ids_change_only_where_a_parameter_does(self, phase):
        before = ids(phase(GRID))
        assert ids(phase(GRID + "models: {org/*: {engine.gpus: 4, agent.model.top_p: 1.0}}\n")) == before
        after = ids(phase(GRID + "models: {org/a: {agent.model.top_k: 4}}\n"))
        assert (after["org/b"], after["org/a"] != before["org/a"]) == (before["org/b"], True)


class TestOverrides:
    TEXT = GRID + "models: {org/a: {agent.model.top_k: 3, agent.model.chat_template_kwargs: {think: false}}}\n"

    def test_an_override_of_a_key_wins_over_every_entry(self, phase):
        assert {m["top_k"] for m in models(phase(self.TEXT, "agent.model.top_k=7")).values()} == {7}

    def test_an_override_inside_a_mapping_keeps_the_rest(self, phase):
        found = models(phase(self.TEXT, "agent.model.chat_template_kwargs.date=x"))
        assert found["org/a"]["chat_template_kwargs"] == {"think": False, "date": "x"}
        assert found["org/b"]["chat_template_kwargs"] == {"date": "x"}

    def test_an_override_of_one_model(self, phase):
        found = models(phase(self.TEXT, "models.org/b.agent.model.top_k=5", "models.org/a.agent.model.min_p=0.5"))
        assert [(m["top_k"], m["min_p"]) for m in found.values()] == [(3, 0.5), (5, None)]

    def test_an_override_of_a_model_with_dots_in_its_name(self, phase):
        text = "agent: {model: {name: Qwen/Qwen2.5-7B}}\n"
        found = models(phase(text, "models.Qwen/Qwen2.5-7B.agent.model.chat_template_kwargs.a.b=1"))
        assert found["Qwen/Qwen2.5-7B"]["chat_template_kwargs"] == {"a": {"b": 1}}

    def test_none_leaves_the_ids_of_before(self):
        first = next(expand(load_config(phases()["phase1_large_models"], ["models={}"])))
        assert first.run_id == "Qwen3-32B-p0-s0-10f91549347e0320"


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("org/a: {agent.model.topk: 1}", "is no agent.model.* or engine.* setting; did you mean agent.model.top_k?"),
        ("org/a: {top_k: 1}", "did you mean agent.model.top_k?"),
        ("org/a: {simulation.max_steps: 1}", "which is no agent.model.* or engine.* setting"),
        ("org/a: {agent.model.name: x}", "which is no agent.model.* or engine.* setting"),
        ("org/a:\n    agent.model.top_k: many", "agent.model.top_k is 'many': must be a whole number"),
        ("org/a:\n    engine.gpus: -1", "engine.gpus is -1: must be greater than or equal to 0"),
        ("org/a:\n    engine.backend: vllmm", "did you mean vllm?"),
        ("org/a: 3", "models.org/a is 3"),
        ("org/aa: {agent.model.top_k: 1}", "'org/aa', which is no model of the grid; did you mean org/a?"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(refusal: Callable[..., str], entry: str, sentence: str) -> None:
    """The mistake is in the last line of each."""
    text = f"{GRID}models:\n  {entry}\n"
    message = refusal(text)
    assert sentence in message
    assert f"phase.yaml:{len(text.splitlines())}:" in message


def test_models_that_are_no_section_are_named_with_their_place(refusal: Callable[..., str]) -> None:
    message = refusal(GRID + "models: 3\n")
    assert "models is 3" in message
    assert "phase.yaml:2:" in message


def test_settings_that_do_not_fit_each_other_are_named_with_their_file(refusal: Callable[..., str]) -> None:
    message = refusal(GRID + "models:\n  org/a: {agent.model.max_tokens: 9000}\n")
    assert "must be at most half" in message
    assert "phase.yaml" in message


def test_an_inherited_entry_of_another_model_is_checked_too(phase: Any, tmp_path: Any) -> None:
    (tmp_path / "parent.yaml").write_text("models:\n  org/z:\n    agent.model.top_k: 20\n")
    assert models(phase("inherit: parent.yaml\n" + GRID))["org/a"]["top_k"] is None
    (tmp_path / "parent.yaml").write_text("models:\n  org/z:\n    agent.model.max_tokens: 9000\n")
    phase("inherit: parent.yaml\n" + GRID)  # which needs a longer context, and has no runs here that could lack it
    (tmp_path / "parent.yaml").write_text("models:\n  org/z:\n    agent.model.top_k: x\n")
    with pytest.raises(ConfigError, match=r"parent.yaml:3: agent\.model\.top_k is 'x'"):
        phase("inherit: parent.yaml\n" + GRID)


@pytest.mark.parametrize("override", ["models.org/a=1", "models.org/a.top_k=1"])
def test_an_override_that_names_no_key_says_how(phase: Any, override: str) -> None:
    with pytest.raises(ConfigError, match=r"write models\.NAME\.agent\.model\.KEY=value"):
        phase(GRID, override)


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[Any]]:
    """Model → one run of each phase, level and set of recovery tools."""
    cells: dict[str, dict[str, Any]] = {}
    for name, file in phases().items():
        for spec in expand(load_config(file)):
            level, tools = (spec.parameters["simulation"]["complexity_level"], spec.parameters["agent"]["interface"])
            cells.setdefault(spec.model, {})[f"{name} {level} {tools['recovery_tools']}"] = spec
    return {model: list(found.values()) for model, found in cells.items()}


class TestShippedModels:
    def test_all_are_known_here_and_have_settings(self, shipped):
        assert set(shipped) == set(CONTEXT)
        for file in phases().values():
            loaded = load_config(file)
            assert set(loaded.own_settings()) == set(loaded.bases)

    @pytest.mark.parametrize("model", CONTEXT)
    def test_the_longest_reply_fits_beside_the_longest_system_prompt(self, shipped, model):
        """At 2.5 characters a token for a reply and 3 for the rules, fewer than any of these tokenizers has."""
        for spec in shipped[model]:
            config = spec.config()
            card = dict.fromkeys(("expected_success", "expected_delivery_day", "expected_quantity"), 12345)
            card |= dict.fromkeys(("expected_cost", "expected_storage_after", "expected_budget_after"), 12345.67)
            arguments = {"sku": "SKU-25", "supplier": "supplier-6", "quantity": 500, "order_id": "PO-00123"}
            reply = {"thought": "x" * MAX_THOUGHT, "tool": "tool_expedite", "arguments": arguments, "prediction": card}
            answer, rules = (
                len(json.dumps(reply)) / 2.5,
                len(system_prompt(open_world(spec.world, config), config.agent.interface)) / 3,
            )
            told = config.agent.model
            assert answer <= told.max_tokens
            assert rules + 2 * told.completion_tokens <= min(told.context_length, CONTEXT[model])

    @pytest.mark.parametrize("model", sorted(THINKS))
    def test_one_that_thinks_is_told_not_to_or_has_room_for_it(self, shipped, model):
        for spec in shipped[model]:
            told = spec.config().agent.model
            off = told.chat_template_kwargs == {"enable_thinking": False}
            assert off or (
                told.chat_template_kwargs == {"reasoning_effort": "low"} and (told.max_thinking_tokens or 0) >= 2048
            )

    def test_no_phase_asks_for_more_context_than_its_model_has(self, shipped):
        for model, specs in shipped.items():
            assert {min(s.config().agent.model.context_length, CONTEXT[model]) for s in specs} == {
                s.config().agent.model.context_length for s in specs
            }


def test_config_show_and_doctor_show_what_each_model_gets(tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(GRID + "models: {'org/*': {agent.model.top_k: 20}, org/b: {engine.gpus: 2}}\n")

    def told(*words: str) -> str:
        return subprocess.check_output([sys.executable, "-m", "vendomini", *words], text=True)

    assert yaml.safe_load(told("config", "show", str(file)))["models"] == {
        "org/a": {"agent.model.top_k": 20},
        "org/b": {"agent.model.top_k": 20, "engine.gpus": 2},
    }
    assert "settings of its own: top_k 20, engine.gpus 2" in told("doctor", "--config", str(file))


def test_every_family_of_replies_can_be_named() -> None:
    assert set(REPLY_FORMATS) == {family.name for family in (PLAIN, *FAMILIES)}
