"""Results in Weights & Biases or MLflow, through their own clients: one run for each cell of the grid.

A cell is what is compared. These tools average over runs, which is wrong for censored episodes, so a run holds the
cell's Kaplan–Meier curve by step, its restricted mean and median, and the list of its episodes.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vendomini.analysis.statistics.survival import Curve, common_horizon, kaplan_meier
from vendomini.analysis.tables.aggregate import aggregate
from vendomini.analysis.tables.study import ENGINE, MODEL, Study, open_study, show
from vendomini.config.paths import assign, leaf_paths
from vendomini.errors import MissingExtraError, ResultsError

if TYPE_CHECKING:
    import pandas

POINTS = 100
COSTS = ("prompt_tokens", "completion_tokens", "seconds")
EPISODE = ("run_id", "seed", "ending", "crash_type", "severity", "time_to_crash", "event_observed", "steps", *COSTS)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the grid.

    Attributes:
        name: its levels in words.
        parameters: under their dot paths, those that its episodes share.
        survival: step → survival with its 95 % band and the runs at risk.
        summary: restricted mean and median survival in steps with their intervals, runs, events, costs.
        episodes: a row each.
    """

    name: str
    parameters: dict[str, object]
    survival: list[tuple[int, dict[str, float]]]
    summary: dict[str, float]
    episodes: pandas.DataFrame


def send(folders: Sequence[Path], tracker: str, project: str | None = None) -> str:
    """Writes results folders to ``wandb`` or ``mlflow``.

    Args:
        project: W&B's project or MLflow's experiment; by default named as what is exported.

    Returns:
        Where they are.

    Raises:
        ResultsError: there are no runs, or the tracker refuses.
        MissingExtraError: a package is not installed.
    """
    try:
        import lifelines  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError(f"the export to {tracker}", "lifelines", "report") from exc
    study = open_study(folders, aggregate(folders, folders[0] / "report"))
    write = {"wandb": to_wandb, "mlflow": to_mlflow}[tracker]
    return write(study, project or "-".join(study.names) or "vendomini")


def cells(study: Study) -> Iterator[Cell]:
    """Every cell that has runs; restricted means up to one horizon, common to all of them.

    Raises:
        ResultsError: no run has made a step yet.
    """
    if study.analysed.empty:
        raise ResultsError("there is nothing to export yet: no run has made a step")
    paths = [factor.path for factor in study.factors] or [MODEL]
    groups = [(cell, group) for cell, group in study.analysed.groupby(paths, dropna=False, sort=False)]
    horizon = common_horizon([group for _, group in groups])
    width = max(1, math.ceil(study.analysed["durations"].max() / POINTS))
    for cell, group in groups:
        labels = [factor.label for factor in study.factors] or ["model"]
        name = ", ".join(f"{label} {show(value)}" for label, value in zip(labels, cell, strict=True))
        curve = kaplan_meier(group, name, horizon)
        episodes = group[[column for column in EPISODE if column in group]]
        points = list(_points(curve, group, width))
        yield Cell(name, _parameters(study, group), points, _summary(curve, group), episodes)


def _parameters(study: Study, group: pandas.DataFrame) -> dict[str, object]:
    """Those that have one value in the cell; where the dose is 0, some have none."""
    paths = dict.fromkeys(path for world in study.worlds for path in leaf_paths(world.config))
    known = [path for path in (*paths, ENGINE, "versions.vendomini") if path in group]
    shared = {path: group[path].dropna().unique().tolist() for path in known}
    found: dict[str, object] = {path: values[0] for path, values in shared.items() if len(values) == 1}
    return found | ({"experiment": group[study.apart.path].iloc[0]} if study.apart else {})


def _points(curve: Curve, group: pandas.DataFrame, width: int) -> Iterator[tuple[int, dict[str, float]]]:
    """The curve at every ``width``-th step and at its last: the same steps in each cell, so that curves overlay."""
    last = int(group["durations"].max())
    for step in [*range(0, last, width), last]:
        place = bisect_right(curve.times, step) - 1
        values = {
            "survival": curve.survival[place],
            "survival_lower": curve.lower[place],
            "survival_upper": curve.upper[place],
            "at_risk": float((group["durations"] >= step).sum()),
        }
        yield step, _finite(values)


def _summary(curve: Curve, group: pandas.DataFrame) -> dict[str, float]:
    estimates = {"rmst": curve.rmst, "median": curve.median}
    values = {"runs": curve.n, "events": curve.events, "rmst_horizon": curve.horizon}
    for name, one in estimates.items():
        values |= {name: one.value, f"{name}_lower": one.lower, f"{name}_upper": one.upper}
    sums = {f"{name}_sum": float(group[name].sum()) for name in ("steps", *COSTS) if name in group}
    return _finite({**values, **sums})


def _finite(values: dict[str, float]) -> dict[str, float]:
    """A median that was not reached and a limit that is not known are left out: neither tool takes them."""
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def to_wandb(study: Study, project: str) -> str:
    """Writes the cells as runs of a W&B project, in one group; offline where W&B is set so.

    Returns:
        Where they are.

    Raises:
        ResultsError: there are no runs, or W&B refuses.
        MissingExtraError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError as exc:
        raise MissingExtraError("the export to W&B", "wandb", "wandb") from exc
    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True, x_disable_meta=True)
    group = ", ".join(study.names)
    where = ""
    try:
        for cell in cells(study):
            config: dict[str, object] = {}
            for path, value in cell.parameters.items():
                config = assign(config, path, value)
            with wandb.init(project=project, name=cell.name, group=group, config=config, settings=settings) as run:
                for step, values in cell.survival:
                    run.log(values, step=step)
                run.log({"episodes": wandb.Table(dataframe=cell.episodes)})
                run.summary.update(cell.summary)
                where = run.project_url if not run.offline else f"{Path(run.dir).parents[1]}/offline-run-*"
    except (wandb.errors.Error, ValidationError) as exc:  # the latter: a setting of W&B's
        raise ResultsError(f"W&B refuses: {' '.join(str(exc).split())}") from exc
    return where


def to_mlflow(study: Study, experiment: str) -> str:
    """Writes the cells as runs of an MLflow experiment, to the server or store that MLflow is set to.

    Returns:
        Where they are.

    Raises:
        ResultsError: there are no runs, or MLflow refuses.
        MissingExtraError: mlflow is not installed.
    """
    try:
        import mlflow
    except ImportError as exc:
        raise MissingExtraError("the export to MLflow", "mlflow", "mlflow") from exc
    try:
        mlflow.set_experiment(experiment)
        for cell in cells(study):
            with mlflow.start_run(run_name=cell.name):
                mlflow.log_params(cell.parameters)
                for step, values in cell.survival:
                    mlflow.log_metrics(values, step=step)
                mlflow.log_metrics(cell.summary)
                mlflow.log_table(cell.episodes, "episodes.json")
    except mlflow.exceptions.MlflowException as exc:
        hint = (
            ""
            if "MLFLOW_TRACKING_URI" in os.environ
            else "; MLFLOW_TRACKING_URI names a server, as in http://host:5000"
        )
        raise ResultsError(f"MLflow refuses: {' '.join(str(exc).split())}{hint}") from exc
    return f"{mlflow.get_tracking_uri()}, experiment {experiment}"
