"""All runs of an experiment at a glance, while it runs: one row per cell, with the data for the page's curves."""

from __future__ import annotations

from collections import Counter

from vendomini.analysis.traces.episodes import UNFINISHED, Json, Library
from vendomini.errors import CorruptRecordError
from vendomini.records import last_steps

REASONS = 20
"""How many different reasons for failed and damaged runs are listed."""


def overview(library: Library) -> Json:
    """The dashboard's data about the runs.

    Returns:
        ``factors``: the parameters that vary, the model first. ``cells``: one for each combination of their values,
        with ``values``, ``endings`` (ending → runs), ``times`` (``[steps, event]`` of every run with steps, a run in
        progress censored where it is now), ``replies`` (how replies were read → steps), ``tokens`` and ``seconds``.
        ``reasons``: why runs failed or are damaged → runs.
    """
    runs = library.runs(planned=True)
    factors = ["model", *(runs[0]["parameters"] if runs else ())]
    cells: dict[tuple[object, ...], Json] = {}
    reasons: Counter[str] = Counter()
    for run in runs:
        values = (run["model"], *run["parameters"].values())
        _add(cells.setdefault(values, _cell(values)), run, library)
        if run["ending"] in {"failed", "damaged"}:
            reasons[run["reason"] or "unknown"] += 1
    return {"factors": factors, "cells": list(cells.values()), "reasons": reasons.most_common(REASONS)}


def _cell(values: tuple[object, ...]) -> Json:
    return {"values": values, "endings": Counter(), "times": [], "replies": Counter(), "tokens": 0, "seconds": 0.0}


def _add(cell: Json, run: Json, library: Library) -> None:
    cell["endings"][run["ending"]] += 1
    cell["replies"].update(run.get("parse") or {})
    cell["tokens"] += run.get("completion_tokens") or 0
    cell["seconds"] += run.get("seconds") or 0.0
    if run["ending"] not in UNFINISHED:
        cell["times"].append([run["time_to_crash"] or run["steps"], run["time_to_crash"] is not None])
    elif run["ending"] == "running" and (steps := _steps_so_far(library, run)):
        cell["times"].append([steps, False])


def _steps_so_far(library: Library, run: Json) -> int:
    try:
        return sum(step.step for step in last_steps(library.paths(run["place"], run["run_id"]).steps, 1))
    except CorruptRecordError:
        return 0
