"""Continuous batching for a Transformers model: requests join and leave the batch between two forward passes.

Runs in one thread of its own. Each turn of the loop feeds either what new prompts still lack, or one token for every
conversation in flight; a conversation's keys and values stay in its slot for its next turn.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from vendomini.engines.base import SamplingParams
from vendomini.engines.hf.cache import PREFILL_TOKENS, Slot, common_prefix
from vendomini.engines.hf.forward import CannotBatch
from vendomini.engines.hf.prefill import PrefillSchedule
from vendomini.engines.hf.request import Request
from vendomini.engines.hf.sampling import Grammars, has_penalty, penalise, sample
from vendomini.engines.hf.thought import Thought
from vendomini.errors import EngineError

Tensor = Any
Forward = Callable[[list[tuple[int, list[int], int]]], Tensor]


class Kept(Protocol):
    """What is kept of the conversations, one slot each; ``limit`` is the context."""

    slots: int
    limit: int

    def truncate(self, slot: Slot, length: int, /) -> int: ...
    def copy_prefix(self, source: Slot, target: Slot, length: int, /) -> bool: ...


class Batcher:
    """The loop.

    Args:
        forward: (slot, new tokens, position of the first) of each row → logits after its last token, ``[rows, vocab]``.
        cache: where keys and values are; its ``limit`` is the context.
        eos: tokens that end a completion.
        decode: token ids → text, special tokens included.
        thoughts: what follows the thought of a request, where it needs to be followed.
        first_look: called with the first whole prompt and the logits after it; raises ``CannotBatch`` if they can't be
            right. Every request, of which none has a token yet, then fails with that.
    """

    def __init__(
        self,
        forward: Forward,
        cache: Kept,
        eos: frozenset[int],
        decode: Callable[[list[int]], str],
        grammars: Grammars,
        thoughts: Callable[[SamplingParams], Thought | None] = lambda _: None,
        first_look: Callable[[list[int], Tensor], None] | None = None,
    ) -> None:
        self._forward, self._cache, self._eos, self._decode = forward, cache, eos, decode
        self._grammars = grammars
        self._thoughts = thoughts
        self._first_look = first_look
        self._inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._waiting: list[Request] = []
        self._active: list[Request] = []
        self._slots = [Slot(index) for index in range(cache.slots)]
        self._owned: weakref.WeakKeyDictionary[Any, Slot] = weakref.WeakKeyDictionary()
        self._clock = count(1)
        self._schedule = PrefillSchedule()
        self.failure: str | None = None
        self.refusal: CannotBatch | None = None
        self._thread = threading.Thread(target=self._run, name="vendomini-hf", daemon=True)
        self._thread.start()

    def check(self, prompt: list[int]) -> None:
        """Raises:
        EngineError: the prompt is empty or leaves no room for an answer.
        """
        if not 0 < len(prompt) < self._cache.limit:
            raise EngineError(
                f"a prompt of {len(prompt)} tokens does not fit the context of {self._cache.limit} tokens"
            )

    def submit(self, request: Request) -> None:
        self._inbox.put(request)

    def close(self) -> None:
        """Ends the thread; requests under way fail."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        import torch

        try:
            with torch.inference_mode():
                while self._receive():
                    self._admit()
                    self._step()
        except CannotBatch as exc:
            self.refusal = exc
        except BaseException as exc:  # whatever it was, the waiting callers must be told
            self.failure = f"the Hugging Face engine failed: {exc}"
        self._fail_all()

    def _step(self) -> None:
        """One forward pass, one sampled token for each row whose prompt is complete."""
        began, feeding = time.perf_counter(), self._schedule.feeds(*self._counts())
        batch = self._prefills() if feeding else [(request, 1) for request in self._active if request.missing == 1]
        if not batch:
            return
        logits = self._forward(
            [
                (request.slot.index, request.tokens[request.computed : request.computed + n], request.computed)
                for request, n in batch
                if request.slot
            ]
        )
        for request, n in batch:
            self._account(request, n)
        ready = [row for row, (request, _) in enumerate(batch) if not request.missing]
        if ready and self._first_look is not None:
            self._first_look(batch[ready[0]][0].tokens, logits[ready[0]])
            self._first_look = None
        if ready:
            self._sample(logits[ready], [batch[row][0] for row in ready])
            self._learn(batch if feeding else [], time.perf_counter() - began)

    def _learn(self, prompts: list[tuple[Request, int]], seconds: float) -> None:
        """What a pass has cost: over these prompts, or else over one token of each row."""
        if prompts:
            self._schedule.fed(len(prompts) * max(n for _, n in prompts), seconds)
        else:
            self._schedule.decoded(seconds)

    def _counts(self) -> tuple[int, int]:
        """Prompts to feed, and rows that lack one token only."""
        waiting = sum(request.missing > 1 for request in self._active)
        return waiting, len(self._active) - waiting

    def _prefills(self) -> list[tuple[Request, int]]:
        """Prompts to feed together: as many as fit without much padding, in order of arrival.

        One with the same beginning as another in this pass waits for it and then copies: of many episodes that start
        together, one computes the system prompt.
        """
        chosen: list[tuple[Request, int]] = []
        width = 0
        for request in self._active:
            if width * (len(chosen) + 1) > PREFILL_TOKENS:
                break
            if request.missing <= 1 or any(request.waits_for(other) for other, _ in chosen):
                continue
            self._copy_prefix(request)
            n = min(request.missing, PREFILL_TOKENS)
            widest = max(width, n)
            if chosen and (widest * (len(chosen) + 1) > PREFILL_TOKENS or n * 2 < width or n > width * 2):
                continue
            chosen.append((request, n))
            width = widest
        return chosen

    def _account(self, request: Request, n: int) -> None:
        assert request.slot is not None
        request.slot.tokens.extend(request.tokens[request.computed : request.computed + n])
        request.computed += n

    def _sample(self, logits: Tensor, requests: list[Request]) -> None:
        grammars = [request.grammar for request in requests]
        if any(grammar is not None for grammar in grammars):
            self._constrain(logits, requests, grammars)
        logits = self._penalised(logits, requests)
        uniforms = [request.random.random() for request in requests]
        sampled = sample(logits, [r.params for r in requests], uniforms)
        for request, grammar, token in zip(requests, grammars, sampled, strict=True):
            thought = request.thought
            if thought is not None and thought.forced:
                token = thought.forced.pop(0)
            request.tokens.append(token)
            begins = thought is not None and thought.accept(request.new_tokens)
            if grammar is not None and not begins:
                grammar.accept_token(token)
            if request.held is not None:
                request.held.add(token)
            self._finish_if_done(request, token)

    def _constrain(self, logits: Tensor, requests: list[Request], grammars: list[Any]) -> None:
        """Masks what a grammar forbids; a reply that has not begun may begin with a thought all the same."""
        begins = [(row, r.thought.openers) for row, r in enumerate(requests) if r.thought and r.thought.openers]
        kept = [(row, token, logits[row, token].clone()) for row, tokens in begins for token in tokens]
        self._grammars.mask(logits, grammars)
        for row, token, value in kept:
            logits[row, token] = value

    def _penalised(self, logits: Tensor, requests: list[Request]) -> Tensor:
        rows = [row for row, request in enumerate(requests) if has_penalty(request.params)]
        if not rows:
            return logits
        held = [requests[row].holding(logits) for row in rows]
        logits = logits.float()
        logits[rows] = penalise(logits[rows], [requests[row].params for row in rows], held)
        return logits

    def _finish_if_done(self, request: Request, token: int) -> None:
        new = request.new_tokens
        if token in self._eos:
            request.finish_reason, request.text = "stop", self._decode(new[:-1])
        elif stopped := self._stopped(request):
            request.finish_reason, request.text = "stop", stopped[0]
        elif len(new) >= request.params.max_tokens or len(request.tokens) >= self._cache.limit:
            request.finish_reason, request.text = "length", self._decode(new)
        if request.finish_reason:
            self._schedule.answered(len(new))
            self._active.remove(request)
            request.done(request)

    def _stopped(self, request: Request) -> tuple[str] | None:
        """The text before the first stop string, if the newest token completed one."""
        stops = request.params.stop
        if not stops:
            return None
        tail = self._decode(request.new_tokens[-max(map(len, stops)) - 4 :])
        if not any(stop in tail for stop in stops):
            return None
        text = self._decode(request.new_tokens)
        found = [position for stop in stops if (position := text.find(stop)) >= 0]
        return (text[: min(found)],) if found else None

    # ------------------------------------------------------------------------------- coming and going

    def _receive(self) -> bool:
        """Takes in new requests, waiting for one if there is nothing else to do. False: time to stop."""
        idle = not self._active and not self._waiting
        while idle or not self._inbox.empty():
            request = self._inbox.get()
            if request is None:
                return False
            self._waiting.append(request)
            idle = False
        return True

    def _admit(self) -> None:
        """Gives slots to waiting requests, and forgets those whose caller has gone."""
        self._active = [request for request in self._active if not request.cancelled]
        self._waiting = [request for request in self._waiting if not request.cancelled]
        while self._waiting and len(self._active) < len(self._slots):
            request = self._waiting.pop(0)
            try:
                self._seat(request)
                if request.params.json_schema is not None:
                    request.matcher = self._grammars.matcher(request.params.json_schema)
                request.thought = self._thoughts(request.params)
            except EngineError as exc:
                request.done(exc)
            else:
                self._active.append(request)

    def _seat(self, request: Request) -> None:
        """Its own slot if it still has one, else the one that was idle longest."""
        busy = {active.slot for active in self._active}
        slot = self._owned.get(request.conversation)
        if slot is None or slot in busy:
            slot = min((slot for slot in self._slots if slot not in busy), key=lambda slot: slot.used)
            for owner in [owner for owner, owned in self._owned.items() if owned is slot]:
                del self._owned[owner]
            self._owned[request.conversation] = slot
        # The last token of the prompt is always computed: its logits are what we want.
        common = min(common_prefix(slot.tokens, request.prompt), len(request.prompt) - 1)
        request.cached = self._cache.truncate(slot, common)
        del slot.tokens[request.cached :]
        slot.used = next(self._clock)
        request.slot, request.computed = slot, request.cached

    def _copy_prefix(self, request: Request) -> None:
        """Copies what another conversation has computed of the same beginning, before anything else is done."""
        assert request.slot is not None
        if request.computed > request.cached:
            return
        prompt, best, length = request.prompt, None, request.computed
        for other in self._slots:  # one whose next token differs has no more of it, and needs no comparison
            if len(other.tokens) > length < len(prompt) - 1 and other.tokens[length] == prompt[length]:
                shared = min(common_prefix(other.tokens, prompt), len(prompt) - 1)
                if shared > length:
                    best, length = other, shared
        if best is not None and self._cache.copy_prefix(best, request.slot, length):
            request.cached = request.computed = length

    def _fail_all(self) -> None:
        """Fails every waiting request, now and until the engine is closed for good."""
        reason = self.refusal or EngineError(self.failure or "the engine was closed")
        while True:
            for request in (*self._active, *self._waiting):
                request.done(reason)
            self._active, self._waiting = [], []
            if self.failure is None and self.refusal is None:
                return
            request_or_end = self._inbox.get()
            if request_or_end is None:
                return
            self._waiting.append(request_or_end)
