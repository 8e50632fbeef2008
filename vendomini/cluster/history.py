"""How fast jobs were, from the runs that have ended in a results folder."""

from __future__ import annotations

from itertools import islice

from vendomini.cluster.pace import Throughput, measure
from vendomini.errors import CorruptRecordError
from vendomini.records import Results, RunInfo, RunSummary, read_record

SAMPLE = 500
"""Runs looked at, at most."""


def throughput(results: Results) -> dict[tuple[str, str], Throughput]:
    """(Model name, engine) → throughput of one job, measured; nothing where no run has ended."""
    by_model: dict[tuple[str, str], list[tuple[str, RunSummary]]] = {}
    for run_id in islice(results.run_ids(), SAMPLE):
        try:
            summary = results.summary(run_id)
            info = read_record(results.run(run_id).info, RunInfo)
        except (CorruptRecordError, FileNotFoundError):
            continue
        if summary is not None and summary.finished:
            key = (summary.parameters["agent"]["model"]["name"], _engine(summary))
            by_model.setdefault(key, []).append((_job(info), summary))
    found = {key: measure(summaries) for key, summaries in by_model.items()}
    return {key: rate for key, rate in found.items() if rate is not None}


def _engine(summary: RunSummary) -> str:
    """The column of the guide's table that it ran in."""
    if summary.engine.get("backend") == "vllm":
        return "vllm"
    return "flash" if "flash" in str(summary.engine.get("attention")) else "standard"


def _job(info: RunInfo) -> str:
    """One start of one process."""
    owner = info.owner
    return f"{owner.get('host')}/{owner.get('pid')}/{owner.get('job_id')}"
