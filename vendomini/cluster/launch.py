"""``vendomini submit`` behind its command line: prepare, write scripts, check, send."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vendomini.adaptive.looks import State, look
from vendomini.cluster.ledger import exclusively, live_runs
from vendomini.cluster.offers import Offers, printable
from vendomini.cluster.preflight import check, find_problems
from vendomini.cluster.script import scripts
from vendomini.cluster.send import send
from vendomini.cluster.site import ASSUMED, find_cluster
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.slurm import minutes
from vendomini.cluster.submit import Request, Submission, prepare
from vendomini.cluster.templates import GPU_COUNTS
from vendomini.cluster.throughput import known_throughput
from vendomini.config import Phase, RunSpec, expand, select
from vendomini.config.experiments import folders_of, refuse_mixing
from vendomini.errors import ClusterError, UsageError
from vendomini.probe.slurm import find_slurm
from vendomini.records import Results


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one phase.

    Attributes:
        scripts: of its arrays.
        job_ids: of what was sent.
        problems: found in a dry run; a real one raises instead.
        doubts: why not all of it should be paid for yet, by its pilot or for want of one.
        looks: where an adaptive phase stands, in a sentence; empty for others.
    """

    submission: Submission
    scripts: list[str]
    job_ids: list[str]
    problems: list[str]
    doubts: list[str]
    looks: str = ""

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all jobs, as planned."""
        arrays = self.submission.manifest.arrays
        return sum(shard.seconds * array.gpus * array.nodes for array in arrays for shard in array.shards) / 3600

    def as_json(self) -> dict[str, object]:
        """Counts, every job and every script."""
        submission = self.submission
        arrays = [
            {
                "job_name": array.job_name,
                "gpus": array.gpus,
                "nodes": array.nodes,
                "replicas": array.replicas,
                "jobs": [{"model": s.model, "runs": len(s.run_ids), "hours": s.seconds / 3600} for s in array.shards],
                "script": script,
            }
            for array, script in zip(submission.manifest.arrays, self.scripts, strict=True)
        ]
        return {
            "phase": submission.manifest.name,
            "results": str(submission.results.root),
            "runs": submission.runs,
            "jobs": submission.jobs,
            "gpu_hours": self.gpu_hours,
            "ended": submission.finished,
            "live": submission.live,
            "hidden": submission.hidden,
            "damaged": submission.refused,
            "halted": submission.halted[0],
            "missing": submission.missing,
            "arrays": arrays,
            "job_ids": self.job_ids,
            "problems": self.problems,
            "doubts": self.doubts,
            "looks": self.looks,
        }


def launch(
    phase: Phase,
    results: Results,
    offers: Offers,
    request: Request,
    only: Sequence[str] = (),
    limit: int | None = None,
    dry_run: bool = False,
) -> Outcome:
    """Sends a phase, alone in its results folder, or shows what would be sent.

    Raises:
        ClusterError: something would not work; nothing was queued.
        UsageError: the name of the results folder can't be put in a script, or it holds another experiment.
    """
    _fits_a_script(results.root)
    refuse_mixing(phase, results)
    sizing = Sizing(
        phase.config.engine, offers, known_throughput(phase, results), request.whole_nodes, engines=phase.engines
    )
    if dry_run:
        specs, state = _asked(phase, results, only, limit)
        submission = prepare(phase, specs, results, request, offers, sizing)
        texts = scripts(submission)
        found = _doubts(phase, submission)
        return Outcome(submission, texts, [], list(find_problems(submission, texts)), found, _told(state))
    from vendomini.runner import save_plan

    with exclusively(results):
        specs, state = _asked(phase, results, only, limit)
        if state is not None:
            state.keep(results)
        submission = prepare(phase, specs, results, request, offers, sizing)
        texts = scripts(submission)
        if not submission.jobs:
            return Outcome(submission, [], [], [], [], _told(state))
        found = _doubts(phase, submission)
        check(submission, texts)
        save_plan(phase, results)
        return Outcome(submission, texts, send(submission, texts), [], found, _told(state))


def _asked(
    phase: Phase, results: Results, only: Sequence[str], limit: int | None
) -> tuple[list[RunSpec], State | None]:
    """The runs that are asked for now, and by which look."""
    state = look(phase, results)
    return list(select(expand(phase) if state is None else iter(state.asked), only, limit)), state


def _told(state: State | None) -> str:
    return state.sentence if state else ""


def _doubts(phase: Phase, submission: Submission) -> list[str]:
    """Raises:
    ClusterError: there are some, and a pilot was required.
    """
    request, results = submission.request, submission.results
    if not request.pilot_command:
        return []
    from vendomini.pilot import doubts

    found = doubts(phase, results, {model.name for model, _ in submission.loads})
    if found and request.require_pilot:
        raise ClusterError(
            "nothing was submitted, since --require-pilot asks for a pilot that does not say no:\n"
            + "".join(f"  - {doubt}\n" for doubt in found)
            + f"Pilot it: {request.pilot_command}"
        )
    return found


def offers_of(
    templates: Path | None, description: Path | None, time: str | None, options: Mapping[str, str | None]
) -> Offers:
    """What jobs get here; the command line overrides the templates.

    Args:
        description: of a cluster elsewhere.
        time: the time limit, as sbatch reads it.
        options: of sbatch, by their long names.

    Raises:
        UsageError: the time can't be read.
    """
    limit = None if time is None else minutes(time)
    if time is not None and not limit:
        raise UsageError(f"--time {time}: write it as sbatch reads it, for example 12:00:00 or 2-00:00:00")
    given = {name: value for name, value in options.items() if value}
    find = cache(lambda clusters: find_cluster(description, clusters))
    return Offers(find, templates, given, limit, live=description is None)


def offers_for_estimates(partition: str | None, description: Path | None) -> tuple[Offers, str]:
    """The cluster, or nodes of eight GPUs where there is none to ask; and a note that says what was assumed.

    Raises:
        ClusterError: there is a cluster, but it does not answer or has no such partition.
    """
    if description is None and partition is None and not find_slurm(os.environ).available:
        return Offers(lambda _: ASSUMED, live=False), "No SLURM here: assumed nodes of 8 GPUs with 80 GB each."
    offers = offers_of(None, description, None, {"partition": partition})
    unknown = ", ".join(offers(GPU_COUNTS[1]).site.unknown_kinds())
    return offers, f"The memory of GPU type {unknown} is unknown: assumed 40 GB each." if unknown else ""


def _fits_a_script(root: Path) -> None:
    printable("the results folder", folder := str(root.absolute()))
    for character, why in {"%": "fill something in for", "\\": "no longer fill in a job's number after"}.items():
        if character in folder:
            raise UsageError(f"SLURM would {why} the {character} in {folder}: choose another with --results")


def jobs_to_wait_for(names: Sequence[str]) -> tuple[str, ...]:
    """SLURM ids of the live jobs of these phases."""
    tasks = [task for folder in (folders_of(names, None) if names else []) for task in live_runs(folder).values()]
    return tuple(sorted({task.job_id for task in tasks}))
