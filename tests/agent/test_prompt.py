"""What the agent is told, and how it is asked to reply."""

from __future__ import annotations

import json

import jsonschema
import pytest

from vendomini.agent import output_schema, reply_schema, system_prompt, user_turn
from vendomini.config import RunConfig


class TestPrompt:
    def config(self, **interface):
        return RunConfig.model_validate({"agent": {"interface": interface}})

    def test_has_rules_tools_and_the_reply_s_schema(self):
        config = self.config(prediction_format="minimal")
        rules, _, rest = system_prompt(config).partition("\nTOOLS\n")
        tools, _, reply = rest.partition("\n\nREPLY\n")
        assert "4 steps" in rules
        assert [json.loads(line)["name"] for line in tools.splitlines()][0] == "tool_order"
        assert set(json.loads(reply)["properties"]["prediction"]["properties"]) == {
            "expected_success",
            "expected_delivery_day",
        }

    def test_asks_for_a_card_exactly_where_it_is_required(self):
        assert "prediction" in reply_schema(self.config(prediction_mode="required"))["required"]
        assert "prediction" not in reply_schema(self.config(prediction_mode="optional"))["required"]

    def test_structured_output_ties_arguments_to_their_tool(self):
        schema = output_schema(self.config(prediction_mode="optional"))
        jsonschema.validate({"thought": "", "tool": "tool_end_day", "arguments": {}}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"thought": "", "tool": "tool_order", "arguments": {}}, schema)

    def test_offers_only_the_tools_of_the_config(self):
        assert "tool_ask_help" not in system_prompt(self.config())
        assert "tool_ask_help" in system_prompt(self.config(recovery_tools="help"))
        assert "scratchpad" not in system_prompt(self.config(memory_tools="none"))

    def test_fits_a_short_context_at_every_level(self):
        for level in range(5):
            data = {"simulation": {"complexity_level": level}, "agent": {"interface": {"recovery_tools": "all"}}}
            assert len(system_prompt(RunConfig.model_validate(data))) < 10_500

    def test_turns_are_lines_of_json(self):
        first, second = user_turn({"step": 1}, None), user_turn({"step": 2}, {"ok": True})
        assert first == 'OBSERVATION {"step":1}'
        assert second == 'RESULT {"ok":true}\nOBSERVATION {"step":2}'
