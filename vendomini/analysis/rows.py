"""A run and its steps, as rows of flat tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vendomini.records import RunInfo, RunSummary, StepRecord

Row = dict[str, Any]
Columns = dict[str, list[Any]]

_TREES = ("detectors", "pe", "shocks", "parse", "engine", "versions")


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a JSON tree as (dot path, value); a list or an empty mapping is one leaf, as JSON text."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, dict | list):
        yield prefix, json.dumps(tree, ensure_ascii=False)
    else:
        yield prefix, tree


def numbers(tree: Any, prefix: str) -> Iterator[tuple[str, float]]:
    """The numeric leaves of a JSON tree."""
    for path, value in flatten(tree, prefix):
        if isinstance(value, int | float):
            yield path, float(value)


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
    """A run in progress, right-censored at its last step; unless it has crashed and only lingers after that.

    Args:
        last: its last steps, as many as an episode goes on for after a crash.
    """
    crash = next((step for step in last if step.detectors.get("on")), None)
    steps = last[-1].step if last else 0
    return {
        "run_id": info.run_id,
        "status": "running",
        "seed": info.seed,
        "replication": info.replication,
        **dict(flatten(info.parameters)),
        "ending": "crashed" if crash else None,
        "crash_type": crash.detectors["on"][0] if crash else None,
        "time_to_crash": crash.step if crash else steps or None,
        "event_observed": crash is not None if steps else None,
        "steps": steps,
        "attempt": info.attempt,
    }


def step_columns(run_id: str, steps: Iterable[StepRecord]) -> Columns:
    """All steps of one run as columns of equal length; columns of measures are floats, missing values None."""
    columns: Columns = {}
    for index, step in enumerate(steps):
        for name, value in _step_row(run_id, step):
            column = columns.get(name)
            if column is None:
                column = columns[name] = [None] * index
            column.append(value)
        for column in columns.values():
            if len(column) == index:
                column.append(None)
    return columns


def _step_row(run_id: str, step: StepRecord) -> Iterator[tuple[str, Any]]:
    error = step.result.get("error")
    yield "run_id", run_id
    yield "step", step.step
    yield "day", step.day
    yield "parse", step.parse
    yield "tool", step.tool
    yield "ok", bool(step.result.get("ok"))
    yield "error", error.get("code") if isinstance(error, dict) else None
    realised = [str(shock.get("type")) for shock in step.shocks if shock.get("status") == "realised"]
    yield "shocks", len(realised)
    yield "shock_types", "+".join(realised) or None
    yield "detectors_on", "+".join(step.detectors.get("on", [])) or None
    yield "prompt_tokens", step.prompt_tokens
    yield "cached_tokens", step.cached_tokens
    yield "completion_tokens", step.completion_tokens
    yield "latency_s", step.latency_s
    yield from _resolved(step)
    yield from numbers(step.pe, "pe")
    yield from numbers(step.detectors, "detectors")


def _resolved(step: StepRecord) -> Iterator[tuple[str, Any]]:
    """How many claims this step settled, and the mean error of each type."""
    yield "resolved", len(step.resolved)
    errors: dict[str, list[float]] = {}
    for claim in step.resolved:
        errors.setdefault(f"resolved.{claim['type']}", []).append(float(claim["pe"]))
    for name, values in errors.items():
        yield name, sum(values) / len(values)
