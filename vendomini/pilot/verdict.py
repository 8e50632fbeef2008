"""The pilot's verdict on each model: whether to go on, and which setting to change."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from vendomini.config import Phase
from vendomini.config.paths import lookup
from vendomini.config.schema import SCRIPTED_PREFIX, Breaker
from vendomini.errors import counted
from vendomini.pilot.derive import own_models, reference
from vendomini.pilot.figures import Figures, figures_of
from vendomini.pilot.runs import PilotRuns, pilot_runs
from vendomini.records import Results

Grade = Literal["ok", "look", "no", "missing"]

CUT_OFF = 0.05
UNUSABLE = 0.1
FAILING = 0.3
"""Shares of replies that were cut off, could not be used, or whose calls failed, from which on a model needs a look."""

THOUGHT = 0.5
"""Share of the tokens from which on it is thoughts that use them up."""

FEWEST_CONVERSATIONS = 8
"""Full conversations beside the weights, below which the engine works half empty."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one model.

    Attributes:
        grade: ``missing`` where there is nothing to judge, or other settings were piloted.
        reasons: each with what to change.
        figures: what it rests on.
    """

    model: str
    grade: Grade
    reasons: list[str]
    figures: Figures

    def as_json(self) -> dict[str, object]:
        return {
            "model": self.model,
            "grade": self.grade,
            "reasons": self.reasons,
            "figures": self.figures.as_json(),
        }


def judge(phase: Phase, results: Results, unable: Mapping[str, str] = MappingProxyType({})) -> list[Verdict]:
    """The verdict on each model of a phase, from its pilot's logs as far as these have come.

    Args:
        results: of the phase; the pilot's are in it.
        unable: model → why it could not be loaded just now.

    Raises:
        ConfigError: the phase has no pilot.
    """
    runs, control, world = pilot_runs(phase, results), reference(phase), phase.world
    compared = figures_of(runs[control], world).healthy_share if control else None
    verdicts = []
    for model in own_models(phase):
        figures = figures_of(runs[model], world)
        if model in unable:
            verdicts.append(Verdict(model, "no", [f"it can't run here: {unable[model]}"], figures))
            continue
        verdicts.append(_judge(phase, model, runs[model], figures, compared if model != control else None))
    return verdicts


def doubts(phase: Phase, results: Results, models: Collection[str]) -> list[str]:
    """Why these models should not be paid for yet: there is no pilot that fits, or it says no. Controls cost nothing
    and need none."""
    wanted = {model for model in models if not model.startswith(SCRIPTED_PREFIX)}
    return [
        f"{verdict.model}: {'; '.join(verdict.reasons)}"
        for verdict in (judge(phase, results) if wanted else ())
        if verdict.grade in ("missing", "no") and verdict.model in wanted
    ]


def _judge(phase: Phase, model: str, runs: PilotRuns, figures: Figures, compared: float | None) -> Verdict:
    if missing := _missing(runs, figures):
        return Verdict(model, "missing", [missing], figures)
    if not figures.replies:
        return Verdict(model, "no", [_failure(figures)], figures)
    serious = list(_serious(phase, model, figures))
    reasons = serious + list(_worth_a_look(phase, model, figures, compared, bool(serious)))
    return Verdict(model, "no" if serious else "look" if reasons else "ok", reasons, figures)


def _missing(runs: PilotRuns, figures: Figures) -> str:
    """Why there is nothing to judge; empty where there is."""
    if runs.changes:
        more = f" and {len(runs.changes) - 3} more" if len(runs.changes) > 3 else ""
        return f"piloted on other settings ({'; '.join(runs.changes[:3])}{more})"
    if not runs.own:
        return "no pilot"
    if runs.missing:
        return "only part of its settings were piloted"
    return "" if figures.replies or figures.failed else "its pilot has not begun"


def _failure(figures: Figures) -> str:
    reason, number = figures.failed.most_common(1)[0]
    return f"{number} of {counted(figures.runs, 'run')} failed: {reason}"


def _serious(phase: Phase, model: str, figures: Figures) -> Iterator[str]:
    """Replies that can't be used: more of them than the breaker lets pass."""
    number = figures.unusable.total()
    if figures.share(number) <= (phase.config.breaker.unusable or Breaker().unusable or 1):
        return
    if figures.cut_off * 2 > number and (_thinks(figures) or _is_structured(phase, model)):
        return  # a matter of room: it needs a look
    yield f"{_percent(figures, number)} of its replies can't be used ({_causes(figures)}): {_format(phase, model)}"


def _format(phase: Phase, model: str) -> str:
    if _is_structured(phase, model):
        return "take another model, or set agent.interface.prediction_mode: optional"
    return "set agent.interface.structured_output: true, or take another model"


def _is_structured(phase: Phase, model: str) -> bool:
    """A reply is nothing but a call then, unless there was no room for all of it."""
    return lookup(phase.bases[model], "agent.interface.structured_output") is True


def _worth_a_look(
    phase: Phase, model: str, figures: Figures, compared: float | None, unreadable: bool
) -> Iterator[str]:
    """Args:
    compared: share of the control's calls that succeed.
    unreadable: most replies can't be used, and that was said.
    """
    if figures.failed:
        yield _failure(figures)
    others = figures.unusable.total() - figures.cut_off
    if figures.share(figures.cut_off) >= CUT_OFF and not (unreadable and not _thinks(figures)):
        limit = lookup(phase.bases[model], "agent.model.max_tokens")
        yield f"{_percent(figures, figures.cut_off)} of its replies were cut off at {limit} tokens: {_room(figures)}"
    if figures.share(others) >= UNUSABLE and not unreadable:
        yield f"{_percent(figures, others)} of its replies can't be used ({_causes(figures)}): {_format(phase, model)}"
    if unreadable:
        return
    yield from _behaviour(phase, figures, compared)
    if figures.conversations is not None and figures.conversations < FEWEST_CONVERSATIONS:
        yield (
            f"memory has room for {figures.conversations:.1f} full conversations: lower agent.model.context_length, or "
            "raise engine.gpus"
        )


def _behaviour(phase: Phase, figures: Figures, compared: float | None) -> Iterator[str]:
    usable = figures.replies - figures.unusable.total()
    failing = figures.errors.total()
    dose = phase.world.dose.rpartition(".")[2]
    if usable and failing / usable >= FAILING:
        codes = ", ".join(f"{code} {number}" for code, number in figures.errors.most_common(3))
        yield f"{failing / usable:.0%} of its calls fail ({codes}): read them with vendomini traces"
    for word, found in (("fire", figures.on), ("nearly fire", figures.near)):
        often = [f"{name} in {number}" for name, number in found.most_common() if number * 2 >= figures.healthy]
        if often:
            yield f"detectors {word} at {dose} 0, where nothing is wrong: {', '.join(often)} of {figures.healthy} runs"
    share = figures.healthy_share
    if compared is not None and share is not None and share * 2 < compared:
        yield f"at {dose} 0, {share:.0%} of its calls succeed, and {compared:.0%} of the reactive control's"


def _thinks(figures: Figures) -> bool:
    return figures.thought >= THOUGHT * figures.tokens > 0


def _room(figures: Figures) -> str:
    if _thinks(figures):
        return (
            "raise agent.model.max_tokens, give thoughts agent.model.max_thinking_tokens of their own, or set "
            "agent.model.chat_template_kwargs: {enable_thinking: false}"
        )
    return "raise agent.model.max_tokens"


def _percent(figures: Figures, number: int) -> str:
    return f"{figures.share(number):.0%}"


def _causes(figures: Figures) -> str:
    return ", ".join(f"{name} {figures.share(number):.0%}" for name, number in figures.unusable.most_common(3))
