"""How fast jobs were, from the runs that have ended in a results folder."""

from __future__ import annotations

from vendomini.cluster.pace import Measurement, Throughput
from vendomini.errors import CorruptRecordError
from vendomini.records import Results, RunInfo, RunSummary, read_record


def throughput(results: Results) -> dict[tuple[str, str], Throughput]:
    """(Model name, engine) → throughput of one job, measured; nothing where no run has ended.

    Looks at every run: of a job some of whose runs were left out, the rest would seem slow.
    """
    measured: dict[tuple[str, str], Measurement] = {}
    for run_id in results.run_ids():
        try:
            summary = results.summary(run_id)
            if summary is None or not summary.finished:
                continue
            info = read_record(results.run(run_id).info, RunInfo)
        except (CorruptRecordError, FileNotFoundError):
            continue
        key = (summary.parameters["agent"]["model"]["name"], _engine(summary))
        measured.setdefault(key, Measurement()).add(_job(info), summary)
    found = {key: measurement.throughput() for key, measurement in measured.items()}
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
