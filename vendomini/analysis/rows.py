"""A run and its steps, as rows of flat tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
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


def numbers(tree: Any, prefix: str) -> Iterator[tuple[str, float | None]]:
    """The numeric leaves of a JSON tree (true is 1), missing ones as None."""
    for path, value in flatten(tree, prefix):
        if value is None or isinstance(value, int | float):
            yield path, None if value is None else float(value)


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


def running_row(info: RunInfo, last: StepRecord | None) -> Row:
    """A run in progress: alive at its last step, hence right-censored there."""
    steps = last.step if last else 0
    return {
        "run_id": info.run_id,
        "status": "running",
        "seed": info.seed,
        "replication": info.replication,
        **dict(flatten(info.parameters)),
        "ending": None,
        "time_to_crash": steps or None,
        "event_observed": False if steps else None,
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
    yield "shocks", len(step.shocks)
    yield "shock_types", "+".join(str(shock.get("type")) for shock in step.shocks) or None
    yield "resolved", len(step.resolved)
    yield "prompt_tokens", step.prompt_tokens
    yield "cached_tokens", step.cached_tokens
    yield "completion_tokens", step.completion_tokens
    yield "latency_s", step.latency_s
    yield from numbers(step.pe, "pe")
    yield from numbers(step.detectors, "detectors")


def dominant(counts: dict[str, int]) -> str | None:
    """The most frequent key, the first in alphabetical order where two are; None where nothing was counted."""
    ranked = sorted(Counter(counts).items(), key=lambda item: (-item[1], item[0]))
    return ranked[0][0] if ranked and ranked[0][1] > 0 else None
