"""What the files of a run say: how its records are made from an episode, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from vendomini.agent import History, complain
from vendomini.config import RunSpec
from vendomini.engines.base import Completion, Engine, EngineInfo
from vendomini.measures.measured import StepResult
from vendomini.records import RunInfo, RunPaths, RunSummary, StepLine, StepRecord, read_record
from vendomini.runner.provenance import made_with, owner, versions
from vendomini.worlds.protocol import Action, Observation, Result

_encode = msgspec.json.Encoder().encode


class TokenCounts:
    """Sums over an episode. ``cached`` stays None for an engine that does not say."""

    def __init__(self) -> None:
        self.prompt = self.completion = 0
        self.cached: int | None = None

    def add(self, source: Completion | StepRecord) -> None:
        self.prompt += source.prompt_tokens
        self.completion += source.completion_tokens
        if source.cached_tokens is not None:
            self.cached = (self.cached or 0) + source.cached_tokens


def step_record(
    observation: Observation,
    shown: str,
    completion: Completion,
    answer: str,
    action: Action,
    outcome: StepResult,
    told: str,
    shortened: int,
) -> StepRecord:
    """A line of the step log, to be written at once: what it has of the world can't be read from it.

    Args:
        shown, told: the observation, and the outcome's result, as :func:`encoded`.
        answer: in the completion.
        shortened: how often old turns had to go.
    """
    return StepLine(  # structs in it are written as the objects that are read back
        observation.step,
        getattr(observation, "day", msgspec.UNSET),
        msgspec.Raw(shown),
        completion.text,
        completion.reasoning,
        None if answer == completion.text else answer,
        completion.finish_reason,
        action.parse,
        action.reason or None,
        action.thought,
        action.tool,
        action.arguments,
        action.card,
        msgspec.Raw(told),
        outcome.shocks,
        outcome.resolved,
        outcome.pe,
        outcome.detectors,
        completion.prompt_tokens,
        completion.cached_tokens,
        completion.completion_tokens,
        completion.latency_s,
        shortened or msgspec.UNSET,
    )


def encoded(shown: Observation | Result) -> str:
    """Its JSON, which both the prompt and the log take as it is."""
    return _encode(shown).decode()


def logged_action(record: StepRecord) -> Action:
    """The action that a line of the log holds, for a replay."""
    reason = record.parse_reason or ""
    told = complain(reason)
    return Action(record.parse, record.tool, record.arguments, record.card, record.thought, told, reason)


def run_info(spec: RunSpec, history: History, sampling: dict[str, Any], engine: Engine, context_length: int) -> RunInfo:
    """``run.json`` of a run that begins."""
    return RunInfo(
        run_id=spec.run_id,
        parameters=spec.parameters,
        seed=spec.seed,
        replication=spec.replication,
        system_prompt=history.messages[0]["content"],
        prompt_head=history.head,
        reply_format=history.format.name,
        owner=owner(),
        attempt=1,
        started_at=_now(),
        sampling=sampling,
        made_with=made_with(engine, context_length),
    )


def run_summary(
    spec: RunSpec,
    episode: Mapping[str, Any],
    failure: str | None,
    tokens: TokenCounts,
    info: EngineInfo,
    seconds: float,
    attempt: int,
) -> RunSummary:
    """``summary.json``.

    Args:
        episode: what the measured world says of it.
        failure: why the engine failed it, if it did.
        seconds: of this attempt.
    """
    if failure is not None:
        failed = {"ending": "failed", "reason": failure, "time_to_crash": None, "event_observed": None}
        episode = {**episode, **failed}
    return RunSummary(
        run_id=spec.run_id,
        parameters=spec.parameters,
        seed=spec.seed,
        replication=spec.replication,
        **episode,
        prompt_tokens=tokens.prompt,
        cached_tokens=tokens.cached,
        completion_tokens=tokens.completion,
        seconds=round(seconds, 3),
        attempt=attempt,
        engine={
            "backend": info.backend,
            "model": info.model,
            "attention": info.attention,
            "rejected": info.rejected,
            **info.details,
        },
        versions=versions(),
        owner=owner(),
        ended_at=_now(),
    )


def has_ended(paths: RunPaths) -> bool:
    """Whether a run has ended and counts."""
    try:
        return read_record(paths.summary, RunSummary).finished
    except FileNotFoundError:
        return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
