"""Keeps submitting until a phase is done: a round at a time, from cron or from a small job that requeues itself.

Rounds are stateless: what was sent, what came of it and why it ended is in the results folder and in SLURM's
accounting, so the next round makes up for a lost one.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from vendomini.cluster.launch import launch
from vendomini.cluster.ledger import CANCELLED, Job, job_ids, jobs_of, keeper_name, live_keepers, live_tasks
from vendomini.cluster.offers import Offers
from vendomini.cluster.script import directive
from vendomini.cluster.send import SubmitLimitError, sbatch
from vendomini.cluster.slurm import End, ended, requeue
from vendomini.cluster.status import ends_of
from vendomini.cluster.submit import Request
from vendomini.config import Phase
from vendomini.errors import ClusterError, counted
from vendomini.probe.slurm import PASSING
from vendomini.records import Results

CAUSED_BY_THE_CLUSTER = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")
"""End states of jobs that may do better next time."""

STRIKES = 2
"""Failures of a node after which it is left out, and submissions without progress after which it is given up."""

ARRAY_SIZES = (None, 64, 16, 4, 1)
"""Tasks of an array, at most: SLURM takes an array as a whole or not at all, so near a limit smaller ones are tried."""

JOB_MINUTES = 60
IN_A_JOB = "VENDOMINI_KEEPER"
"""Set in the environment of a keeper's job."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found and did.

    Attributes:
        goes_on: another round is needed.
        stuck: it is not done, and another round would not help.
    """

    sentence: str
    goes_on: bool = False
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """What came of the submissions of a results folder."""

    results: Results
    jobs: list[Job]
    ends: Mapping[str, list[End]]

    @classmethod
    def of(cls, results: Results) -> History:
        """Raises:
        ClusterError: the queue does not answer.
        """
        manifests = results.manifests()
        jobs = jobs_of(results, manifests, live_tasks(results, manifests))
        ids = {i for folder in {job.folder for job in jobs} for i in job_ids(folder)}
        names = {array.job_name for manifest in manifests for array in manifest.arrays}
        return cls(results, jobs, ended(ids, names, {cluster for job in jobs for cluster in job.clusters}))

    @property
    def live(self) -> int:
        return sum(1 for job in self.jobs if job.task)

    def bad_nodes(self) -> list[str]:
        """Nodes that failed twice; a job that fails counts against its node where others of these jobs succeed."""
        all_ends = [end for ends in self.ends.values() for end in ends]
        blamed = CAUSED_BY_THE_CLUSTER[1:3] + ("FAILED",) * any(end.state == "COMPLETED" for end in all_ends)
        strikes = Counter(
            end.nodes for end in all_ends if end.state in blamed and end.nodes not in ("", "None assigned")
        )
        return sorted(node for node, number in strikes.items() if number >= STRIKES)

    def why_stop(self) -> str:
        """Why another submission would be pointless; empty if it would not be."""
        by_id: dict[str, list[Job]] = {}
        for job in self.jobs:
            by_id.setdefault(job.manifest.id, []).append(job)
        last = [some for some in by_id.values() if any(job.was_sent for job in some)][-STRIKES:]
        if last and all(self._cancelled(job) for job in last[-1] if self._left(job)) and any(map(self._left, last[-1])):
            return "its jobs were cancelled; vendomini submit starts again"
        if len(last) == STRIKES and not any(map(self._was_of_use, last)):
            return f"the last {STRIKES} submissions ended without a step done; see vendomini status"
        return ""

    def _left(self, job: Job) -> bool:
        return job.task is None and any(not self._finished(run_id) for run_id in job.shard.run_ids)

    def _finished(self, run_id: str) -> bool:
        outcome = self.results.outcome(run_id)
        return outcome is not None and outcome.finished

    def _cancelled(self, job: Job) -> bool:
        if (job.folder.parent / CANCELLED).exists():
            return True
        ends = ends_of(job, self.ends)
        return bool(ends) and ends[-1].state.startswith("CANCELLED")

    def _was_of_use(self, jobs: Sequence[Job]) -> bool:
        """Whether a submission got anything done, or was stopped by what may not happen again."""
        began = datetime.fromisoformat(jobs[0].manifest.created_at).timestamp()
        if any(end.state in CAUSED_BY_THE_CLUSTER for job in jobs for end in ends_of(job, self.ends)):
            return True
        logs = (self.results.run(run_id).steps for job in jobs for run_id in job.shard.run_ids)
        return any(log.exists() and log.stat().st_size and log.stat().st_mtime > began for log in logs)


def keep_round(
    phase: Phase, results: Results, offers: Offers, request: Request, only: Sequence[str], limit: int | None
) -> Round:
    """Sends what is left, if anything, unless that would be pointless.

    Raises:
        ClusterError: preflight finds a problem that another round would not fix.
    """
    try:
        history = History.of(results)
        bad = history.bad_nodes()
        if not history.live and (why := history.why_stop()):
            return Round(f"{phase.name}: given up, {why}", stuck=True)
        return _send(phase, results, _without(offers, bad), request, only, limit, history.live)
    except ClusterError as exc:
        if not PASSING.search(str(exc)):
            raise
        return Round(f"{phase.name}: SLURM does not answer now ({exc})", goes_on=True)


def _send(
    phase: Phase,
    results: Results,
    offers: Offers,
    request: Request,
    only: Sequence[str],
    limit: int | None,
    live: int,
) -> Round:
    for size in ARRAY_SIZES:
        try:
            outcome = launch(phase, results, offers, replace(request, max_array_size=size), only, limit)
        except SubmitLimitError as exc:
            if exc.sent or size == ARRAY_SIZES[-1]:
                return Round(f"{phase.name}: waiting for room in the queue ({exc})", goes_on=True)
            continue
        break
    submission = outcome.submission
    if submission.jobs:
        without = f", without {offers.options['exclude']}" if offers.options.get("exclude") else ""
        ids = ", ".join(outcome.job_ids)
        return Round(f"{phase.name}: sent {counted(submission.runs, 'run')} as job {ids}{without}", goes_on=True)
    if live or submission.live or submission.hidden:
        return Round(f"{phase.name}: {counted(live or submission.live, 'job is', 'jobs are')} live", goes_on=True)
    if submission.refused:
        return Round(
            f"{phase.name}: {counted(len(submission.refused), 'run is', 'runs are')} damaged, the others done",
            stuck=True,
        )
    if (held := submission.halted)[0]:
        return Round(
            f"{phase.name}: {counted(held[0], 'run is', 'runs are')} stopped: {held[1][-1].reason}", stuck=True
        )
    return Round(f"{phase.name}: done, {counted(submission.finished, 'run')}")


def _without(offers: Offers, nodes: Iterable[str]) -> Offers:
    wanted = [offers.options.get("exclude", ""), *nodes]
    exclude = ",".join(name for name in wanted if name)
    return replace(offers, options={**offers.options, "exclude": exclude}) if exclude else offers


# ------------------------------------------------------------------------------------------------- the keeper's own job


def send_keeper(results: Results, offers: Offers, arguments: Sequence[str]) -> str | None:
    """A small job that does a round and puts itself back into the queue.

    Args:
        arguments: of ``vendomini keep``.

    Returns:
        Its id; None where one is live already.

    Raises:
        ClusterError: sbatch refuses.
    """
    if live_keepers(results):
        return None
    template = offers(0).template
    options: dict[str, str | bool] = dict(template.options) | {
        "job-name": keeper_name(results),
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": "1",
        "mem": "2G",
        "time": str(min(template.minutes, JOB_MINUTES)),
        "open-mode": "append",
        "output": str(results.submissions.absolute() / "keeper-%j.out"),
        "requeue": True,
    }
    for name in ("exclusive", "mem-per-cpu", "mem-per-gpu", "begin"):
        options.pop(name, None)
    script = [
        "#!/bin/bash",
        *(directive(name, value) for name, value in sorted(options.items())),
        *template.setup,
        f"export {IN_A_JOB}=1",
        f"exec {shlex.join([sys.executable, '-P', '-u', '-m', 'vendomini', 'keep', *arguments])}",
        "",
    ]
    results.submissions.mkdir(parents=True, exist_ok=True)
    return sbatch(results.submissions, "\n".join(script))


def requeue_this_keeper() -> None:
    """Raises:
    ClusterError: the site does not allow it.
    """
    if os.environ.get(IN_A_JOB) and (job := os.environ.get("SLURM_JOB_ID")):
        requeue(job, patience=600.0)
