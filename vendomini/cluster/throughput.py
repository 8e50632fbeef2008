"""How long a step takes on a job: measured in the results where there are some, else the published estimates."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median

from vendomini.cluster.plan import Pace
from vendomini.config import Phase
from vendomini.config.schema import SCRIPTED_PREFIX, EngineConfig, Model
from vendomini.errors import CorruptRecordError
from vendomini.records import Results, RunSummary
from vendomini.records.kinds import JsonObject

PUBLISHED = "published estimate"
MEASURED = "measured here"
PILOTED = "measured in the pilot"

ENGINES = ("standard", "flash", "vllm")
"""Keys of the estimates: Transformers with standard attention, with Flash Attention, and vLLM."""

SIZES_B = (7.0, 32.0, 70.0)
HOURS_OF_500_STEPS = {"standard": (0.2, 0.5, 1.0), "flash": (0.08, 0.2, 326 / 880), "vllm": (0.02, 0.05, 0.1)}
"""Hours of one run of phase 1 at each of ``SIZES_B``, from the published estimates (docs/engines.md): 32B and 70B are
their hours over 880 tasks; 7B is 32B divided by 2.5, the ratio of tokens per second."""
HOURS_OF_5000_STEPS_32B = {"standard": 1.0, "flash": 0.4, "vllm": 0.05}
"""Hours of one run of phase 5: the published hours over 440 tasks."""
LONG_HORIZON = 5000

LOAD_S = 300.0
"""Seconds until a large model answers."""
SCRIPTED = Pace(load_s=2.0, step_s=1 / 2000, concurrency=16, source="the controls need no model")
CONCURRENCY = {"vllm": 32, "flash": 16, "standard": 16}
"""Episodes that keep a batch full, where engine.max_num_seqs does not say."""


def billions(name: str) -> float | None:
    """Parameters by a model's name, in billions: 32.0 for Qwen/Qwen3-32B; None where it does not say."""
    sizes = re.findall(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)[bB](?![A-Za-z0-9])", name)
    return float(sizes[-1]) if sizes else None


def published_step_s(size_b: float, engine: str, horizon: int) -> float:
    """Seconds of a job per step.

    Log-log interpolation between the published sizes; above 70B time grows in proportion to the size, below 7B it is
    constant.

    Args:
        size_b: parameters in billions.
        engine: one of :data:`ENGINES`.
        horizon: steps of a run; from 5,000 on, the figures of phase 5 apply.
    """
    hours = HOURS_OF_500_STEPS[engine]
    at_500 = _interpolate(size_b, hours) * 3600 / 500
    if horizon < LONG_HORIZON:
        return at_500
    at_5000_32b = HOURS_OF_5000_STEPS_32B[engine] * 3600 / LONG_HORIZON
    return at_5000_32b * at_500 / (hours[1] * 3600 / 500)


def expected_engine(engine: EngineConfig, gpus: int, forbid_vllm: bool) -> str:
    """The engine by which a job is estimated, one of :data:`ENGINES`."""
    if engine.backend == "hf" or forbid_vllm or not gpus:
        return "standard" if engine.attn_implementation in {"eager", "sdpa"} or not gpus else "flash"
    return "vllm"


def published_pace(size_b: float, engine: str, horizon: int, max_num_seqs: int | None) -> Pace:
    """The pace that the published estimates give."""
    return Pace(LOAD_S, published_step_s(size_b, engine, horizon), max_num_seqs or CONCURRENCY[engine], PUBLISHED)


def is_scripted(model: Model) -> bool:
    return model.name.startswith(SCRIPTED_PREFIX)


@dataclass(frozen=True, slots=True)
class Throughput:
    """What finished runs of one model took.

    Attributes:
        step_s: seconds of a job per step, all its episodes together.
        tokens_s: completion tokens per second of a job.
        source: where the runs are, for people.
    """

    step_s: float
    tokens_s: float
    source: str = MEASURED


class Measurement:
    """Throughput of jobs, from the runs that each began and ended in one go. Keeps only sums, since every run is
    added."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Work] = {}

    def add(self, job: str, summary: RunSummary) -> None:
        """A finished run of one model, and the job that ran it."""
        if summary.attempt == 1 and summary.seconds > 0 and summary.ended_at:
            self._jobs.setdefault(job, _Work()).add(summary)

    def throughput(self) -> Throughput | None:
        """The median over the jobs; None without such a run."""
        rates = [work.rate() for work in self._jobs.values()]
        if not rates:
            return None
        return Throughput(median(rate.step_s for rate in rates), median(rate.tokens_s for rate in rates))


@dataclass(slots=True)
class _Work:
    """The work of one job, from the first start to the last end, in seconds since the epoch."""

    began: float = math.inf
    ended: float = -math.inf
    steps: int = 0
    tokens: int = 0

    def add(self, run: RunSummary) -> None:
        ended = datetime.fromisoformat(run.ended_at).timestamp()
        self.began, self.ended = min(self.began, ended - run.seconds), max(self.ended, ended)
        self.steps += run.steps
        self.tokens += run.completion_tokens

    def rate(self) -> Throughput:
        seconds = max(self.ended - self.began, 1e-3)
        return Throughput(seconds / max(self.steps, 1), self.tokens / seconds)


def known_throughput(phase: Phase, results: Results) -> dict[tuple[str, str], Throughput]:
    """(Model name, engine) → throughput of one engine: of the runs that have ended, else of the phase's pilot."""
    from vendomini.pilot import pilot_runs

    found: dict[tuple[str, str], Throughput] = {}
    for runs in pilot_runs(phase, results).values():
        piloted = measured_throughput(runs.folder, [info.run_id for info in runs.own])
        found |= {key: replace(rate, source=PILOTED) for key, rate in piloted.items()}
    return found | measured_throughput(results)


def measured_throughput(results: Results, run_ids: Iterable[str] | None = None) -> dict[tuple[str, str], Throughput]:
    """(Model name, engine) → throughput of one engine, from the runs that have ended; nothing where none has.

    Reads every run: a job with some of its runs left out would seem slow.

    Args:
        run_ids: these alone; all by default.
    """
    measured: dict[tuple[str, str], Measurement] = {}
    for run_id in results.run_ids() if run_ids is None else run_ids:
        try:
            summary = results.summary(run_id)
        except CorruptRecordError:
            continue
        if summary is None or not summary.finished or not summary.owner:
            continue
        key = (summary.parameters["agent"]["model"]["name"], _engine_of(summary))
        measured.setdefault(key, Measurement()).add(_process(summary.owner), summary)
    found = {key: measurement.throughput() for key, measurement in measured.items()}
    return {key: rate for key, rate in found.items() if rate is not None}


def _engine_of(summary: RunSummary) -> str:
    """The engine it ran on, one of :data:`ENGINES`."""
    if summary.engine.get("backend") == "vllm":
        return "vllm"
    return "flash" if "flash" in str(summary.engine.get("attention")) else "standard"


def _process(owner: JsonObject) -> str:
    """One start of one process."""
    return f"{owner.get('host')}/{owner.get('pid')}/{owner.get('job_id')}"


def _interpolate(size_b: float, hours: tuple[float, ...]) -> float:
    if size_b <= SIZES_B[0]:
        return hours[0]
    if size_b >= SIZES_B[-1]:
        return hours[-1] * size_b / SIZES_B[-1]
    i = next(i for i, size in enumerate(SIZES_B) if size_b < size) - 1
    part = math.log(size_b / SIZES_B[i]) / math.log(SIZES_B[i + 1] / SIZES_B[i])
    return float(hours[i] * (hours[i + 1] / hours[i]) ** part)
