"""Thoughts through the real Hugging Face engine: read by their tokens, ended by their budget, free of the grammar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.thinking_model import ANSWER, DRAFT, make_thinking_model
from vendomini.model_info.formats import FAMILIES, ReplyFormat
from vendomini.records import RunPaths, read_record, read_steps
from vendomini.records.kinds import RunInfo, RunSummary, StepRecord

BY_NAME = {family.name: family for family in FAMILIES}
TOLD = ("think", "mistral", "cohere", "gemma", "harmony")


def links(family: ReplyFormat, *, opened: bool = False) -> list[str]:
    said = [] if opened else [family.start]
    header = family.header or (family.answer[0] if family.name == "open-thoughts" else "")
    return [*said, DRAFT, family.end, *([header] if header else []), ANSWER]


def run(folder: Path, model: Path, **settings: object) -> tuple[RunInfo, RunSummary, list[StepRecord]]:
    """One run on the Hugging Face engine, as the command makes it."""
    from typer.testing import CliRunner

    from vendomini.cli import app

    given = {
        "agent.model.name": str(model), "agent.model.temperature": 0, "agent.model.max_tokens": 40,
        "agent.model.context_length": 8192, "agent.interface.prediction_mode": "optional",
        "simulation.max_steps": 4, "demand.orders_per_day": 0, "crash_detector.continue_after_crash": 10_000,
        **settings,
    }  # fmt: skip
    config = folder / "config.yaml"
    fixed = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in given.items())
    config.write_text(f"experiment: {{name: thoughts}}\nengine: {{backend: hf}}\nfixed:\n{fixed}")
    result = CliRunner().invoke(app, ["run", "-c", str(config), "-r", str(folder / "results")])
    assert result.exit_code == 0, result.exception or result.output
    (found,) = (folder / "results").glob("runs/*")
    paths = RunPaths(found)
    return read_record(paths.info, RunInfo), read_record(paths.summary, RunSummary), list(read_steps(paths.steps))


@pytest.mark.parametrize("name", TOLD)
def test_a_family_s_markers_come_through_the_engine_and_the_draft_is_not_executed(name: str, tmp_path: Path) -> None:
    family = BY_NAME[name]
    model = make_thinking_model(tmp_path / "model", links(family), known=family.signs)
    info, summary, steps = run(tmp_path, model)
    assert info.reply_format == name
    assert [(step.parse, step.tool, step.finish_reason) for step in steps] == [("ok", "tool_end_day", "stop")] * 4
    assert summary.parse == {"ok": 4, "repaired": 0, "unparsable": 0, "cut_off": 0}
    assert DRAFT in steps[0].completion
    assert steps[0].answer == ANSWER


def test_a_thought_that_the_prompt_opened(tmp_path: Path) -> None:
    model = make_thinking_model(tmp_path / "model", links(BY_NAME["think"], opened=True), opening="<think>")
    _, summary, steps = run(tmp_path, model)
    assert summary.parse["ok"] == 4
    assert steps[0].completion == f"{DRAFT}</think>{ANSWER}"


@pytest.mark.parametrize("name", ["think", "harmony"])
def test_a_thought_without_end_is_ended_by_its_budget(name: str, tmp_path: Path) -> None:
    family = BY_NAME[name]
    model = make_thinking_model(tmp_path / "model", links(family), loop=DRAFT, known=family.signs)
    _, summary, steps = run(tmp_path, model, **{"agent.model.max_thinking_tokens": 6})
    assert steps[0].completion.startswith(family.start + DRAFT * 6 + family.end + family.header)
    assert summary.parse["cut_off"] == 0


def test_one_conversation_at_a_time_has_the_same_budget(tmp_path: Path) -> None:
    """Rotary factors that change with the length can't be batched."""
    model = make_thinking_model(tmp_path / "model", links(BY_NAME["think"]), loop=DRAFT)
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    config["rope_parameters"]["original_max_position_embeddings"] = 1024
    (model / "config.json").write_text(json.dumps(config))
    _, summary, steps = run(tmp_path, model, **{"agent.model.max_thinking_tokens": 6, "simulation.max_steps": 2})
    assert str(summary.engine["batching"]).startswith("one conversation at a time")
    assert steps[0].completion == "<think>" + DRAFT * 6 + "</think>" + ANSWER


def test_without_a_budget_it_is_cut_off_and_censored(tmp_path: Path) -> None:
    model = make_thinking_model(tmp_path / "model", links(BY_NAME["think"]), loop=DRAFT)
    _, summary, steps = run(tmp_path, model, **{"simulation.max_steps": 60})
    assert (summary.ending, summary.event_observed, summary.time_to_crash, summary.crash_type) == (
        "cut_off",
        False,
        8,
        None,
    )
    assert [(step.parse, step.parse_reason, step.tool) for step in steps] == [("cut_off", "cut_off", None)] * 8
    assert "replies: 8 cut off [WARNING] 100% of these were cut off: raise agent.model.max_tokens" in status(tmp_path)
    (summary_file,) = (tmp_path / "results").glob("runs/*/summary.json")
    summary_file.unlink()  # as if this process was still at it
    assert "newest replies: 8 cut off [WARNING] 100% of these" in status(tmp_path)


def status(folder: Path) -> str:
    from typer.testing import CliRunner

    from vendomini.cli import app

    return " ".join(CliRunner().invoke(app, ["status", "-r", str(folder / "results")]).output.split())


@pytest.mark.parametrize(("name", "opened"), [("think", True), ("think", False), ("harmony", False)])
def test_a_grammar_begins_with_the_answer(name: str, opened: bool, tmp_path: Path) -> None:
    family = BY_NAME[name]
    said = links(family, opened=opened)
    opening = family.start if opened else ""
    model = make_thinking_model(tmp_path / "model", said, opening=opening, known=family.signs)
    _, _, steps = run(tmp_path, model, **{"agent.interface.structured_output": True, "simulation.max_steps": 1})
    thought = "".join(said[:-1])
    assert steps[0].completion.startswith(thought + '{"')
    assert steps[0].completion != thought + ANSWER, "the schema asks for spaces, so the grammar was not there"


def test_the_prefix_cache_stays_useful_where_thoughts_are_dropped(tmp_path: Path) -> None:
    model = make_thinking_model(tmp_path / "model", links(BY_NAME["think"]))
    template = json.loads((model / "tokenizer_config.json").read_text()).get("chat_template")
    file = model / "chat_template.jinja"
    source = template or file.read_text()
    dropping = source.replace("message['content'] }}", "message['content'].split('</think>')[-1].strip() }}")
    assert dropping != source
    file.write_text(dropping)
    _, _, steps = run(tmp_path, model, **{"simulation.max_steps": 40})
    assert not any(DRAFT in step.answer for step in steps if step.answer)
    prompts, cached = sum(step.prompt_tokens for step in steps), sum(step.cached_tokens or 0 for step in steps)
    assert cached / prompts > 0.85
