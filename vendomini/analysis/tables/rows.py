"""A run and its steps, as rows of flat tables."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from vendomini.analysis.tables.digest import CausedErrors
from vendomini.records import RunInfo, RunSummary, StepRecord

Row = dict[str, Any]
Columns = dict[str, list[object]]

_TREES = ("world", "detectors", "pe", "shocks", "parse", "engine", "versions", "owner")


def flatten(tree: object, prefix: str = "") -> Row:
    """Leaves of a JSON tree, dot path → value; a list or an empty mapping is one leaf, as JSON text."""
    row: Row = {}
    _flatten(tree, prefix, row)
    return row


def _flatten(tree: object, prefix: str, row: Row) -> None:
    if isinstance(tree, dict) and tree:
        before = f"{prefix}." if prefix else ""
        for key, value in tree.items():
            _flatten(value, f"{before}{key}", row)
    elif isinstance(tree, dict | list):
        row[prefix] = json.dumps(tree, ensure_ascii=False)
    else:
        row[prefix] = tree


def summary_row(summary: RunSummary) -> Row:
    """One row of the runs table: the parameters under their dot paths, then everything the summary says."""
    row: Row = {
        "run_id": summary.run_id,
        "status": "finished" if summary.finished else "failed",
        "seed": summary.seed,
        "replication": summary.replication,
    }
    row.update(flatten(summary.parameters))
    for name in RunSummary.__struct_fields__:
        if name not in {*_TREES, "schema", "parameters", "run_id", "seed", "replication"}:
            row[name] = getattr(summary, name)
    for name in _TREES:
        row.update(flatten(getattr(summary, name), name))
    return row


def running_row(info: RunInfo, last: Sequence[StepRecord]) -> Row:
    """A run in progress, right-censored at its last step; unless it has crashed and is only running on after that.

    Args:
        last: its last steps, as many as an episode runs on for after a crash.
    """
    crash = next((step for step in last if step.detectors.get("on")), None)
    steps = last[-1].step if last else 0
    return {
        "run_id": info.run_id,
        "status": "running",
        "seed": info.seed,
        "replication": info.replication,
        **flatten(info.parameters),
        "ending": "crashed" if crash else None,
        "crash_type": crash.detectors["on"][0] if crash else None,
        "time_to_crash": crash.step if crash else steps or None,
        "event_observed": crash is not None if steps else None,
        "steps": steps,
        "attempt": info.attempt,
    }


def damaged_row(run_id: str, reason: str) -> Row:
    """A run that can't be read: nothing is known of how it went."""
    unknown = ("ending", "crash_type", "severity", "time_to_crash", "event_observed", "steps", "attempt")
    return {"run_id": run_id, "status": "damaged", **dict.fromkeys(unknown), "reason": reason}


def step_columns(
    run_id: str,
    folder: str,
    steps: Iterable[StepRecord],
    caused: Iterable[Mapping[str, float]] | None,
    errors: CausedErrors,
) -> Columns:
    """All steps of one run as columns of equal length; columns of measures are floats, missing values None.

    Args:
        folder: tells runs of one id apart.
        caused: for each step the errors that shocks caused; None where the world does not say.
        errors: accumulates them.
    """
    columns: Columns = {}
    length = 0
    for length, (step, causes) in enumerate(zip(steps, caused or itertools.repeat({})), 1):  # noqa: B905 may be endless
        cells = _step_row(step)
        if caused is not None:
            cells += errors.update(step.step, causes, step.resolved)
        for name, value in cells:
            column = columns.setdefault(name, [])
            if len(column) < length - 1:  # absent until now, or for a while
                column.extend([None] * (length - 1 - len(column)))
            column.append(value)
    for column in columns.values():
        column.extend([None] * (length - len(column)))
    return {"run_id": [run_id] * length, "folder": [folder] * length, **columns}


def _step_row(step: StepRecord) -> list[tuple[str, object]]:
    """The cells of a step that have a value, in any order. This is where aggregation spends its time."""
    error = step.result.get("error")
    row: list[tuple[str, object]] = [
        ("step", step.step),
        ("parse", step.parse),
        ("tool", step.tool),
        ("ok", bool(step.result.get("ok"))),
        ("error", error.get("code") if isinstance(error, dict) else None),
        ("shocks", 0),
        ("shock_types", None),
        ("detectors_on", "+".join(step.detectors.get("on", ())) or None),
        ("prompt_tokens", step.prompt_tokens),
        ("cached_tokens", step.cached_tokens),
        ("completion_tokens", step.completion_tokens),
        ("latency_s", step.latency_s),
        ("resolved", len(step.resolved)),
    ]
    if step.day is not UNSET:
        row.append(("day", step.day))
    if step.shocks:
        realised = [str(shock.get("type")) for shock in step.shocks if shock.get("status") == "realised"]
        row[5:7] = [("shocks", len(realised)), ("shock_types", "+".join(realised) or None)]
    if step.resolved:
        row += _resolved(step)
    for kind, series in step.pe.items():
        if series:
            row += [(f"pe.{kind}.{name}", value) for name, value in series.items()]
    row += [(f"detectors.{name}", v) for name, v in step.detectors.items() if isinstance(v, int | float)]
    return row


def _resolved(step: StepRecord) -> list[tuple[str, float]]:
    """The mean error of each type that this step settled."""
    errors: dict[str, list[float]] = {}
    for claim in step.resolved:
        errors.setdefault(f"resolved.{claim['type']}", []).append(float(claim["pe"]))
    return [(name, sum(values) / len(values)) for name, values in errors.items()]
