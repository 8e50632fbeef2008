"""Episodes for the viewer: a list of runs, and each run's steps by page, without holding a log in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vendomini.adaptive.looks import asked
from vendomini.analysis.tables.aggregate import find_results
from vendomini.analysis.tables.rows import flatten
from vendomini.analysis.tables.study import MODEL, show
from vendomini.config import RunSpec, build_phase
from vendomini.config.worlds import world_of
from vendomini.errors import ConfigError, CorruptRecordError, ResultsError
from vendomini.records import Plan, Results, RunPaths, StepRecord, decode_step, open_record, read_record, step_lines
from vendomini.worlds.conversation import user_turn
from vendomini.worlds.protocol import SUCCESS

Json = dict[str, Any]

INDEXES = 8
"""Logs whose index is kept."""

NOT_BEGUN = "not begun"
UNFINISHED = {"running", "failed", "damaged", NOT_BEGUN}

MOST_PLANNED = 20_000
"""Runs of a plan up to which those that are not begun are listed."""


@dataclass(frozen=True, slots=True)
class Index:
    """Where each step of a log begins, and what the timeline shows of it.

    Attributes:
        offsets: of each line, and the end of the last.
        timeline: ``pe`` (accumulated error by step), ``shocks`` ([step, type, kind]), ``on`` ([detector, from, to]).
        damage: why the log can't be read further, or nothing.
    """

    offsets: list[int]
    timeline: Json
    damage: str = ""

    @property
    def steps(self) -> int:
        return len(self.offsets) - 1


class Library:
    """The runs of some results folders. Safe to use from several threads.

    Args:
        folders: results folders, or folders of results folders.

    Raises:
        ResultsError: there are none.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.results = find_results(folders)
        self._lock = threading.Lock()
        self._rows: dict[tuple[int, str], tuple[object, Json]] = {}
        self._indexes: OrderedDict[Path, tuple[object, Index]] = OrderedDict()

    def runs(self, planned: bool = False) -> list[Json]:
        """One entry a run: key, ids, ending, and the parameters that vary between the runs.

        Args:
            planned: also those that are not begun.
        """
        entries = [
            self._entry(place, run_id) for place, results in enumerate(self.results) for run_id in results.run_ids()
        ]
        if planned:
            entries += self._not_begun({(entry["place"], entry["run_id"]) for entry in entries})
        values: dict[str, set[str]] = {}
        for entry in entries:
            for path, value in entry["parameters"].items():
                values.setdefault(path, set()).add(value)
        varying = [path for path, seen in values.items() if len(seen) > 1 and path != MODEL]
        return [
            {**entry, "parameters": {path: entry["parameters"].get(path, "") for path in varying}} for entry in entries
        ]

    def _not_begun(self, begun: set[tuple[int, str]]) -> list[Json]:
        return [
            self._open_entry(place, spec)
            for place, results in enumerate(self.results)
            for spec in _asked_of(results)
            if (place, spec.run_id) not in begun
        ]

    def _open_entry(self, place: int, spec: RunSpec) -> Json:
        """What is known of a run that has no files yet; kept until it has."""
        key = place, spec.run_id
        with self._lock:
            held = self._rows.get(key)
            if held is None or held[0] is not None:  # or its files are gone
                entry = {"place": place, "run_id": spec.run_id, "ending": NOT_BEGUN, **_parameters(spec.parameters)}
                held = self._rows[key] = None, entry
            return held[1]

    def select(self, run_ids: Sequence[str] | None, ending: str | None, model: str | None) -> list[tuple[int, str]]:
        """(folder, run id) of the runs that match everything given; of finished ones, if no run is named.

        Raises:
            ResultsError: nothing matches.
        """
        entries = [
            self._entry(place, run_id) for place, results in enumerate(self.results) for run_id in results.run_ids()
        ]
        chosen = [
            (entry["place"], entry["run_id"])
            for entry in entries
            if (entry["run_id"] in run_ids if run_ids else entry["ending"] not in UNFINISHED)
            and ending in {None, entry["ending"]}
            and (model is None or model in {entry["model"], entry["model"].removesuffix(" (synthetic)")})
        ]
        if not chosen:
            nothing = "no run matches" if run_ids or ending or model else "no run has finished yet: name one with --run"
            raise ResultsError(f"{nothing}; `vendomini traces DIR` lists them all")
        return chosen

    def paths(self, place: int, run_id: str) -> RunPaths:
        """The files of a run.

        Raises:
            ResultsError: there is no such run here, whatever path the name contains.
        """
        if not 0 <= place < len(self.results):
            raise ResultsError(f"there is no results folder number {place}")
        paths = self.results[place].run(run_id)
        if paths.folder.is_symlink() or not paths.folder.is_dir():
            raise ResultsError(f"{run_id!r} is not a run in {self.results[place].root}")
        return paths

    def episode(self, place: int, run_id: str) -> Json:
        """What the viewer needs to know of a run before its steps.

        Raises:
            ResultsError: see :meth:`paths`.
        """
        paths = self.paths(place, run_id)
        info, index = self.results[place].info(run_id), self.index(paths)
        entry = self._entry(place, run_id)
        return {
            **entry,
            "parameters": {key: value for key, value in entry["parameters"].items() if value},
            "facts": _facts(info.parameters) if info else [],
            "causal": _causal(info.parameters) if info else [],
            "system_prompt": info.system_prompt if info else "",
            "length": index.steps,
            "timeline": index.timeline,
            "damage": index.damage or _missing(entry, index.steps),
        }

    def steps(self, place: int, run_id: str, first: int, count: int) -> list[Json]:
        """Steps ``first`` … ``first + count − 1`` (from 1), each with the turn the agent was shown.

        Raises:
            ResultsError: see :meth:`paths`.
        """
        paths = self.paths(place, run_id)
        return read_page(paths.steps, self.index(paths), first, count)

    def index(self, paths: RunPaths) -> Index:
        """The index of a run's log, kept until the log changes."""
        stamp = _stamp(paths.steps)
        with self._lock:
            held = self._indexes.get(paths.steps)
            if held and held[0] == stamp:
                self._indexes.move_to_end(paths.steps)
                return held[1]
        index = index_log(paths.steps)
        with self._lock:
            self._indexes[paths.steps] = (stamp, index)
            while len(self._indexes) > INDEXES:
                self._indexes.popitem(last=False)
        return index

    def _entry(self, place: int, run_id: str) -> Json:
        paths = self.results[place].run(run_id)
        stamp = _stamp(paths.summary) or _stamp(paths.info)
        with self._lock:
            held = self._rows.get((place, run_id))
        if held and held[0] == stamp:
            return held[1]
        entry = {"place": place, "run_id": run_id, **describe(self.results[place], run_id)}
        with self._lock:
            self._rows[place, run_id] = (stamp, entry)
        return entry


def describe(results: Results, run_id: str) -> Json:
    """A run in a list: ending, crash, model and parameters, whatever state its files are in."""
    try:
        summary = results.summary(run_id)
        known = summary or results.info(run_id)
    except CorruptRecordError as exc:
        return {"ending": "damaged", "reason": str(exc), "model": "", "parameters": {}}
    return {
        "ending": summary.ending if summary else "running",
        "crash_type": summary.crash_type if summary else None,
        "severity": summary.severity if summary else None,
        "time_to_crash": summary.time_to_crash if summary and summary.event_observed else None,
        "steps": summary.steps if summary else None,
        "reason": summary.reason if summary else None,
        "parse": summary.parse if summary else None,
        "completion_tokens": summary.completion_tokens if summary else None,
        "seconds": summary.seconds if summary else None,
        "seed": known.seed if known else None,
        **_parameters(known.parameters if known else {}),
    }


def _parameters(parameters: Json) -> Json:
    shown = {path: show(value) for path, value in flatten(parameters).items()}
    return {"model": shown.get(MODEL, ""), "parameters": shown}


def _asked_of(results: Results) -> Iterable[RunSpec]:
    """The runs of all plans that are asked for now; none of a plan that is too long to list, or can't be read here."""
    found: dict[str, RunSpec] = {}
    for path in results.plans.glob("*.json"):
        with suppress(CorruptRecordError, ConfigError):
            plan = read_record(path, Plan)
            if plan.runs <= MOST_PLANNED:
                found |= {spec.run_id: spec for spec in asked(build_phase(plan.config, trusted=False), results)}
    return found.values()


def _causal(parameters: Json) -> list[str]:
    """What the values of a causal claim are, in order; nothing for a world that is not known here."""
    try:
        fields = getattr(world_of(parameters, trusted=False), "expectations", ())
    except ConfigError:
        return []
    names = [SUCCESS, *(one.field for one in fields if one.score == "exact")]
    return [name.removeprefix("expected_").replace("_", " ") for name in names]


def _facts(parameters: Json) -> list[str]:
    """Paths of the parameters that are shown beside the episode."""
    try:
        own = world_of(parameters, trusted=False).facts
    except ConfigError:
        own = ()
    return [*own, "agent.interface.prediction_mode"]


def _missing(entry: Json, logged: int) -> str:
    """What is wrong if the log of a run that has ended is not as long as its summary says."""
    if entry["ending"] in UNFINISHED or entry["steps"] == logged:
        return ""
    return f"The log holds {logged} steps where the summary counts {entry['steps']}."


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


# ------------------------------------------------------------------------------------------------ logs


def index_log(path: Path) -> Index:
    """Reads a log once; stops at a torn or damaged line."""
    offsets = [0]
    timeline: Json = {"pe": [], "shocks": [], "on": []}
    damage = ""
    open_flags: dict[str, list[Any]] = {}
    try:
        for step, end in step_lines(path):
            offsets.append(end)
            _note(timeline, open_flags, step)
    except FileNotFoundError:
        damage = "There is no step log."
    except CorruptRecordError as exc:
        damage = f"{exc}. The steps before it are shown."
    return Index(offsets, timeline, damage)


def _note(timeline: Json, open_flags: dict[str, list[Any]], step: StepRecord) -> None:
    overall = step.pe.get("all") or {}
    timeline["pe"].append(overall.get("medium"))
    timeline["shocks"] += [
        [step.step, shock.get("type"), shock.get("kind")] for shock in step.shocks if shock.get("status") == "realised"
    ]
    names = step.detectors.get("on") or []
    for name in names:
        flag = open_flags.get(name)
        if flag is None:
            flag = open_flags[name] = [name, step.step, step.step]
            timeline["on"].append(flag)
        flag[2] = step.step
    for name in set(open_flags) - set(names):
        del open_flags[name]


def read_page(path: Path, index: Index, first: int, count: int) -> list[Json]:
    """Some steps of an indexed log, each with ``turn``: the user message that the agent answered."""
    first, last = max(first, 1), min(first + count - 1, index.steps)
    if last < first:
        return []
    begin = max(first - 1, 1)  # the result of the step before is part of the first turn
    with open_record(path) as file:
        file.seek(index.offsets[begin - 1])
        data = file.read(index.offsets[last] - index.offsets[begin - 1])
    records = [decode_step(line, path, begin + place) for place, line in enumerate(data.split(b"\n")[:-1])]
    results = [None, *(record.result for record in records)]
    return [
        {**msgspec.to_builtins(record), "turn": user_turn(record.observation, result)}
        for record, result in zip(records, results, strict=False)
        if record.step >= first
    ]
