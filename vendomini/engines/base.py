"""What an engine is: something that completes prompts, many at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Protocol, Self

import msgspec

from vendomini.model_info.formats import ReplyFormat
from vendomini.worlds.conversation import Message

FinishReason = Literal["stop", "length", "refused"]
"""The model ended its reply, the reply was cut at a limit, or a provider's filter or the model itself declined."""


class Prompt(Protocol):
    """A conversation that grows at its end. The same object is passed at every step of an episode.

    Attributes:
        messages: the visible conversation, the last one the user's.
        token_ids: the same in the model's chat template, ready to be completed; empty where the engine has no
            tokenizer. The list grows with the next turn: what is to stay must be copied.
        epoch: rises whenever anything but the end changed (old turns dropped, history cleared), so that an engine that
            keeps state for this object knows when to start over.
    """

    @property
    def messages(self) -> list[Message]: ...
    @property
    def token_ids(self) -> list[int]: ...
    @property
    def epoch(self) -> int: ...


class SamplingParams(msgspec.Struct, frozen=True, gc=False):
    """How to sample one completion.

    Attributes:
        max_tokens: of the whole completion, thought and answer together.
        max_thinking_tokens: of the thought alone; None for no separate limit.
        thinking: how the model marks a thought; None for a model that has none.
        temperature: 0 is greedy.
        top_p: nucleus.
        top_k: only this many of the most likely tokens; 0 for all of them.
        min_p: only tokens at least this fraction as likely as the most likely one.
        presence_penalty: subtracted from the logit of every token that the completion already holds.
        frequency_penalty: the same, times how often it holds it.
        repetition_penalty: divides the positive and multiplies the negative logits of tokens that the prompt or the
            completion holds.
        seed: of this request alone; two requests with the same prompt, parameters and seed get the same answer
            wherever the engine can promise it (``docs/architecture.md`` says where).
        stop: strings that end the completion; not part of its text.
        json_schema: constrains the answer to this schema, not the thought before it.

    A way of sampling (``config.schema.SAMPLING``) that is None is left open: a server uses its own default, the other
    engines do without.
    """

    max_tokens: int
    temperature: float | None = 1.0
    top_p: float | None = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    max_thinking_tokens: int | None = None
    thinking: ReplyFormat | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None


class Completion(msgspec.Struct, frozen=True, gc=False):
    """What came back.

    Attributes:
        text: as it was generated. Special tokens are kept, since they mark where a thought ends and the answer
            begins; only the token or string that ended the completion is removed. Where ``reasoning`` is given, the
            answer alone.
        finish_reason: how it ended.
        prompt_tokens: length of the prompt, in tokens.
        cached_tokens: how many of these the engine did not recompute; None where it does not say.
        completion_tokens: length of the completion, thought included, in tokens.
        latency_s: seconds from request to last token; None where the engine takes no time (scripted).
        reasoning: the thought, where a server has already taken it apart from the answer; None where it has not,
            and "" where it has and found none.
        raw_finish_reason: the engine's own word for how it ended, where it differs.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    latency_s: float | None = None
    reasoning: str | None = None
    raw_finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs, for logs and summaries. Describes the model as loaded, not as configured.

    Attributes:
        backend: ``vllm``, ``hf``, ``scripted`` or ``openai``.
        model: as in the config.
        attention: implementation that the loaded model reports, where there is one.
        details: versions, devices, tensor_parallel_size, dtype, …
        rejected: engine → why it was passed over.
    """

    backend: str
    model: str
    attention: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)


class Engine(ABC):
    """One loaded model. An async context manager: entering loads, leaving frees everything.

    Attributes:
        info: what runs; complete once entered.
        max_num_seqs: episodes that it pays to keep in flight.
        tokenizer: the model's own (a Transformers tokenizer), or None.
        context_length: tokens the loaded model accepts, prompt and completion together; None if unbounded.
        sampling_defaults: sampling parameters from the loaded model's ``generation_config.json``, for those that the
            config leaves open; a server applies its own.
        elsewhere: whether another process computes, whose answer a stop need not wait for.
        gone: why this engine will never answer again; None while it may. Waiting runs are then left for another start
            instead of failing one after another.
    """

    info: EngineInfo
    max_num_seqs: int
    tokenizer: Any = None
    context_length: int | None = None
    sampling_defaults: Mapping[str, float] = MappingProxyType({})
    elsewhere: bool = False
    gone: str | None = None

    @abstractmethod
    async def generate(self, prompt: Prompt, params: SamplingParams) -> Completion:
        """Completes one prompt. Safe to call many times at once; cancelling the task aborts the request.

        Raises:
            EngineError: the engine could not answer; its runs are to be rerun.
        """

    async def start(self) -> None:  # noqa: B027 - an engine may have nothing to load
        """Loads the model.

        Raises:
            EngineUnavailable: it can't run here; nothing is left behind.
        """

    async def close(self) -> None:  # noqa: B027 - an engine may have nothing to free
        """Frees the model and ends every process it began. Closing twice is fine."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
