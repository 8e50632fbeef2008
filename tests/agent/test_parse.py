"""Which action a reply holds: the one that was answered, never one that was thought of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vendomini.agent.parse import COMPLAINTS, parse_completion
from vendomini.model_info.formats import FAMILIES, PLAIN, named_format
from vendomini.worlds.vending.config import VendingConfig
from vendomini.worlds.vending.tools import tool_specs

EVERYTHING = {"memory_tools": "full", "recovery_tools": "all"}
TOOLS = {spec.name for spec in tool_specs(VendingConfig.model_validate({"agent": {"interface": EVERYTHING}}))}
GOOD = '{"thought":"t","tool":"tool_order","arguments":{"quantity":3},"prediction":{"expected_success":true}}'
DRAFT = '{"thought":"draft","tool":"tool_end_day","arguments":{}}'
BARE = '{"quantity":3}'
UGLY = sorted((Path(__file__).parent.parent / "corpus" / "completion").glob("*.txt"))
WORDS = Path(__file__).parent.parent / "corpus" / "words"
OPENED = {name: replace(named_format(name), opened=True) for name in ("think", "mistral", "harmony", "cohere")}
CUT = {"finish_reason": "length"}
TOOLS_LINE = (
    '{"name":"tool_end_day","description":"Ends the day.","parameters":{"type":"object","properties":{},"required":[]}}'
)


def words(name: str) -> list[str]:
    """Sentences before or after a call, a line each."""
    lines = (WORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 30
    return lines


def parse(text: str, form=PLAIN, **how):
    return parse_completion(text, TOOLS, form, **how)


class TestOneAction:
    def test_ok(self):
        action = parse(GOOD)
        assert (action.parse, action.tool, action.arguments, action.thought) == (
            *("ok", "tool_order", {"quantity": 3}),
            "t",
        )
        assert action.card == {"expected_success": True}

    def test_a_second_thought_changes_no_call(self):
        assert parse('{"thought":"a","thought":"b","tool":"tool_end_day","arguments":{}}').parse == "ok"
        prose = parse('I end it: {"thought":"a","thought":"b","tool":"tool_end_day","arguments":{}}')
        assert (prose.parse, prose.tool) == ("repaired", "tool_end_day")

    def test_a_thought_stands_in_where_none_is_stated(self):
        assert parse('<think>hm</think>{"tool":"tool_end_day","arguments":{}}').thought == "hm"

    @pytest.mark.parametrize(
        "text",
        [
            f"Sure! Here it is:\n{GOOD}\nGood luck.",
            f"Ich mache Folgendes: {GOOD}",
            f"The stock is not enough, so I order:\n{GOOD}\nThen I wait.",
            f"<final>{GOOD}</final>",
            f"Thought: there is not enough.\nAction:\n{GOOD}",
            f"**Thought:** the stock is low.\n```\n{GOOD}\n```",
            f"If demand goes on, the stock might run out. I considered waiting.\n\n```json\n{GOOD}\n```",
            f"We can't wait any longer!\n{GOOD}",
            f"我的行动是：{GOOD}",
            f"```json\n{GOOD}\n```",
            f"```\n{GOOD}\n```",
            GOOD.replace('"', "'").replace("true", "True"),
            GOOD.replace("}}", "},}"),
            f"{GOOD}\n{GOOD}",
            f"[{GOOD}]",
            GOOD.replace('"tool"', '"name"').replace('"prediction"', '"card"'),
            GOOD.replace('{"quantity":3}', '"{\\"quantity\\": 3}"'),
            f'{{"tool_call": {GOOD}}}',
            f'{{"tool_calls": [{{"type": "function", "function": {GOOD}}}]}}',
            f'{{"action": {GOOD}}}',
            f'Customer {{"name":"C5"}} is due.\n{GOOD}',
            f"{TOOLS_LINE}\n{GOOD}",
            f"{{'a': }}\n{GOOD}",
            f"<tool_call>\n{GOOD}\n</tool_call>",
            f"\ufeff{GOOD}",
            f"{GOOD}}}",
            f"Budget = 2151.32\nNeeded = 13\n\n{GOOD}",
            f'{{"tool":{GOOD.replace(chr(34) + "tool" + chr(34), chr(34) + "name" + chr(34))}}}',
        ],
    )
    def test_repaired_without_changing_what_was_meant(self, text):
        action = parse(text)
        assert (action.parse, action.tool, action.arguments) == ("repaired", "tool_order", {"quantity": 3})
        assert action.card == {"expected_success": True}

    def test_reasons_in_front_of_a_call_are_reasons(self):
        for lead in words("reasons"):
            for text in (f"{lead}\n{GOOD}", f"{lead}\n\n```json\n{GOOD}\n```"):
                assert (parse(text).parse, parse(text).tool) == ("repaired", "tool_order"), lead

    def test_remarks_after_a_call_do_not_take_it_back(self):
        for remark in words("remarks"):
            assert parse(f"{GOOD}\n{remark}").tool == "tool_order", remark
        for remark in ("This orders 3 units.", "(restock)", "// restock", "# restock", "Note: it may be late."):
            assert parse(f"{GOOD} {remark}").tool == "tool_order", remark

    @pytest.mark.parametrize("key", ["arguments", "args", "parameters", "params", "action_input", "input"])
    def test_arguments_are_not_lost_under_another_key(self, key):
        assert parse(f'{{"tool":"tool_order","{key}":{BARE}}}').arguments == {"quantity": 3}
        both = parse(f'{{"tool":"tool_order","arguments":{{}},"{key}":{BARE}}}')
        assert both.arguments == (None if key == "arguments" else {"quantity": 3})

    @pytest.mark.parametrize(
        "text",
        [
            f'[TOOL_CALLS][{{"name":"tool_order","arguments":{BARE}}}]',
            f"[TOOL_CALLS]tool_order[ARGS]{BARE}",
            f'<|python_tag|>{{"name":"tool_order","parameters":{BARE}}}<|eom_id|>',
            f'<tool_call>\n{{"name":"tool_order","arguments":{BARE}}}\n</tool_call>',
            f"<function=tool_order>{BARE}</function>",
            f"Thought: low stock\nAction: tool_order\nAction Input: {BARE}",
            f"**Action:** `tool_order`\n**Action Input:**\n```json\n{BARE}\n```",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.tool_order:0<|tool_call_argument_begin|>"
            f"{BARE}<|tool_call_end|><|tool_calls_section_end|>",
            f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>tool_order\n```json\n{BARE}\n```<｜tool▁call▁end｜>",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.tool_order "
            f"<|constrain|>json<|message|>{BARE}<|call|>",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.tool_order<|channel|>commentary"
            f" json<|message|>{BARE}",
        ],
    )
    def test_a_family_s_native_call_is_read(self, text):
        action = parse(text)
        assert (action.parse, action.tool, action.arguments) == ("repaired", "tool_order", {"quantity": 3})

    @pytest.mark.parametrize("path", UGLY, ids=lambda p: p.stem)
    def test_corpus(self, path):
        expected, _, text = path.read_text(encoding="utf-8").partition("\n")
        action = parse(text)
        assert f"{action.parse} {action.tool}" == expected


class TestDrafts:
    """``DRAFT`` is thought of, quoted or rejected; only ``GOOD`` is answered."""

    @pytest.mark.parametrize(
        "text",
        [
            f"<think>a</think>\n<think>maybe {DRAFT}</think>\n{GOOD}",
            f"<think>{DRAFT}<think>{DRAFT}</think>{DRAFT}</think>{GOOD}",
            f"<think>```json\n{DRAFT}\n```</think>\n\n{GOOD}",
            f"{DRAFT}</think>{GOOD}",
            f"{GOOD}<think>or {DRAFT}</think>",
            f"[THINK]{DRAFT}[/THINK]{GOOD}",
            f"<thinking>{DRAFT}</thinking>{GOOD}",
            f"<Thinking>\n{DRAFT}\n</Thinking>\n{GOOD}",
            f"<reflection>{DRAFT}</reflection>\n{GOOD}",
            f"<scratchpad>{DRAFT}</scratchpad>\n{GOOD}",
            f"<|START_THINKING|>{DRAFT}<|END_THINKING|><|START_RESPONSE|>{GOOD}<|END_RESPONSE|>",
            f"<|channel>thought\n{DRAFT}<channel|>{GOOD}",
            f"analysis{DRAFT} I think.assistantfinal{GOOD}",
            f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}",
            f"<|channel|>commentary<|message|>I plan {DRAFT}<|end|><|start|>assistant<|channel|>final <|constrain|>json"
            f"<|message|>{GOOD}<|return|>",
            f"<think>{DRAFT}</think><response>{GOOD}</response>",
            f"<think>\n{DRAFT}\n</think>\n<answer>\n{GOOD}\n</answer>",
            f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>\n<|begin_of_solution|>{GOOD}<|end_of_solution|>",
            f"<seed:think>{DRAFT}</seed:think>{GOOD}",
            f"<mm:think>{DRAFT}</mm:think>{GOOD}",
            f"◁think▷{DRAFT}◁/think▷{GOOD}",
            f"<|inner_prefix|>{DRAFT}<|inner_suffix|>{GOOD}",
            f"Here is my thought process: {DRAFT}\nHere is my response: {GOOD}",
            f"{DRAFT}\n[BEGIN FINAL RESPONSE]\n{GOOD}\n[END FINAL RESPONSE]",
            f"<|open|>think<|sep|>{DRAFT}<|close|>think<|sep|><|open|>response<|sep|>{GOOD}<|close|>response<|sep|>",
            f"<seed:think>{DRAFT}<seed:cot_budget_reflect>12</seed:cot_budget_reflect></seed:think>{GOOD}<seed:eos>",
            f"<think>{DRAFT}</think>\n<|begin_of_box|>{GOOD}<|end_of_box|><|user|>",
            f"<thought>\n{DRAFT}\n</thought>\n\n{GOOD}[|endofturn|]",
            f"<think>{DRAFT}</think>\n{GOOD}\n<SPECIAL_12>",
            f'<think type="long">{DRAFT}</think >{GOOD}',
            f"<longcat_think>{DRAFT}</longcat_think>{GOOD}",
            f"<|thinking|>{DRAFT}<|/thinking|>{GOOD}",
            f"<|think_start|>{DRAFT}<|think_end|>\n{GOOD}",
            f"<｜begin▁of▁thinking｜>{DRAFT}<｜end▁of▁thinking｜>{GOOD}",
            f"<|message_thought|>{DRAFT}<|end_thought|>{GOOD}",
            f"<plan>{DRAFT}</plan>\n{GOOD}",
            f"<think>Then <tool_call>{DRAFT}</tool_call></think>{GOOD}",
            f"<think>{json.dumps(DRAFT)}</think>{GOOD}",
        ],
    )
    def test_a_thought_is_not_the_answer(self, text):
        action = parse(text)
        assert (action.parse, action.tool) == ("ok", "tool_order")

    @pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
    def test_every_family_s_thought_opened_by_the_prompt_or_not(self, family):
        answer = (family.answer[0] if family.answer else "") + GOOD
        for form, text in (
            (family, f"{family.start}{DRAFT} hm{family.end}{answer}"),
            (PLAIN, f"{family.start}{DRAFT} hm{family.end}{answer}"),
            (replace(family, opened=True), f"{DRAFT} hm{family.end}{answer}"),
        ):
            assert parse(text, form).parse == "ok", form
            assert parse(text, form).tool == "tool_order"
        for form, text in ((PLAIN, f"{family.start}{DRAFT}"), (replace(family, opened=True), DRAFT)):
            assert parse(text, form).reason == "no_answer"
            assert parse(text, form, **CUT).parse == "cut_off"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (f"<think>\nMaybe {DRAFT} but…", "no_answer"),
            (f"<think>{DRAFT}</think>", "no_answer"),
            (f"<|channel|>analysis<|message|>{DRAFT}<|end|>", "no_answer"),
            (f"analysis{DRAFT}", "no_answer"),
            (f"{GOOD}\n<think>or {DRAFT}", "no_answer"),
            (f"Do NOT do {DRAFT}. I do: {GOOD}", "ambiguous"),
            (f"Maybe {DRAFT} but I am not sure.", "ambiguous"),
            (f"Do not:\n\n{DRAFT}", "ambiguous"),
            (f"Do not do this.\n\n{DRAFT}", "ambiguous"),
            (f"For example:\n<tool_call>\n{DRAFT}\n</tool_call>", "ambiguous"),
            (f"Auf keinen Fall:\n{DRAFT}", "ambiguous"),
            (f"Je ne vais pas faire :\n{DRAFT}", "ambiguous"),
            (f"No haré esto:\n{DRAFT}", "ambiguous"),
            (f"不要执行：\n{DRAFT}", "ambiguous"),
            (f"{DRAFT}\n但是我不会这样做。", "ambiguous"),
            (f"The stock is low. The following would be wrong!\n{DRAFT}", "ambiguous"),
            (f"Here is an example.\n```json\n{DRAFT}\n```", "ambiguous"),
            (f"Example:\n```json\n{DRAFT}\n```", "ambiguous"),
            (f"<example>\n{DRAFT}\n</example>", "ambiguous"),
            (f"<tool_response>{DRAFT}</tool_response>", "ambiguous"),
            (f"Draft:\n```json\n{DRAFT}\n```\nI will not do this.", "ambiguous"),
            (f"I looked at this:\n{DRAFT}\nbut it is too early.", "ambiguous"),
            (f"If the stock was zero, I'd say:\n{DRAFT}", "ambiguous"),
            (f"> {DRAFT}\n\nThat was my last idea.", "ambiguous"),
            (f"Thinking Process:\n{DRAFT}", "ambiguous"),
            (f"<|think_start|>{DRAFT}", "no_answer"),
            (f"<plan>{DRAFT}", "no_answer"),
            (f"Vielleicht {DRAFT}, aber erst später.", "ambiguous"),
            (f"也许 {DRAFT} 但是现在不行。", "ambiguous"),
            (f"```json\n{DRAFT}\n```\nor rather\n```json\n{GOOD}\n```", "ambiguous"),
            (f"[{DRAFT},{GOOD}]", "ambiguous"),
            (f'{GOOD}\nOBSERVATION {{"step":2}}\n{DRAFT}', "ambiguous"),
            (f'{{"tool":"tool_order","arguments":{BARE},"params":{{"quantity":4}}}}', "ambiguous"),
            (f'{{"tool":"tool_order","name":"tool_end_day","arguments":{BARE}}}', "ambiguous"),
            (f'{{"tool_calls":[{DRAFT},{GOOD}]}}', "ambiguous"),
            (f"```python\nact({GOOD})\n```", "code"),
            (f"import json\nreply = {GOOD}\nprint(json.dumps(reply))", "code"),
            (f"```python\nreply = json.dumps(\n{GOOD}\n)\n```", "code"),
            (f"def act():\n    return {GOOD}", "code"),
            (TOOLS_LINE, "no_call"),
            ('{"name":"C5"}', "no_call"),
            ('{"name":"tool_end_day"}', "no_call"),
            ('{"name":"C5","arguments":{}}', "no_call"),
            ('{"tool":"tool_order","supplier_id":"SUP1","quantity":3}', "no_call"),
            (f'{{"draft":{DRAFT},"final":{GOOD}}}', "no_call"),
            ('{"tool":"tool_end_day","tool":"tool_order","arguments":{}}', "key_twice"),
            ('{"tool":"tool_order","arguments":{"quantity":3,"quantity":30}}', "key_twice"),
            ('{"tool":"tool_end_day","arguments":{},"prediction":{"expected_cost":1,"expected_cost":2}}', "key_twice"),
            ('{"thought":"10:30","tool":"tool_order","arguments":{"a":{"b":1, "b" : 2}}}', "key_twice"),
            ("{'tool': 'tool_order', 'arguments': {'quantity': 3, 'quantity': 30}}", "key_twice"),
            ('{"tool":"tool_order","arguments":{"quantity":3,"quantity":30},}', "key_twice"),
            (f'{{"tool":"tool_order","arguments":{{"quantity":3,"quantity":30}}}} or {DRAFT}', "key_twice"),
            ('[TOOL_CALLS]tool_order[ARGS]{"quantity":3,"quantity":30}', "key_twice"),
            ("call:tool_order{quantity:3,quantity:30}", "key_twice"),
            ("[tool_order(quantity=3,quantity=30)]", "key_twice"),
            ('[tool_order(supplier={"a":1,"a":2})]', "key_twice"),
            ('{"tool":"tool_order","arguments":"{\\"quantity\\":3,\\"quantity\\":30}"}', "key_twice"),
            (
                "<function=tool_order><parameter=quantity>3</parameter><parameter=quantity>30</parameter></function>",
                "key_twice",
            ),
            ('<function=tool_order><parameter=prediction>{"a":1,"a":2}</parameter></function>', "key_twice"),
            (
                '<tool_call>tool_order<arg_key>q</arg_key><arg_value>{"a":1,"a":2}</arg_value></tool_call>',
                "key_twice",
            ),
            ("{}", "no_call"),
            ('{"tool": 3, "arguments": {}}', "no_call"),
            (f'{{"thought":"x","plan":{DRAFT}', "broken"),
            (GOOD[:-1], "broken"),
            (GOOD[:60], "broken"),
            (f"{{{{{{{GOOD}", "broken"),
            ("I order 3 units.", "no_object"),
            ("null", "no_object"),
            ("", "empty"),
            ("   ", "empty"),
        ],
    )
    def test_unparsable_says_why_and_acts_nothing(self, text, reason):
        action = parse(text)
        assert (action.parse, action.tool, action.arguments, action.card) == ("unparsable", None, None, None)
        assert (action.reason, action.error) == (reason, COMPLAINTS[reason])
        assert parse(text, **CUT).parse == "cut_off"

    def test_a_lead_that_speaks_of_something_else_than_the_call(self):
        for lead in words("mentions"):
            assert parse(f"{lead}\n{DRAFT}").reason == "ambiguous", lead

    def test_a_call_that_is_taken_back(self):
        for after in words("taken_back"):
            for text in (f"{DRAFT}\n{after}", f"{DRAFT}\n\n{after}", f"{DRAFT} {after}"):
                assert parse(text).reason == "ambiguous", after

    @pytest.mark.parametrize("after", ["is what I would do.", "would fail", "Example only.", "(wrong)", "# bad"])
    def test_a_sentence_about_a_call(self, after):
        assert parse(f"{DRAFT} {after}").reason == "ambiguous"

    @pytest.mark.parametrize("name", OPENED)
    def test_a_thought_that_the_prompt_opened(self, name):
        form = OPENED[name]
        assert parse(f"Maybe {DRAFT} but…", form, **CUT).reason == "cut_off"
        assert parse(f"Maybe {DRAFT} but…", form).reason == "no_answer"
        assert parse(DRAFT, form).reason == "no_answer"

    def test_markers_inside_a_text_of_the_answer_are_text(self):
        for mark in ("</think>", "<think>", "[/THINK]", "<|channel>thought\n", "<answer>"):
            answer = msgspec.json.encode({"thought": f"I stop my {mark} here", "tool": "tool_end_day", "arguments": {}})
            for before, form in (("", PLAIN), ("hm</think>", OPENED["think"]), ("<think>hm</think>\n", PLAIN)):
                action = parse(before + answer.decode(), form)
                assert (action.parse, action.tool) == ("ok", "tool_end_day"), (mark, before)

    def test_a_limit_that_falls_behind_the_whole_answer_cuts_nothing(self):
        assert parse(GOOD, **CUT).parse == "ok"
        assert parse(f"```json\n{GOOD}\n", **CUT).parse == "repaired"
        assert parse(f"{GOOD}\nOn second thoughts", **CUT).parse == "cut_off"

    def test_what_a_server_has_taken_apart(self):
        action = parse(GOOD.replace('"thought":"t",', ""), reasoning=f"Maybe {DRAFT}")
        assert (action.parse, action.tool, action.thought) == ("ok", "tool_order", f"Maybe {DRAFT}")
        assert parse("", reasoning=f"Maybe {DRAFT}").reason == "no_answer"
        assert parse("I can't help with that.", finish_reason="refused").reason == "refused"


class TestNativeForms:
    """Of a call, without a JSON object."""

    @pytest.mark.parametrize(
        "text",
        [
            "<tool_call>\n<function=tool_order>\n<parameter=quantity>\n3\n</parameter>\n</function>\n</tool_call>",
            f"<function=tool_order><parameter=arguments>{BARE}</parameter></function>",
            "<tool_call>tool_order\n<arg_key>quantity</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
            f'<think>{DRAFT}</think>\n<minimax:tool_call>\n<invoke name="tool_order">\n'
            '<parameter name="quantity">3</parameter>\n</invoke>\n</minimax:tool_call>',
            "<|tool_call_start|>[tool_order(quantity=3)]<|tool_call_end|>",
            "[tool_order(quantity=3)]",
            "```tool_code\ntool_order(quantity=3)\n```",
            "```tool_code\nprint(default_api.tool_order(quantity=3))\n```",
            "<|python_tag|>tool_order.call(quantity=3)",
            "<function_calls>\ntool_order(quantity=3)\n</function_calls>",
            "<code>\ntool_order(quantity=3)\n</code>",
            "<start_function_call>call:tool_order{quantity:3}<end_function_call>",
            "<|tool_call>call:tool_order{quantity:3}<tool_call|>",
            "<longcat_tool_call>tool_order\n<longcat_arg_key>quantity</longcat_arg_key>\n"
            "<longcat_arg_value>3</longcat_arg_value>\n</longcat_tool_call>",
            '<steptml:invoke name="tool_order">\n<steptml:parameter name="quantity">3</steptml:parameter>\n'
            "</steptml:invoke>",
            '<｜DSML｜function_calls>\n<｜DSML｜invoke name="tool_order">\n'
            '<｜DSML｜parameter name="quantity" string="false">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
            "</｜DSML｜function_calls>",
            '<|tools_prefix|>[{"tool_order": {"quantity": 3}}]<|tools_suffix|>',
        ],
    )
    def test_a_call(self, text):
        action = parse(text)
        assert (action.parse, action.tool, action.arguments) == ("repaired", "tool_order", {"quantity": 3})

    def test_values_are_json_where_they_can_be_and_text_elsewhere(self):
        values = {"a": "5", "b": "S1", "c": "true", "d": '{"x":[1]}', "e": "\n two words \n", "f": "NaN"}
        body = "".join(f"<parameter={key}>{value}</parameter>" for key, value in values.items())
        given = parse(f"<function=tool_order>{body}</function>").arguments
        assert given == {"a": 5, "b": "S1", "c": True, "d": {"x": [1]}, "e": " two words ", "f": "NaN"}

    def test_texts_of_families_with_quotes_of_their_own(self):
        for quote in ("<escape>", '<|"|>'):
            text = f"call:tool_order{{sku:{quote}a:b, {{c}}{quote},more:{{n:1,on:true}}}}<end_function_call>"
            assert parse(text).arguments == {"sku": "a:b, {c}", "more": {"n": 1, "on": True}}
        invoked = '<invoke name="tool_order"><parameter name="sku" string="true">7</parameter></invoke>'
        assert parse(invoked).arguments == {"sku": "7"}

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("call:tool_fly{a:1}", "no_call"),
            ("call:tool_order{a:}", "no_call"),
            ("print(tool_order(quantity=3), 1)", "no_object"),
            ("x = tool_order(quantity=3)", "no_object"),
            ("[tool_order(quantity=3), tool_end_day()]", "ambiguous"),
            ("[tool_order(3)]", "no_object"),
            ("<code>tool_order(quantity=3)\ntool_end_day()</code>", "ambiguous"),
            ("tool_order(quantity=3)", "no_object"),
            ("I call tool_order(quantity=3)", "no_object"),
            ("[tool_order(quantity={1})]", "no_call"),
            ("[tool_order(quantity=f(x))]", "no_object"),
            ("<function=tool_order><parameter=q>1</parameter><parameter=q>2</parameter></function>", "key_twice"),
            ("<function=tool_order>three</function>", "no_object"),
            ("<function=tool_fly><parameter=q>1</parameter></function>", "no_object"),
            ("I would not <function=tool_end_day></function>", "ambiguous"),
            ("For example:\n<tool_call>tool_end_day</tool_call>", "ambiguous"),
            ("<function=tool_end_day></function><function=tool_order></function>", "ambiguous"),
        ],
    )
    def test_what_is_no_call(self, text, reason):
        action = parse(text)
        assert (action.parse, action.reason, action.tool) == ("unparsable", reason, None)


class TestHostile:
    def test_numbers_that_no_log_can_hold(self):
        text = '{"thought":"","tool":"t","arguments":{"a":%s,"b":NaN,"c":1e999,"d":-Infinity}}' % ("9" * 400)
        assert parse_completion(text, {"t"}).arguments == {"a": None, "b": None, "c": None, "d": None}
        long = '{"tool":"t","arguments":{"a":36893488147419103232}}'
        assert parse_completion(long, {"t"}).arguments == {"a": 2.0**65}

    def test_a_megabyte_takes_no_longer_than_its_search_window(self):
        pieces = ("{", '{"a":', "'", "\\", "{'", '{"tool":"t","arguments":{},', "\ud800", "</think>", "</think>{")
        for piece in (
            *pieces,
            "<think>",
            "<|channel|>",
            "<|channel|>a<|message|>",
            "[TOOL_CALLS]x",
            "<function=a>",
            "<function=a></function>",
            "<tool_call>a<arg_key>",
            "<parameter=a>",
            "[a(",
            "call:a{",
            "call:a{}<",
            "call:a{b:<escape>",
            "`a\n",
            "a = ",
            "  ",
        ):
            parse(piece * (1_000_000 // len(piece)))

    @settings(max_examples=2000, deadline=None)
    @given(st.text(st.characters(), max_size=120) | st.from_regex(r"[\{\}\[\]\"':,\\a-c0-9eE.\-\s]{0,80}"))
    @example('{"tool":"\\ud800","arguments":{"\\ud800":"\\udfff"}}')
    def test_nothing_raises_and_everything_can_be_logged(self, text):
        action = parse(text)
        msgspec.json.encode([action.tool, action.arguments, action.card, action.thought, action.error])
