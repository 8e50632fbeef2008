"""What a pilot's logs say about one model."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, fields

from vendomini.config.paths import lookup
from vendomini.config.worlds import WorldInfo
from vendomini.errors import CorruptRecordError
from vendomini.measures.detectors import replay
from vendomini.measures.replies import error_code, unusable
from vendomini.pilot.runs import PilotRuns
from vendomini.records import RunInfo, RunSummary, StepRecord, read_steps


@dataclass(slots=True)
class Figures:
    """Counts over the pilot's runs of one model.

    Attributes:
        ended, failed: runs; a failed one with its reason.
        unusable: why replies could not be used → how many.
        errors: code → calls in usable replies that failed.
        at_limit: replies that were ended by their limit.
        tokens, thought: completion tokens; and those of thoughts, in proportion to their characters.
        prompt, cached: prompt tokens; and those from the prefix cache, None where the engine does not say.
        seconds: from request to last token, over all replies.
        healthy: episodes without any dose; ``healthy_calls`` and ``healthy_ok`` are their replies, and those whose call
            succeeded.
        claims, error: predictions that were settled in such episodes, and the sum of their errors.
        on, near: detector → such episodes in which it went on, or would have at the strict thresholds.
        engine: of the last summary.
    """

    runs: int = 0
    ended: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    replies: int = 0
    repaired: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    at_limit: int = 0
    tokens: int = 0
    thought: float = 0.0
    prompt: int = 0
    cached: int | None = None
    seconds: float = 0.0
    healthy: int = 0
    healthy_calls: int = 0
    healthy_ok: int = 0
    claims: int = 0
    error: float = 0.0
    on: Counter[str] = field(default_factory=Counter)
    near: Counter[str] = field(default_factory=Counter)
    engine: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}

    def share(self, count: float) -> float:
        """A count as a share of all replies."""
        return count / max(self.replies, 1)

    @property
    def healthy_share(self) -> float | None:
        """The share of the calls without any dose that succeeded."""
        return self.healthy_ok / self.healthy_calls if self.healthy_calls else None

    @property
    def cut_off(self) -> int:
        return self.unusable["cut_off"]

    @property
    def conversations(self) -> float | None:
        """Conversations of full length for which the engine's memory has room; None where it does not say."""
        details = self.engine
        kv, longest = details.get("kv_tokens"), details.get("max_model_len")
        return kv / longest if isinstance(kv, int) and isinstance(longest, int) and longest else None


def figures_of(runs: PilotRuns, world: type[WorldInfo]) -> Figures:
    """The figures of the runs with the phase's settings, as far as these have come."""
    found, pilot = Figures(), runs.folder
    for info in runs.own:
        found.runs += 1
        with suppress(CorruptRecordError):
            _add_outcome(found, pilot.summary(info.run_id))
        with suppress(CorruptRecordError, FileNotFoundError):
            _add_steps(found, list(read_steps(pilot.run(info.run_id).steps)), info, world)
    return found


def _add_outcome(found: Figures, summary: RunSummary | None) -> None:
    if summary is None:
        return
    found.engine = summary.engine
    if summary.finished:
        found.ended += 1
    else:
        found.failed[summary.reason or "unknown"] += 1


def _add_steps(found: Figures, steps: list[StepRecord], info: RunInfo, world: type[WorldInfo]) -> None:
    for step in steps:
        _add(found, step)
    if lookup(info.parameters, world.dose) == 0:
        found.healthy += 1
        found.healthy_calls += len(steps)
        found.healthy_ok += sum(bool(step.result.get("ok")) for step in steps)
        found.claims += sum(len(step.resolved) for step in steps)
        found.error += sum(float(claim["pe"]) for step in steps for claim in step.resolved)
        on = _onsets(steps, str(lookup(info.parameters, "crash_detector.thresholds")))
        found.on.update(on)
        found.near.update(_onsets(steps, "strict") - on)


def _add(found: Figures, step: StepRecord) -> None:
    code = error_code(step)
    trouble = unusable(step.parse, step.parse_reason, code)
    found.replies += 1
    found.repaired += step.parse == "repaired"
    if trouble is not None:
        found.unusable[trouble] += 1
    elif code is not None:
        found.errors[code] += 1
    found.at_limit += step.finish_reason == "length"
    found.tokens += step.completion_tokens
    found.thought += step.completion_tokens * _thought_share(step)
    found.prompt += step.prompt_tokens
    if step.cached_tokens is not None:
        found.cached = (found.cached or 0) + step.cached_tokens
    found.seconds += step.latency_s or 0.0


def _thought_share(step: StepRecord) -> float:
    written = len(step.completion) + len(step.reasoning or "")
    answer = len(step.completion if step.answer is None else step.answer)
    return 1 - answer / written if written else 0.0


def _onsets(steps: list[StepRecord], thresholds: str) -> set[str]:
    return {name for name, flag in replay(steps, thresholds).by_name.items() if flag.onset is not None}
