"""What was planned, what has come in, and which factors vary: the tables as a data set to analyse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vendomini.adaptive.looks import State, look
from vendomini.analysis.tables.aggregate import Tables, find_results, source_name
from vendomini.analysis.tables.copies import without_copies
from vendomini.analysis.tables.experiments import COLUMN, Expanded, experiments
from vendomini.config.grid import expand
from vendomini.config.load import build_phase
from vendomini.config.paths import leaf_paths
from vendomini.config.schema import DEFAULT_WORLD, SCRIPTED_PREFIX
from vendomini.config.worlds import WorldInfo, find_world
from vendomini.errors import ConfigError, CorruptRecordError
from vendomini.records import JsonObject, Plan, Results, read_record

if TYPE_CHECKING:
    import pandas

MODEL = "agent.model.name"
ENGINE = "engine.backend"


@dataclass(frozen=True, slots=True)
class Factor:
    """A parameter that varies between runs.

    Attributes:
        path: its dot path, which is its column.
        label: as shown.
        levels: its values; numbers in order, others in the order of the grid.
    """

    path: str
    label: str
    levels: list[Any]

    @property
    def numeric(self) -> bool:
        return all(isinstance(level, int | float) and not isinstance(level, bool) for level in self.levels)


@dataclass(frozen=True, slots=True)
class Study:
    """A data set.

    Attributes:
        names: of the experiments.
        plans: their resolved configs.
        planned: all runs in the plans, as ``folder/run_id``; of adaptive ones those asked for until the next look.
        runs: the runs table.
        analysed: the runs that count, with ``durations``, ``event_observed`` and ``outcome``: finished ones, and
            those in progress as censored at their last step (leaving them out would favour early crashes).
        factors: what varies among them.
        looks: at adaptive phases.
        late: runs of these after the first look, which may depend on what was found, as ``folder/run_id``.
        apart: the one of them that tells experiments apart, where there are several; their runs are never pooled.
        worlds: the worlds of the runs, as far as they are installed here.
        copies: finished runs at dose 0 that duplicate others and are left out.
        notes: sentences about what could not be read.
    """

    names: list[str]
    plans: list[JsonObject]
    planned: set[str]
    runs: pandas.DataFrame = field(repr=False)
    analysed: pandas.DataFrame = field(repr=False)
    factors: list[Factor]
    worlds: list[type[WorldInfo]]
    copies: int
    notes: list[str]
    apart: Factor | None = None
    looks: list[State] = field(default_factory=list)
    late: set[str] = field(default_factory=set)

    @property
    def even(self) -> pandas.DataFrame:
        """The analysed runs of seeds that all cells have, whatever was found."""
        return self.analysed[~self.analysed["run"].isin(self.late)] if self.late else self.analysed

    @property
    def dose(self) -> Factor | None:
        """The dose, where it varies."""
        doses = {world.dose for world in self.worlds}
        return next((factor for factor in self.factors if factor.path in doses), None)

    def inert(self, path: str) -> bool:
        """Whether a parameter does nothing where the dose is 0."""
        return any(path in world.inert_without_dose for world in self.worlds)

    @property
    def dose_label(self) -> str:
        """The dose in words, for an axis."""
        return next((w.dose_label for w in self.worlds if self.dose and w.dose == self.dose.path), "dose")

    @property
    def mix(self) -> Factor | None:
        """The mix of errors that is provoked, where it varies."""
        mixes = {world.mix for world in self.worlds}
        return next((factor for factor in self.factors if factor.path in mixes), None)

    @property
    def pe_types(self) -> list[str]:
        """The types of prediction error."""
        return list(dict.fromkeys(kind for world in self.worlds for kind in world.pe_types))

    @property
    def events(self) -> str:
        """What an event can be, in words: ``a crash, bankruptcy or the loss of all customers``."""
        told = ["a crash", *dict.fromkeys(words for world in self.worlds for words in world.endings.values())]
        return " or ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)

    def count(self, status: str) -> int:
        """Runs of a status: finished, running, failed or damaged."""
        return int((self.runs["status"] == status).sum()) if len(self.runs) else 0

    @property
    def pending(self) -> int:
        """Runs that were planned and have no files yet."""
        return len(self.planned - set(self.runs["run"])) if len(self.runs) else len(self.planned)

    @property
    def synthetic(self) -> list[str]:
        """Models that are scripted controls."""
        models = self.analysed[MODEL].unique() if MODEL in self.analysed else []
        return sorted(str(model) for model in models if str(model).startswith(SCRIPTED_PREFIX))


def show(value: object) -> str:
    """A value as it is shown; a scripted agent is labelled as such."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return f"{text} (synthetic)" if text.startswith(SCRIPTED_PREFIX) else text


def open_study(folders: Sequence[Path], tables: Tables) -> Study:
    """Reads the plans of the results folders and the runs table made from them.

    Raises:
        ResultsError: a folder holds no runs.
    """
    plans, notes = _plans(find_results(folders))
    runs = tables.runs()
    runs["run"] = runs["folder"] + "/" + runs["run_id"] if len(runs) else ""
    worlds = _worlds(runs, notes)
    order: dict[str, list[object]] = {}
    pairs = [(results, found) for results, plan in plans if (found := _expanded(results, plan, order, notes))]
    expanded = [plan for _, plan in pairs]
    looks = [(plan, state) for results, plan in pairs if (state := look(plan.phase, results))]
    planned, late = _planned(expanded, looks)
    runs[COLUMN] = experiments(runs, expanded) if len(runs) else []
    analysed, copies = _without_copies(_analysed(runs), worlds)
    factors = _factors(analysed, order, worlds)
    return Study(
        names=list(dict.fromkeys(plan.name for _, plan in plans)),
        plans=[plan.config for _, plan in plans],
        planned=planned,
        runs=runs,
        analysed=analysed,
        factors=factors,
        worlds=worlds,
        copies=copies,
        notes=notes,
        apart=next((factor for factor in factors if factor.path in {COLUMN, ENGINE}), None),
        looks=[state for _, state in looks],
        late=late,
    )


def _planned(expanded: Sequence[Expanded], looks: Sequence[tuple[Expanded, State]]) -> tuple[set[str], set[str]]:
    """The runs that are asked for, and those that only an adaptive phase has, after its first look."""
    adaptive = [plan for plan, _ in looks]
    fixed = {f"{plan.folder}/{run_id}" for plan in expanded if plan not in adaptive for run_id in plan.runs}
    asked = {f"{plan.folder}/{spec.run_id}" for plan, state in looks for spec in state.asked}
    late = {
        f"{plan.folder}/{spec.run_id}"
        for plan, state in looks
        for spec in expand(plan.phase)
        if spec.replication >= state.design.looks[0]
    }
    return fixed | asked, late - fixed


def _without_copies(analysed: pandas.DataFrame, worlds: Sequence[type[WorldInfo]]) -> tuple[pandas.DataFrame, int]:
    copies = 0
    for world in worlds:
        parameters = list(leaf_paths(world.config))
        analysed, more = without_copies(analysed, world.dose, world.inert_without_dose, parameters)
        copies += more
    return analysed, copies


def _plans(found: Sequence[Results]) -> tuple[list[tuple[Results, Plan]], list[str]]:
    """(folder, plan) of each, and sentences about those that can't be read."""
    plans, notes = [], []
    for results in found:
        for path in sorted(results.plans.glob("*.json")):
            try:
                plans.append((results, read_record(path, Plan)))
            except CorruptRecordError as exc:
                notes.append(f"A plan is left out: {exc}.")
    return plans, notes


def _expanded(results: Results, plan: Plan, order: dict[str, list[object]], notes: list[str]) -> Expanded | None:
    try:
        phase = build_phase(plan.config, trusted=False)
    except ConfigError as exc:
        notes.append(f"The plan of {plan.name} can't be expanded, so its pending runs are not counted: {exc}")
        return None
    for path, values in phase.axes.items():
        known = order.setdefault(path, [])
        known += [cell for cell in map(_cell, values) if cell not in known]
    return Expanded(source_name(results.root), phase, {spec.run_id for spec in expand(phase)})


def _cell(value: object) -> object:
    """A value of the grid as written in the runs table."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _analysed(runs: pandas.DataFrame) -> pandas.DataFrame:
    if runs.empty or "time_to_crash" not in runs:
        return runs.iloc[0:0].assign(durations=[], event_observed=[], outcome=[])
    kept = runs[runs["status"].isin(["finished", "running"]) & runs["time_to_crash"].notna()].copy()
    kept["durations"] = kept["time_to_crash"].astype(float)
    kept["event_observed"] = kept["event_observed"].astype(bool)
    kept["outcome"] = _outcome(kept)
    return kept.reset_index(drop=True)


def _outcome(runs: pandas.DataFrame) -> pandas.Series:
    """The ending, with a crash's type instead of the word."""
    return runs["ending"].where(runs["ending"] != "crashed", runs["crash_type"])


def _worlds(runs: pandas.DataFrame, notes: list[str]) -> list[type[WorldInfo]]:
    names = set(runs["world"].fillna(DEFAULT_WORLD)) if "world" in runs else {DEFAULT_WORLD}
    found = []
    for name in sorted(names):
        try:
            found.append(find_world(name, trusted=False))
        except ConfigError as exc:
            notes.append(f"Dose and kinds of error are not known for some runs: {exc}.")
    return found


def _factors(
    analysed: pandas.DataFrame, order: dict[str, list[object]], worlds: Sequence[type[WorldInfo]]
) -> list[Factor]:
    """Parameters that vary: those of the grids first, in their order; none that another one determines."""
    parameters = dict.fromkeys(path for world in worlds for path in leaf_paths(world.config))
    known = [path for path in parameters if path in analysed and path not in order]
    varying = [path for path in [*order, *known] if path in analysed and analysed[path].nunique() > 1]
    apart = _apart(analysed)
    kept: list[str] = []
    for path in varying:
        if path in order or not any(_determines(analysed, other, path) for other in [*apart, *kept]):
            kept.append(path)
    kept += apart
    return [Factor(path, _label(path, kept), _levels(analysed, path, order.get(path, []))) for path in kept]


def _apart(analysed: pandas.DataFrame) -> list[str]:
    """What tells experiments apart, where there are several: their engine if each has one of its own and they are the
    same otherwise, else their name."""
    if analysed.empty or analysed[COLUMN].nunique() < 2:
        return []
    same = bool(analysed["run_id"].duplicated().any())
    if same and ENGINE in analysed and analysed[ENGINE].nunique() == analysed[COLUMN].nunique():
        return [ENGINE] if _determines(analysed, COLUMN, ENGINE) else [COLUMN]
    return [COLUMN]


def _determines(runs: pandas.DataFrame, first: str, second: str) -> bool:
    return bool((runs.groupby(first)[second].nunique() <= 1).all())


def _label(path: str, paths: Sequence[str]) -> str:
    if path in {MODEL, ENGINE, COLUMN}:
        return {MODEL: "model", ENGINE: "engine", COLUMN: "experiment"}[path]
    last = path.rsplit(".", 1)[-1]
    return last if sum(other.rsplit(".", 1)[-1] == last for other in paths) == 1 else path


def _levels(runs: pandas.DataFrame, path: str, order: Sequence[object]) -> list[Any]:
    present = [value.item() if hasattr(value, "item") else value for value in runs[path].dropna().unique()]
    if all(isinstance(value, int | float) for value in present):
        return sorted(present)
    ranks = {value: rank for rank, value in enumerate(order)}
    return sorted(present, key=lambda value: (ranks.get(value, len(ranks)), str(value)))
