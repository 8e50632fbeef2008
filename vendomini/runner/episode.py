"""One agent in one world: a step at a time, every step logged before the next begins."""

from __future__ import annotations

import errno
import time
from typing import Any

import msgspec

from vendomini.agent import History, Reply, named_format, output_schema, parse_reply, read_reply, system_prompt
from vendomini.agent.clean import clean_text
from vendomini.config import RunSpec
from vendomini.config.schema import SAMPLING, Breaker
from vendomini.engines.base import Completion, Engine, SamplingParams
from vendomini.errors import (
    CorruptRecordError,
    EngineError,
    EngineStopped,
    PromptTooLong,
    RunChangedError,
    RunEndedError,
)
from vendomini.measures.measured import MeasuredWorld, StepResult
from vendomini.measures.replies import error_code, unusable
from vendomini.records import RunInfo, RunPaths, RunSummary, StepLog, StepRecord, read_record, write_error, write_record
from vendomini.runner.breaker import Watch
from vendomini.runner.progress import Counters
from vendomini.runner.provenance import changes
from vendomini.runner.run_records import (
    TokenCounts,
    encoded,
    has_ended,
    logged_action,
    run_info,
    run_summary,
    step_record,
)
from vendomini.runner.stop import Stop
from vendomini.worlds.conversation import joined_turn
from vendomini.worlds.protocol import open_world
from vendomini.worlds.randomness import sampling_seed

_decode = msgspec.json.Decoder().decode


class Episode:
    """A run in progress. The step log is its checkpoint: what is logged is replayed, then the episode continues.

    Args:
        spec: the run.
        paths: its files; the folder is made.
        engine: started; shared with other episodes.
        counters: updated at every step.
        restart_changed: a run begun under another prompt or version is set aside and started again.
        watch: is told of every reply, and may end the run early.

    Raises:
        RunLockedError: another process is writing this run.
        RunChangedError: it was begun under another prompt or version, and ``restart_changed`` is not set.
        RunEndedError: another process has finished it since it was found to be pending.
        CorruptRecordError: its files are damaged, or do not follow from this spec.
        ResultsError: the place is not writable.
    """

    def __init__(
        self,
        spec: RunSpec,
        paths: RunPaths,
        engine: Engine,
        counters: Counters,
        restart_changed: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.spec, self.paths, self.engine, self.counters = spec, paths, engine, counters
        self.config = spec.config()
        self.world = MeasuredWorld(open_world(spec.world, self.config), self.config, spec.horizon)
        self._tools = frozenset(spec.name for spec in self.world.world.tools)
        self.history = self._new_history()
        self._sampling = self._resolved_sampling()
        self.observation = self.world.reset(seed=spec.seed)
        self._shown = encoded(self.observation)
        self._told: str | None = None
        self.ended = False
        self._seconds = 0.0
        self._tokens = TokenCounts()
        self._watch = watch or Watch(Breaker(unusable=None))
        _make_folder(paths)
        self._log = StepLog(paths.steps)
        try:
            self._attempt = self._begin(restart_changed)
            self._params = self._sampling_params()
            self._replay()
        except BaseException:
            self._log.close()
            raise

    async def run(self, stop: Stop) -> RunSummary | None:
        """Runs to the end and writes the summary; None if stopped first, or if the engine stopped for every run.

        An engine that fails ends the run as ``failed``: what is logged stays, and the run can be resumed.
        """
        started = time.monotonic()
        reason = None
        try:
            try:
                while not self.ended:
                    if stop.reason is not None or self._watch.reason is not None:
                        return None
                    await self._step()
            except EngineStopped:
                return None
            except EngineError as exc:
                reason = str(exc)
            finally:
                self._log.sync()
            self._seconds = time.monotonic() - started
            return self._finish(reason)
        finally:
            self._log.close()  # only now: the next holder of the lock finds the summary

    async def _step(self) -> None:
        """Observe, ask, act, measure, log."""
        observation = self.observation
        self.history.add_user(joined_turn(self._shown, self._told))
        seed = sampling_seed(self.spec.seed, observation.step)
        completion, shortened = await self._ask(msgspec.structs.replace(self._params, seed=seed))
        self.history.count(completion.prompt_tokens)
        reply = self._read(completion.text, completion)
        action = parse_reply(reply, self._tools)
        outcome = self.world.step(action)
        told = encoded(outcome.result)
        record = step_record(observation, self._shown, completion, reply.answer, action, outcome, told, shortened)
        self._log.append(record)
        if record.step <= self._watch.until:
            error = outcome.result.error
            self._watch.add(record.step, unusable(action.parse, action.reason, error.code if error else None))
        self._advance(reply, outcome, told)
        self._tokens.add(completion)
        self.counters.steps += 1
        self.counters.completion_tokens += completion.completion_tokens

    async def _ask(self, params: SamplingParams) -> tuple[Completion, int]:
        """The completion, and how often old turns were dropped because the engine found the prompt too long."""
        shortened = 0
        while True:
            try:
                return _printable(await self.engine.generate(self.history, params)), shortened
            except PromptTooLong:
                if not self.history.shorten():
                    raise
                shortened += 1

    def _read(self, text: str, said: Completion | StepRecord) -> Reply:
        return read_reply(text, self.history.format, finish_reason=said.finish_reason, reasoning=said.reasoning)

    def _advance(self, reply: Reply, outcome: StepResult, told: str) -> None:
        """What the next step begins with."""
        self.history.add_assistant(reply.answer, reply.reasoning)
        if outcome.history_cleared:
            self.history.clear()
        self.observation = outcome.observation
        self._shown, self._told = encoded(outcome.observation), told
        self.ended = outcome.ending is not None

    def _replay(self) -> None:
        """Repeats the logged actions in a fresh world, and checks that it answers as before.

        Raises:
            CorruptRecordError: it does not.
        """
        for record in self._log.records:
            if self.ended:
                raise CorruptRecordError(f"{self.paths.steps} goes on after the episode's end: {_MISMATCH}")
            self._tokens.add(record)
            self.history.add_user(joined_turn(self._shown, self._told))
            for _ in range(record.shortened or 0):
                self.history.shorten()
            self.history.count(record.prompt_tokens)
            outcome = self.world.step(logged_action(record))
            told = encoded(outcome.result)
            if (record.observation, record.result) != (_decode(self._shown), _decode(told)):
                raise CorruptRecordError(f"{self.paths.steps} line {record.step} {_MISMATCH}")
            self._watch.add(record.step, unusable(record.parse, record.parse_reason, error_code(record)))
            self._advance(self._read(record.completion, record), outcome, told)
        self.counters.steps_resumed += len(self._log.records)
        self._log.records.clear()

    def _new_history(self) -> History:
        model = self.config.agent.model
        return History(
            system_prompt(self.world.world, self.config.agent.interface),
            context_length=self._context_length(),
            max_tokens=model.completion_tokens,
            tokenizer=self.engine.tokenizer,
            template_kwargs=model.chat_template_kwargs,
            today=model.prompt_date,
            reply_format=named_format(model.reply_format),
        )

    def _resolved_sampling(self) -> dict[str, Any]:
        """The config's values, else the loaded model's own."""
        own = self.engine.sampling_defaults
        asked = {key: getattr(self.config.agent.model, key) for key in SAMPLING}
        return {key: own.get(key) if value is None else value for key, value in asked.items()}

    def _sampling_params(self) -> SamplingParams:
        """Those of every step, but for the seed."""
        model, interface = self.config.agent.model, self.config.agent.interface
        return SamplingParams(
            model.completion_tokens,
            json_schema=output_schema(self.world.world, interface) if interface.structured_output else None,
            max_thinking_tokens=model.max_thinking_tokens,
            thinking=self.history.format if self.history.format.start else None,
            **self._sampling,
        )

    def _begin(self, restart_changed: bool) -> int:
        """Writes ``run.json`` and returns which attempt this is. Holds the lock, so what it finds stays true."""
        if has_ended(self.paths):
            raise RunEndedError(f"{self.spec.run_id} was finished by another process")
        info = run_info(self.spec, self.history, self._sampling, self.engine, self._context_length())
        try:
            before = read_record(self.paths.info, RunInfo)
        except FileNotFoundError:
            before = info
        else:
            info.attempt = before.attempt + 1
        if self._log.records and (changed := changes(before, info)):
            if not restart_changed:
                raise RunChangedError(
                    f"{self.spec.run_id} was begun under {' and '.join(changed)}: it is left alone; go on with what "
                    "began it, or begin it anew with --restart-changed"
                )
            self._log.set_aside(f"steps.{before.attempt}.jsonl")
        elif before.sampling:
            info.sampling = self._sampling = before.sampling
        write_record(self.paths.info, info)
        return info.attempt

    def _context_length(self) -> int:
        return min(length for length in (self.config.agent.model.context_length, self.engine.context_length) if length)

    def _finish(self, failure: str | None) -> RunSummary:
        summary = run_summary(
            self.spec, self.world.summary(), failure, self._tokens, self.engine.info, self._seconds, self._attempt
        )
        write_record(self.paths.summary, summary)
        return summary


_MISMATCH = (
    "does not follow from the actions before it (was it written with another version or another config?): "
    "this run is left alone; move its folder away and run again to redo it"
)


def _printable(completion: Completion) -> Completion:
    """The completion without unpaired surrogates, which no log can hold."""
    text, reasoning = completion.text, completion.reasoning
    if text.isascii() and (reasoning is None or reasoning.isascii()):
        return completion
    return msgspec.structs.replace(completion, text=clean_text(text), reasoning=reasoning and clean_text(reasoning))


def _make_folder(paths: RunPaths) -> None:
    try:
        paths.folder.mkdir(parents=True, exist_ok=True)
        if paths.folder.is_symlink():
            raise OSError(errno.ELOOP, "it is a link")
    except OSError as exc:
        raise write_error(paths.folder, exc) from exc
