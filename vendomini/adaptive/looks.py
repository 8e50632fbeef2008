"""The looks at an adaptive phase: what is decided by the runs that have ended, and which runs are asked for.

A pair is one model at one dose against the same model without any. The other factors of the grid are averaged over,
seed by seed. Only seeds whose runs have all ended count, in order, up to the first that has not: so whoever looks, and
whenever, comes to the same decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from vendomini.adaptive.sequential import OPEN, VERDICTS, Design, Floats, Verdict, decide, interval
from vendomini.config import Phase, RunSpec, expand
from vendomini.config.models import NAME
from vendomini.config.paths import as_text, lookup
from vendomini.config.schema import Replications
from vendomini.errors import CorruptRecordError, counted
from vendomini.records import JsonObject, Looks, Results, RunOutcome, write_record

Others = tuple[str, ...]
"""Values of the other factors."""
Cell = list[RunSpec]
"""The runs of one cell, in the order of their replications."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A model at a dose, against the same model without any.

    Attributes:
        cells: values of the other factors → the cells at the dose and the cells without, whose runs are compared.
    """

    model: str
    dose: float
    cells: dict[Others, tuple[list[Cell], list[Cell]]]


@dataclass(frozen=True)
class PairPath:
    """What the looks at a pair have found.

    Attributes:
        pair: what is compared.
        differences: (seeds,) in steps, of those that count until now.
        means, bounds: (looks,) the mean difference at each look taken, and beyond what it would have decided; steps.
        verdict: None while it is open.
    """

    pair: Pair
    design: Design
    differences: Floats
    means: list[float]
    bounds: list[float]
    verdict: Verdict | None

    @property
    def blocks(self) -> int:
        """Seeds at the last look; 0 before the first."""
        return self.design.looks[len(self.means) - 1] if self.means else 0

    @property
    def asked(self) -> int:
        """Seeds that it needs: those of the decision, or of the next look."""
        return self.blocks if self.verdict else self.design.looks[len(self.means)]

    @cached_property
    def effect(self) -> tuple[float, float, float]:
        """Median-unbiased difference in steps, and its interval; NaN where there is none, or not yet."""
        if not self.means:
            return math.nan, math.nan, math.nan
        sums = numpy.array(self.bounds) * self.design.looks[: len(self.bounds)]
        return interval(self.differences[: self.blocks], self.design, sums, len(self.means) - 1)

    def as_json(self) -> JsonObject:
        """The pair and its path, for ``looks.json`` and for scripts."""
        looks = [
            {"seeds": seeds, "difference": mean, "bound": None if math.isinf(bound) else bound}
            for seeds, mean, bound in zip(self.design.looks, self.means, self.bounds, strict=False)
        ]
        return {"model": self.pair.model, "dose": self.pair.dose, "verdict": self.verdict, "looks": looks}


@dataclass(frozen=True, slots=True)
class State:
    """Where an adaptive phase stands.

    Attributes:
        dose: short name of the dose.
        asked: the runs that are needed until the next look, those of the past included.
        most: the runs that there may be.
    """

    name: str
    dose: str
    design: Design
    paths: list[PairPath]
    asked: list[RunSpec]
    most: int

    @property
    def open(self) -> list[PairPath]:
        return [path for path in self.paths if path.verdict is None]

    @property
    def sentence(self) -> str:
        """Which pairs are decided, and how."""
        counts = {verdict: sum(path.verdict == verdict for path in self.paths) for verdict in VERDICTS}
        told = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
        decided = f"{len(self.paths) - len(self.open)} of {len(self.paths)} doses are decided"
        rest = f"{len(self.asked):,} of at most {self.most:,} runs asked for"
        return f"{decided}{f' ({told})' if told else ''}; {rest}"

    def lines(self) -> list[str]:
        """A line for each model: its decisions, and what is open."""
        told: dict[str, dict[str, list[str]]] = {}
        for path in self.paths:
            told.setdefault(path.pair.model, {}).setdefault(_told(path), []).append(as_text(path.pair.dose))
        return [
            f"{model}, {self.dose} " + "; ".join(f"{', '.join(doses)} {what}" for what, doses in found.items())
            for model, found in told.items()
        ]

    def keep(self, results: Results) -> None:
        """Writes the decisions down, for the record.

        Raises:
            ResultsError: the place is not writable.
        """
        if any(path.means for path in self.paths):
            write_record(results.looks, Looks(name=self.name, pairs=[path.as_json() for path in self.paths]))


def _told(path: PairPath) -> str:
    if path.verdict:
        return f"{path.verdict} after {counted(path.blocks, 'seed')}"
    return f"open, {len(path.differences)} of the {path.asked} seeds before the next look"


def design_of(phase: Phase) -> Design | None:
    """The design of a phase's looks; None if its number of replications is fixed."""
    given = phase.config.experiment.replications
    return Design.every(given.min, given.max, given.alpha) if isinstance(given, Replications) else None


def asked(phase: Phase, results: Results) -> Iterator[RunSpec]:
    """The runs that a phase asks for now: all of them, or until the next look."""
    state = look(phase, results)
    return expand(phase) if state is None else iter(state.asked)


def look(phase: Phase, results: Results) -> State | None:
    """Decides what can be decided now; None for a phase whose number of replications is fixed. Changes nothing."""
    design = design_of(phase)
    if design is None:
        return None
    cells = list(_cells(phase))
    pairs = _pairs(phase, cells)
    ended = _Ended(results)
    paths = [_path(pair, design, ended) for pair in pairs]
    needed: dict[str, int] = {}
    for path in paths:
        for dosed, zero in path.pair.cells.values():
            for cell in (*dosed, *zero):
                needed[cell[0].run_id] = max(needed.get(cell[0].run_id, 0), path.asked)
    wanted = [spec for cell in cells for spec in cell[: needed[cell[0].run_id]]]
    return State(
        phase.name, phase.world.dose.rpartition(".")[2], design, paths, wanted, sum(len(cell) for cell in cells)
    )


def _cells(phase: Phase) -> Iterator[Cell]:
    cell: Cell = []
    for spec in expand(phase):
        if spec.replication == 0 and cell:
            yield cell
            cell = []
        cell.append(spec)
    yield cell


def _pairs(phase: Phase, cells: Iterable[Cell]) -> list[Pair]:
    """All pairs, in the order of the grid. Factors that do nothing without a dose have a single cell there."""
    world = phase.world
    others = [path for path in phase.axes if path not in {NAME, world.dose, *world.inert_without_dose}]
    by_dose: dict[tuple[str, float], dict[Others, list[Cell]]] = {}
    for cell in cells:
        parameters = cell[0].parameters
        key = cell[0].model, float(str(lookup(parameters, world.dose)))
        place = tuple(as_text(lookup(parameters, path)) for path in others)
        by_dose.setdefault(key, {}).setdefault(place, []).append(cell)
    return [
        Pair(model, dose, {place: (some, by_dose[model, 0.0][place]) for place, some in found.items()})
        for (model, dose), found in by_dose.items()
        if dose
    ]


class _Ended:
    """Runs that have ended and count, each read once."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._known: dict[str, RunOutcome | None] = {}

    def __call__(self, run_id: str) -> RunOutcome | None:
        if run_id not in self._known:
            self._known[run_id] = self._read(run_id)
        return self._known[run_id]

    def _read(self, run_id: str) -> RunOutcome | None:
        try:
            outcome = self._results.outcome(run_id)
        except CorruptRecordError:
            return None
        return outcome if outcome and outcome.finished and outcome.time_to_crash is not None else None


def _path(pair: Pair, design: Design, ended: _Ended) -> PairPath:
    differences = numpy.array(list(_differences(pair, design.most, ended)))
    taken = sum(1 for blocks in design.looks if blocks <= len(differences))
    found = decide(differences[None, : design.looks[taken - 1] if taken else 0], design)
    looks = design.looks[: int(found.ends[0]) + 1]
    verdict = int(found.verdicts[0])
    return PairPath(
        pair,
        design,
        differences,
        means=[float(differences[:blocks].mean()) for blocks in looks],
        bounds=[float(bound) / blocks for bound, blocks in zip(found.bounds[0], looks, strict=False)],
        verdict=None if verdict == OPEN else VERDICTS[verdict],
    )


def _differences(pair: Pair, most: int, ended: _Ended) -> Iterator[float]:
    """The difference of each seed, averaged over the other factors, up to the first seed that has not ended."""
    for replication in range(most):
        parts = []
        for dosed, zero in pair.cells.values():
            sides = [[ended(cell[replication].run_id) for cell in side] for side in (dosed, zero)]
            difference = _difference(*sides)
            if difference is None:
                return
            parts.append(difference)
        yield sum(parts) / len(parts)


def _difference(dosed: Sequence[RunOutcome | None], zero: Sequence[RunOutcome | None]) -> float | None:
    """Difference of mean survival in steps, up to the step at which the first of these runs is censored."""
    runs = [*dosed, *zero]
    if None in runs:
        return None
    known = min((_time(run) for run in runs if run and not run.event_observed), default=math.inf)
    first, second = ([min(_time(run), known) for run in side if run] for side in (dosed, zero))
    return sum(first) / len(first) - sum(second) / len(second)


def _time(run: RunOutcome) -> float:
    return float(run.time_to_crash or 0)
