"""A run and its steps, as rows of flat tables."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET

from vendomini.analysis.tables.digest import CausedErrors
from vendomini.records import RunInfo, RunSummary, StepRecord

Row = dict[str, Any]

_SHARED = ("engine", "versions", "owner")
"""Trees that are the same in all runs of a job."""
_TREES = ("world", "detectors", "pe", "shocks", "parse", *_SHARED)
_BEFORE = ("run_id", "seed", "replication", "parameters", "schema")
_LEAVES = tuple(name for name in RunSummary.__struct_fields__ if name not in {*_TREES, *_BEFORE})
_as_json = json.JSONEncoder(ensure_ascii=False).encode


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
        row[prefix] = _as_json(tree)
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
    row.update(_shared(msgspec.json.encode(summary.parameters)))
    for name in _LEAVES:
        row[name] = getattr(summary, name)
    for name in _TREES:
        tree = getattr(summary, name)
        if name in _SHARED:
            row.update(_shared(msgspec.json.encode(tree), name))
        else:
            _flatten(tree, name, row)
    return row


@lru_cache(maxsize=1024)
def _shared(tree: bytes, prefix: str = "") -> Row:
    """:func:`flatten` of a tree that many runs have, given as JSON."""
    return flatten(msgspec.json.decode(tree), prefix)


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


def step_rows(
    steps: Iterable[StepRecord], caused: Iterable[Mapping[str, float]] | None, errors: CausedErrors
) -> Iterator[Row]:
    """The steps of one run, each with the cells that have a value; those of measures are numbers.

    Args:
        caused: for each step the errors that shocks caused; None where the world does not say.
        errors: accumulates them.
    """
    for step, causes in zip(steps, caused or itertools.repeat({})):  # noqa: B905 may be endless
        row = _step_row(step)
        if caused is not None:
            row.update(errors.update(step.step, causes, step.resolved))
        yield row


def _step_row(step: StepRecord) -> Row:
    """This is where aggregation spends its time."""
    result, shocks, resolved = step.result, step.shocks, step.resolved
    error = result.get("error")
    realised = [str(shock.get("type")) for shock in shocks if shock.get("status") == "realised"] if shocks else ()
    row: Row = {
        "step": step.step,
        "parse": step.parse,
        "tool": step.tool,
        "ok": bool(result.get("ok")),
        "error": error.get("code") if isinstance(error, dict) else None,
        "shocks": len(realised),
        "shock_types": "+".join(realised) or None,
        "detectors_on": "+".join(step.detectors.get("on", ())) or None,
        "prompt_tokens": step.prompt_tokens,
        "cached_tokens": step.cached_tokens,
        "completion_tokens": step.completion_tokens,
        "latency_s": step.latency_s,
        "resolved": len(resolved),
    }
    if step.day is not UNSET:
        row["day"] = step.day
    if resolved:
        row.update(_resolved(step))
    for kind, series in step.pe.items():
        if series:
            for name, value in series.items():
                row[f"pe.{kind}.{name}"] = value
    for name, value in step.detectors.items():
        if type(value) in (int, float):
            row[f"detectors.{name}"] = value
    return row


def _resolved(step: StepRecord) -> Row:
    """The mean error of each type that this step settled."""
    errors: dict[str, list[float]] = {}
    for claim in step.resolved:
        errors.setdefault(f"resolved.{claim['type']}", []).append(float(claim["pe"]))
    return {name: sum(values) / len(values) for name, values in errors.items()}
