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


class TestLengthsAsTheEngineCounts:
    """Without a tokenizer here, lengths are estimated; the engine's own counts correct the estimate."""

    def talk(self, history: History, per_token: float, turns: int) -> list[float]:
        """Tokens of each prompt, for a tokenizer with so many characters a token."""
        sizes = []
        for number in range(turns):
            history.add_user(f"turn {number:4d} " + "x" * 190)
            sizes.append(sum(len(message["content"]) for message in history.messages) / per_token)
            history.count(round(sizes[-1]))
            history.add_assistant("y" * 100)
        return sizes

    @pytest.mark.parametrize("per_token", [1.5, 2.3, 3.5, 4.0])
    def test_prompts_stay_below_the_limit_and_use_it(self, per_token: float) -> None:
        history = History("s" * 400, context_length=4096, max_tokens=512)
        sizes = self.talk(history, per_token, 300)
        assert max(sizes) <= 4096 - 512 + 210 / per_token
        assert max(sizes) > 0.9 * (4096 - 512)
        assert history.epoch > 0

    def test_an_engine_that_counts_nothing_leaves_the_estimate(self) -> None:
        history, other = (History("s" * 400, context_length=4096, max_tokens=512) for _ in range(2))
        for number in range(200):
            for each in (history, other):
                each.add_user(f"{number} " + "x" * 200)
            history.count(0)
            for each in (history, other):
                each.add_assistant("y" * 100)
        assert history.messages == other.messages

    def test_what_is_too_long_loses_its_older_half_and_never_the_question(self) -> None:
        history = History("system", context_length=16384, max_tokens=512)
        self.talk(history, 4, 20)
        history.add_user("the question")
        before = len(history.messages)
        assert history.shorten()
        assert before / 2 - 2 <= len(history.messages) <= before / 2 + 2
        assert history.messages[0]["content"] == "system"
        assert history.messages[-1] == {"role": "user", "content": "the question"}
        assert [message["role"] for message in history.messages[1:3]] == ["user", "assistant"]
        while history.shorten():
            pass
        assert [message["content"] for message in history.messages] == ["system", "the question"]

    def test_what_was_too_long_once_is_not_tried_again(self) -> None:
        history = History("system", context_length=16384, max_tokens=512)
        self.talk(history, 4, 20)
        history.add_user("question")
        too_long = sum(len(message["content"]) for message in history.messages)
        history.shorten()
        history.add_assistant("answer")
        self.talk(history, 4, 60)
        history.add_user("question")
        assert sum(len(message["content"]) for message in history.messages) < too_long
