"""``vendomini submit`` behind its command line: from a user's options to a submission, sent or only shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vendomini.cluster.history import throughput
from vendomini.cluster.ledger import exclusively, live_runs
from vendomini.cluster.preflight import check, find_problems
from vendomini.cluster.site import Site, find_site
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.slurm import minutes
from vendomini.cluster.submit import Request, Submission, prepare, scripts, send
from vendomini.config import Phase, expand, select
from vendomini.config.experiments import folders_of
from vendomini.errors import UsageError
from vendomini.records import Results


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one phase.

    Attributes:
        job_ids: of what was sent.
        problems: found in a dry run; a real one raises instead.
    """

    submission: Submission
    job_ids: list[str]
    problems: list[str]

    @property
    def gpu_hours(self) -> float:
        """As planned, over all jobs."""
        arrays = self.submission.manifest.arrays
        return sum(shard.seconds * array.gpus for array in arrays for shard in array.shards) / 3600

    def as_json(self) -> dict[str, Any]:
        """For scripts: counts, every job and every script."""
        submission = self.submission
        arrays = [
            {
                "job_name": array.job_name,
                "gpus": array.gpus,
                "jobs": [{"model": s.model, "runs": len(s.run_ids), "hours": s.seconds / 3600} for s in array.shards],
                "script": script,
            }
            for array, script in zip(submission.manifest.arrays, scripts(submission), strict=True)
        ]
        return {
            "phase": submission.manifest.name,
            "results": str(submission.results.root),
            "runs": submission.runs,
            "jobs": submission.jobs,
            "gpu_hours": self.gpu_hours,
            "ended": submission.finished,
            "live": submission.live,
            "damaged": submission.refused,
            "arrays": arrays,
            "job_ids": self.job_ids,
            "problems": self.problems,
        }


def launch(
    phase: Phase,
    results: Results,
    site: Site,
    request: Request,
    only: Sequence[str] = (),
    limit: int | None = None,
    dry_run: bool = False,
) -> Outcome:
    """Sends a phase, alone in its results folder, or shows what would be sent.

    Raises:
        ClusterError: something would not work; nothing was queued.
        UsageError: the name of the results folder fits in no script.
    """
    _printable("the results folder", folder := str(results.root.absolute()))
    if "%" in folder:
        raise UsageError(f"SLURM would fill something in for the % in {folder}: choose another with --results")
    specs = list(select(expand(phase), only, limit))
    sizing = Sizing(phase.config.engine, site, throughput(results), engines=phase.engines)
    if dry_run:
        submission = prepare(phase, specs, results, request, site, sizing)
        return Outcome(submission, [], list(find_problems(submission, site)))
    from vendomini.runner import save_plan

    with exclusively(results):
        submission = prepare(phase, specs, results, request, site, sizing)
        if not submission.jobs:
            return Outcome(submission, [], [])
        check(submission, site)
        save_plan(phase, results)
        return Outcome(submission, send(submission), [])


def options(
    account: str | None, partition: str | None, time: str | None, description: Path | None
) -> tuple[Site, int | None, dict[str, str]]:
    """The cluster, and what the command line sets over the templates: minutes, and sbatch options.

    Raises:
        UsageError: a time that is none, or a name that no script can hold.
        ClusterError: no SLURM, or no such partition.
    """
    limit = None if time is None else minutes(time)
    if time is not None and not limit:
        raise UsageError(f"--time {time}: write it as sbatch reads it, for example 12:00:00 or 2-00:00:00")
    site = find_site(partition, description)
    _printable("the partition", site.partition)
    _printable("--account", account or "")
    return site, limit, {"account": account} if account else {}


def _printable(what: str, name: str) -> None:
    """sbatch reads a script by lines, whatever quotes say: a line break in a name would begin an option."""
    if not name.isprintable():
        raise UsageError(f"{what} {name!r} has a line break or another control character: choose another")


def jobs_to_wait_for(names: Sequence[str]) -> tuple[str, ...]:
    """SLURM ids of the live jobs of these phases."""
    tasks = [task for folder in (folders_of(names, None) if names else []) for task in live_runs(folder).values()]
    return tuple(sorted({task.job_id for task in tasks}))
