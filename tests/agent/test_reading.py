"""What `doctor --config` says of how a model's replies will be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conformance.test_templates import TEMPLATES
from tests.conformance.tokenizers import TOKENIZERS
from tests.thinking_model import ANSWER, make_thinking_model
from vendomini.agent import how_read
from vendomini.cli import app
from vendomini.config.schema import Model

BETWEEN = "a thought is between <think> and </think>"
CLOSED = TEMPLATES["thoughts kept"].removesuffix("\n") + "\n{% if not on %}<think>\n\n</think>\n\n{% endif %}"
SHARE = "thought and answer share 512 tokens, which a long thought uses up: set agent.model.max_thinking_tokens"
CASES = {
    "none": ("chatml", {}, ["family plain (neither", "an answer has up to 512 tokens"], ["thoughts of"]),
    "dropped": ("thoughts dropped", {}, [BETWEEN, "thoughts of earlier turns are dropped", SHARE], ["the prompt"]),
    "opened": (
        *("thoughts dropped, opened", {"max_thinking_tokens": 2048}),
        ["; the prompt begins it", "a thought has up to 2,048 tokens and an answer 512"],
        ["share"],
    ),
    "kept": ("thoughts kept", {}, ["(found in its chat template)", "thoughts of earlier turns are kept"], []),
    "closed": (CLOSED, {}, ["; the prompt ends it, so that there is none", "an answer has up to 512 tokens"], [SHARE]),
    "told": (
        *(CLOSED, {"chat_template_kwargs": {"on": True}}),
        [SHARE, 'the template is given {"on": true}'],
        ["the prompt ends"],
    ),
    "set": ("chatml", {"reply_format": "mistral"}, ["(set by agent.model.reply_format)", "between [THINK]"], []),
    "gpt-oss": ("chatml", {"reply_format": "harmony"}, ["the answer follows <|channel|>final<|message|>"], []),
}


@pytest.mark.parametrize("case", CASES)
def test_family_markers_limits_and_settings(case: str) -> None:
    template, settings, said, unsaid = CASES[case]
    tokenizer = TOKENIZERS["byte-level"](["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = TEMPLATES.get(template, template)
    told = how_read(tokenizer, Model(name="org/m", **settings))
    assert [part for part in said if part not in told] == []
    assert [part for part in unsaid if part in told] == []


def test_the_command_says_it_of_each_model(tmp_path: Path) -> None:
    folder = make_thinking_model(tmp_path / "model", ["[THINK]", "I wait.", "[/THINK]", ANSWER])
    config = tmp_path / "config.yaml"
    config.write_text(f"experiment: {{name: x}}\ngrid: {{agent.model.name: [{folder}, org/absent, scripted/oracle]}}\n")
    told = " ".join(CliRunner().invoke(app, ["doctor", "--config", str(config)]).output.split())
    first, _, rest = told.partition("org/absent")
    assert f"{folder} GPUs" in first
    assert "is read by: family mistral (found in its vocabulary); a thought is between [THINK]" in first
    absent, _, control = rest.partition("scripted/oracle")
    assert "vendomini prefetch org/absent" in absent.partition("is read by: ")[2]
    assert "is read by" not in control
