"""Which runs of a pilot's folder belong to a phase as it is set now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vendomini.config import Phase, expand
from vendomini.config.paths import assign, lookup
from vendomini.config.worlds import WorldInfo
from vendomini.errors import ResultsError
from vendomini.pilot.derive import pilot_of
from vendomini.records import Results, RunInfo

Settings = dict[str, object]


@dataclass(slots=True)
class PilotRuns:
    """The pilot runs of one model.

    Attributes:
        folder: where they are.
        own: runs begun with settings that the phase has now.
        missing: how many settings of the phase have no run.
        changes: ``path: old, now new``, where there are runs with other settings only.
    """

    folder: Results
    own: list[RunInfo] = field(default_factory=list)
    missing: int = 0
    changes: list[str] = field(default_factory=list)


def pilot_runs(phase: Phase, results: Results) -> dict[str, PilotRuns]:
    """Pilot runs by model, the reference control included. A trial without a pilot is judged by its experiment's, as
    far as the settings are the same.

    Args:
        results: of the phase; the pilot's are in it.
    """
    world, pilot = phase.world, results.pilot
    if phase.trial and not pilot.runs.is_dir():
        pilot = Results(results.root.with_name(results.root.name.removesuffix(phase.trial))).pilot
    begun: dict[str, list[RunInfo]] = {}
    for info in _infos(pilot):
        begun.setdefault(str(lookup(info.parameters, "agent.model.name")), []).append(info)
    wanted: dict[str, list[Settings]] = {}
    for spec in expand(pilot_of(phase)):
        settings = _settings(spec.parameters, world)
        if settings not in wanted.setdefault(spec.model, []):
            wanted[spec.model].append(settings)
    return {model: _sorted(pilot, settings, begun.get(model, []), world) for model, settings in wanted.items()}


def _sorted(pilot: Results, wanted: list[Settings], begun: list[RunInfo], world: type[WorldInfo]) -> PilotRuns:
    found = [(info, _settings(info.parameters, world)) for info in begun]
    runs = PilotRuns(pilot, [info for info, settings in found if settings in wanted])
    known = [settings for _, settings in found]
    missing = [settings for settings in wanted if settings not in known]
    runs.missing = len(missing)
    if missing and known:
        runs.changes = min(([*_differences(old, missing[0])] for old in known), key=len)
    return runs


def _infos(pilot: Results) -> Iterator[RunInfo]:
    for run_id in pilot.run_ids():
        try:
            info = pilot.info(run_id)
        except ResultsError:
            continue
        if info is not None:
            yield info


def _settings(parameters: Settings, world: type[WorldInfo]) -> Settings:
    """A run's parameters but for what a pilot sets itself."""
    for path in (world.horizon, world.dose):
        parameters = assign(parameters, path, None)
    return parameters


def _differences(old: object, new: object, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif old != new:
        yield f"{path}: {old}, now {new}"
