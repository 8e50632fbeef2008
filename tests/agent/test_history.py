"""What the model still remembers: the template's own rendering, within its budget."""

from __future__ import annotations

import copy

import pytest

from tests.tiny_model import make_tiny_model
from vendomini.agent import History
from vendomini.agent.template import ChatTemplate
from vendomini.errors import ConfigError


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
        bare = copy.deepcopy(tokenizer)
        bare.chat_template = None
        with pytest.raises(ConfigError, match="has no chat template"):
            ChatTemplate(bare, "rules")

    def test_a_template_without_a_system_role(self, tokenizer):
        picky = copy.deepcopy(tokenizer)
        picky.chat_template = (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            + tokenizer.chat_template
        )
        history = History("rules", context_length=4096, max_tokens=64, tokenizer=picky)
        history.add_user("go")
        assert "<|user|>\nrules\n\ngo<|end|>" in tokenizer.decode(history.token_ids)
