"""How fast jobs were, from the runs that have ended in a results folder."""

from __future__ import annotations

from vendomini.cluster.throughput import Measurement, Throughput
from vendomini.errors import CorruptRecordError
from vendomini.records import Results, RunSummary
from vendomini.records.kinds import JsonObject


def throughput(results: Results) -> dict[tuple[str, str], Throughput]:
    """(Model name, engine) → throughput of one job, measured; nothing where no run has ended.

    Looks at every run: of a job some of whose runs were left out, the rest would seem slow.
    """
    measured: dict[tuple[str, str], Measurement] = {}
    for run_id in results.run_ids():
        try:
            summary = results.summary(run_id)
        except CorruptRecordError:
            continue
        if summary is None or not summary.finished or not summary.owner:
            continue
        key = (summary.parameters["agent"]["model"]["name"], _engine(summary))
        measured.setdefault(key, Measurement()).add(_job(summary.owner), summary)
    found = {key: measurement.throughput() for key, measurement in measured.items()}
    return {key: rate for key, rate in found.items() if rate is not None}


def _engine(summary: RunSummary) -> str:
    """The column of the guide's table that it ran in."""
    if summary.engine.get("backend") == "vllm":
        return "vllm"
    return "flash" if "flash" in str(summary.engine.get("attention")) else "standard"


def _job(owner: JsonObject) -> str:
    """One start of one process."""
    return f"{owner.get('host')}/{owner.get('pid')}/{owner.get('job_id')}"
