"""How fast jobs were, from the runs that have ended in a results folder."""

from __future__ import annotations

from itertools import islice

from vendomini.cluster.pace import Throughput, measure
from vendomini.errors import CorruptRecordError
from vendomini.records import Results, RunInfo, RunSummary, read_record

SAMPLE = 500
"""Runs looked at, at most."""


def throughput(results: Results) -> dict[str, Throughput]:
    """Model name → throughput of one job, measured; nothing for a model without ended runs."""
    by_model: dict[str, list[tuple[str, RunSummary]]] = {}
    for run_id in islice(results.run_ids(), SAMPLE):
        try:
            summary = results.summary(run_id)
            info = read_record(results.run(run_id).info, RunInfo)
        except (CorruptRecordError, FileNotFoundError):
            continue
        if summary is not None and summary.finished:
            model = summary.parameters["agent"]["model"]["name"]
            by_model.setdefault(model, []).append((_job(info), summary))
    found = {model: measure(summaries) for model, summaries in by_model.items()}
    return {model: rate for model, rate in found.items() if rate is not None}


def _job(info: RunInfo) -> str:
    """One start of one process."""
    owner = info.owner
    return f"{owner.get('host')}/{owner.get('pid')}/{owner.get('job_id')}"
