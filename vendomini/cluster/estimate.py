"""Expected hours and GPU-hours of phases on this cluster, by engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from vendomini.adaptive.looks import design_of
from vendomini.adaptive.simulate import Expected, Shape, simulate
from vendomini.cluster.offers import Offers
from vendomini.cluster.plan import Group, group_runs
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.throughput import ENGINES, PUBLISHED, Throughput, is_scripted, published_step_s
from vendomini.config import Phase, expand
from vendomini.errors import UsageError


@dataclass(frozen=True, slots=True)
class Row:
    """One model of one phase.

    Attributes:
        hours: engine → hours of one job that does all the runs.
        gpus: of that job.
        engine: the one the jobs are expected to use.
        sources: engine → ``measured here``, ``measured in the pilot`` or ``published estimate``.
    """

    phase: str
    model: str
    tasks: int
    steps: int
    gpus: int
    engine: str
    hours: dict[str, float]
    sources: dict[str, str]

    @property
    def gpu_hours(self) -> float:
        """GPU-hours with the expected engine."""
        return self.hours[self.engine] * self.gpus

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "gpu_hours": self.gpu_hours}


def estimate(phase: Phase, offers: Offers, measured: Mapping[tuple[str, str], Throughput]) -> list[Row]:
    """A row for each model that a phase loads; the scripted controls cost nothing and have none.

    Raises:
        ClusterError: a model's size is unknown, or it fits nowhere.
    """
    sizing = Sizing(phase.config.engine, offers, measured, engines=phase.engines)
    groups = group_runs(expand(phase), sizing.shape, sizing.pace)
    return [_row(phase.name, group, sizing) for group in groups if not is_scripted(group.model)]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A phase with adaptive replications.

    Attributes:
        most: seeds.
        gpu_hours: with all of them; None where no model is loaded.
        expected: means, by the hazard ratio that is assumed of every dose.
    """

    phase: str
    most: int
    gpu_hours: float | None
    expected: dict[float, Expected]

    def as_json(self) -> dict[str, object]:
        hours = self.gpu_hours
        by_ratio = [
            {"ratio": ratio, **asdict(means), "gpu_hours": None if hours is None else hours * means.share}
            for ratio, means in self.expected.items()
        ]
        return {"phase": self.phase, "max": self.most, "by_hazard_ratio": by_ratio}


def foresee(phase: Phase, rows: Sequence[Row]) -> Foreseen:
    """What adaptive replications would save.

    Args:
        rows: what all replications would cost.

    Raises:
        UsageError: the number of replications is fixed.
    """
    design = design_of(phase)
    if design is None:
        raise UsageError(
            f"{phase.name} has a fixed number of replications: add -o 'experiment.replications={{min: 5, max: 40}}'"
        )
    hours = [row.gpu_hours for row in rows if row.phase == phase.name]
    return Foreseen(phase.name, design.most, sum(hours) if hours else None, simulate(Shape.of(phase), design))


def _row(phase: str, group: Group, sizing: Sizing) -> Row:
    steps = sum(item.steps for item in group.items)
    horizon = max(item.steps for item in group.items)
    size, name = sizing.size_b(group.model), group.model.name
    hours, sources = {}, {}
    for engine in ENGINES:
        rate = sizing.measured.get((name, engine))
        step_s = rate.step_s if rate else published_step_s(size, engine, horizon)
        hours[engine], sources[engine] = steps * step_s / 3600, rate.source if rate else PUBLISHED
    expected = sizing.expected_engine(group.model, group.shape.engine_gpus)
    return Row(phase, name, len(group.items), steps, group.shape.engine_gpus, expected, hours, sources)
