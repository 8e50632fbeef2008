"""Templates of the kinds that models have, written for these tests: taken apart, and equal token for token."""

from __future__ import annotations

import pytest

from tests.conformance.templates import SYSTEM, check
from tests.conformance.tokenizers import TOKENIZERS
from vendomini.agent.template import ChatTemplate
from vendomini.errors import ConfigError

CHATML = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

TEMPLATES = {
    "chatml": CHATML,
    "brackets": """<s>{% if messages[0].role == 'system' %}{% set rules = messages[0].content %}{% endif %}
{%- for m in messages %}{% if m.role == 'user' %}[INST] {% if rules %}<<SYS>>
{{ rules }}
<</SYS>>

{% set rules = '' %}{% endif %}{{ m.content }} [/INST]{% elif m.role == 'assistant' %} {{ m.content }} </s><s>
{%- endif %}{% endfor %}""",
    "labels that end in a space": """<s>{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}

{% elif m.role == 'assistant' %}Assistant: {{ m.content }}</s>{% else %}{{ m.content }}

{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}""",
    "no special token at all": """{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}assistant:""",
    "rules in the last turn": """<s>{% for m in messages %}{% if m.role == 'user' %}[INST]
{%- if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}{{ m.content }}[/INST]{% elif m.role == 'assistant' %}{{ m.content }}</s>{% endif %}{% endfor %}""",
    "lists of parts": """{% for m in messages %}<|im_start|>{{ m.role }}
{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}{{ raise_exception('no') }}{% endif %}
{%- endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
""",
    "thoughts dropped": """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content.split('</think>')[-1].strip() }}<|im_end|>
{% endfor %}<|im_start|>assistant
""",
    "thoughts dropped, opened": """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content.split('</think>')[-1].strip() }}<|im_end|>
{% endfor %}<|im_start|>assistant
<think>
""",
    "thoughts kept": """{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
""",
    "tools counted": "{% if tools | length > 0 %}TOOLS{% endif %}" + CHATML,
}
THOUGHTS = {
    "thoughts dropped": (False, False),
    "thoughts dropped, opened": (True, False),
    "thoughts kept": (False, True),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_have_the_template_s_own_tokens(name: str, kind: str) -> None:
    verdict = check(name, TEMPLATES[name], TOKENIZERS[kind])
    assert (verdict.refused, verdict.unequal) == ("", [])
    assert verdict.history is not None
    form, template = verdict.history.format, verdict.history._template
    assert template is not None
    expected = THOUGHTS.get(name)
    assert (form.name == "think") == (expected is not None)
    if expected:
        assert (form.opened, template.keeps_thoughts) == expected


def test_a_template_that_forgets_the_rules_is_refused() -> None:
    source = "{% for m in messages %}{% if m.role != 'system' %}{{ loop.index0 }}<|im_end|>{% endif %}{% endfor %}"
    assert "it drops the system message" in check("forgets", source, TOKENIZERS["byte-level"]).refused


def test_of_several_templates_one_that_is_for_chats() -> None:
    tokenizer = TOKENIZERS["byte-level"](["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = {"tool_use": "{{ tools }}", "chat": CHATML}
    assert ChatTemplate(tokenizer, SYSTEM).head.startswith("<|im_start|>system")
    tokenizer.chat_template = {"tool_use": CHATML}
    with pytest.raises(ConfigError, match="has no chat template"):
        ChatTemplate(tokenizer, SYSTEM)


def test_the_clock_of_a_template_stands_still() -> None:
    tokenizer = TOKENIZERS["byte-level"](["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = "Today is {{ strftime_now('%d %b %Y') }}.\n" + CHATML
    assert ChatTemplate(tokenizer, SYSTEM).head.startswith("Today is 01 Jan 2026.")
    assert ChatTemplate(tokenizer, SYSTEM, today="2025-06-30").head.startswith("Today is 30 Jun 2025.")
