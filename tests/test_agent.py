"""The agent's side: what is asked for, what is understood, and what the model still remembers."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tiny_model import make_tiny_model
from vendomini.agent import History, output_schema, parse_completion, reply_schema, system_prompt, user_turn
from vendomini.agent.template import ChatTemplate
from vendomini.config import RunConfig
from vendomini.errors import ConfigError

GOOD = '{"thought":"t","tool":"tool_order","arguments":{"quantity":3},"prediction":{"expected_success":true}}'
UGLY = sorted((Path(__file__).parent / "corpus" / "completion").glob("*.txt"))


class TestParse:
    def test_ok(self):
        action = parse_completion(GOOD)
        assert (action.parse, action.tool, action.arguments, action.thought) == (
            "ok",
            "tool_order",
            {"quantity": 3},
            "t",
        )
        assert action.card == {"expected_success": True}

    def test_thinking_block_is_the_model_s_own(self):
        action = parse_completion("<think>\nhm {not this}\n</think>\n" + GOOD)
        assert (action.parse, action.tool) == ("ok", "tool_order")
        without_thought = '<think>hm</think>{"tool":"tool_end_day","arguments":{}}'
        assert parse_completion(without_thought).thought == "hm"

    @pytest.mark.parametrize(
        "text",
        [
            f"Sure! Here it is:\n{GOOD}\nGood luck.",
            f"```json\n{GOOD}\n```",
            GOOD.replace('"', "'").replace("true", "True"),
            GOOD.replace("}}", "},}"),
            GOOD + GOOD.replace("3", "4"),
            f"[{GOOD}]",
            GOOD.replace('"tool"', '"name"').replace('"prediction"', '"card"'),
            GOOD.replace('{"quantity":3}', '"{\\"quantity\\": 3}"'),
            f'{{"tool_call": {GOOD}}}',
            "{{{" + GOOD,
            "{'a': } " + GOOD,
        ],
    )
    def test_repaired_without_changing_what_was_meant(self, text):
        action = parse_completion(text)
        assert (action.parse, action.tool, action.arguments) == ("repaired", "tool_order", {"quantity": 3})
        assert action.card == {"expected_success": True}

    @pytest.mark.parametrize(
        "text",
        ["", "   ", "I order 3 units.", GOOD[:-1], GOOD[:60], "{}", '{"tool": 3, "arguments": {}}', "null", "[]"],
    )
    def test_unparsable_says_why_and_acts_nothing(self, text):
        action = parse_completion(text)
        assert (action.parse, action.tool, action.arguments, action.card) == ("unparsable", None, None, None)
        assert action.error.startswith("the reply")

    def test_numbers_that_no_log_can_hold(self):
        text = '{"thought":"","tool":"t","arguments":{"a":%s,"b":NaN,"c":1e999,"d":-Infinity}}' % ("9" * 400)
        assert parse_completion(text).arguments == {"a": None, "b": None, "c": None, "d": None}
        assert parse_completion('{"tool":"t","arguments":{"a":36893488147419103232}}').arguments == {"a": 2.0**65}

    @pytest.mark.parametrize("path", UGLY, ids=lambda p: p.stem)
    def test_corpus(self, path):
        expected, _, text = path.read_text(encoding="utf-8").partition("\n")
        action = parse_completion(text)
        assert f"{action.parse} {action.tool}" == expected

    def test_a_megabyte_takes_no_longer_than_its_search_window(self):
        for piece in ("{", '{"a":', "'", "\\", "{'", '{"tool":"t","arguments":{},', "\ud800", "</think>", "</think>{"):
            parse_completion(piece * (1_000_000 // len(piece)))

    @settings(max_examples=2000, deadline=None)
    @given(st.text(st.characters(), max_size=120) | st.from_regex(r"[\{\}\[\]\"':,\\a-c0-9eE.\-\s]{0,80}"))
    @example('{"tool":"\\ud800","arguments":{"\\ud800":"\\udfff"}}')
    def test_nothing_raises_and_everything_can_be_logged(self, text):
        import msgspec

        action = parse_completion(text)
        msgspec.json.encode([action.tool, action.arguments, action.card, action.thought, action.error])


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


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("tiny")))


class TestHistory:
    def talk(self, history, turns, start=0):
        for n in range(start, start + turns):
            history.add_user(f"observation {n} " + "x" * 40)
            history.add_assistant(f"answer {n}")

    def test_is_the_template_s_own_rendering(self, tokenizer):
        history = History("rules", context_length=4096, max_tokens=64, tokenizer=tokenizer)
        self.talk(history, 3)
        history.add_user("and now")
        rendered = tokenizer.apply_chat_template(history.messages, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(history.token_ids) == rendered

    def test_grows_only_at_the_end_between_evictions(self, tokenizer):
        history = History("rules", context_length=600, max_tokens=64, tokenizer=tokenizer)
        before, epoch, evictions = [], 0, 0
        for n in range(60):
            history.add_user(f"observation {n}")
            assert len(history.token_ids) + 64 <= 600
            if history.epoch == epoch:
                assert history.token_ids[: len(before)] == before
            else:
                epoch, evictions = history.epoch, evictions + 1
            before = list(history.token_ids)
            history.add_assistant(f"answer {n}")
        assert 1 <= evictions <= 10

    def test_after_an_eviction_it_is_still_a_conversation(self, tokenizer):
        history = History("rules", context_length=500, max_tokens=64, tokenizer=tokenizer)
        self.talk(history, 40)
        history.add_user("and now")
        assert history.epoch > 0
        assert [m["role"] for m in history.messages[:3]] == ["system", "user", "assistant"]
        rendered = tokenizer.apply_chat_template(history.messages, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(history.token_ids) == rendered

    def test_clear_keeps_the_rules(self, tokenizer):
        history = History("rules", context_length=4096, max_tokens=64, tokenizer=tokenizer)
        head = list(history.token_ids)
        self.talk(history, 3)
        history.clear()
        assert (history.token_ids, [m["role"] for m in history.messages]) == (head, ["system"])

    def test_without_a_tokenizer_lengths_are_estimated(self):
        history = History("rules", context_length=1024, max_tokens=64)
        self.talk(history, 500)
        assert 4 * 200 < sum(len(m["content"]) for m in history.messages) < 4 * 1024

    def test_no_room_is_said(self):
        with pytest.raises(ConfigError, match="leaves no room"):
            History("x" * 4000, context_length=1024, max_tokens=64)

    def test_no_template_is_said(self, tokenizer):
        import copy

        bare = copy.deepcopy(tokenizer)
        bare.chat_template = None
        with pytest.raises(ConfigError, match="has no chat template"):
            ChatTemplate(bare, "rules")

    def test_a_template_without_a_system_role(self, tokenizer):
        import copy

        picky = copy.deepcopy(tokenizer)
        picky.chat_template = (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            + tokenizer.chat_template
        )
        history = History("rules", context_length=4096, max_tokens=64, tokenizer=picky)
        history.add_user("go")
        assert "<|user|>\nrules\n\ngo<|end|>" in tokenizer.decode(history.token_ids)
