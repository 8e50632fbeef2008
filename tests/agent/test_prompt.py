"""What the agent is told, and how it is asked to reply."""

from __future__ import annotations

import json

import jsonschema
import pytest

from vendomini.agent import output_schema, reply_schema, system_prompt
from vendomini.worlds.conversation import user_turn
from vendomini.worlds.vending import WORLD
from vendomini.worlds.vending.config import VendingConfig


class TestPrompt:
    def asked(self, level=1, **interface):
        tree = {"simulation": {"complexity_level": level}, "agent": {"interface": interface}}
        config = VendingConfig.model_validate(tree)
        return WORLD(config), config.agent.interface

    def test_has_rules_tools_and_the_reply_s_schema(self):
        rules, _, rest = system_prompt(*self.asked(prediction_format="minimal")).partition("\nTOOLS\n")
        tools, _, reply = rest.partition("\n\nREPLY\n")
        assert "4 steps" in rules
        assert [json.loads(line)["name"] for line in tools.splitlines()][0] == "tool_order"
        assert set(json.loads(reply)["properties"]["prediction"]["properties"]) == {
            "expected_success",
            "expected_delivery_day",
        }

    def test_asks_for_a_card_exactly_where_it_is_required(self):
        assert "prediction" in reply_schema(*self.asked(prediction_mode="required"))["required"]
        assert "prediction" not in reply_schema(*self.asked(prediction_mode="optional"))["required"]

    def test_structured_output_ties_arguments_to_their_tool(self):
        schema = output_schema(*self.asked(prediction_mode="optional"))
        jsonschema.validate({"thought": "", "tool": "tool_end_day", "arguments": {}}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"thought": "", "tool": "tool_order", "arguments": {}}, schema)

    def test_offers_only_the_tools_of_the_config(self):
        assert "tool_ask_help" not in system_prompt(*self.asked())
        assert "tool_ask_help" in system_prompt(*self.asked(recovery_tools="help"))
        assert "scratchpad" not in system_prompt(*self.asked(memory_tools="none"))

    def test_fits_a_short_context_at_every_level(self):
        for level in range(5):
            assert len(system_prompt(*self.asked(level, recovery_tools="all"))) < 10_500

    def test_the_numbers_of_the_rules_are_those_of_the_code(self, monkeypatch):
        monkeypatch.setattr("vendomini.worlds.vending.rules.BANKRUPT_EVENINGS", 7)
        monkeypatch.setattr("vendomini.worlds.vending.rules.EXPIRY_DAYS", 23)
        prompt = system_prompt(*self.asked())
        assert "7 evenings in a row" in prompt
        assert "due in 3 days, gone after 23." in prompt

    def test_turns_are_lines_of_json(self):
        first, second = user_turn({"step": 1}, None), user_turn({"step": 2}, {"ok": True})
        assert first == 'OBSERVATION {"step":1}'
        assert second == 'RESULT {"ok":true}\nOBSERVATION {"step":2}'
