"""Deletes what was asked for or run by mistake. It looks at the queue first: live runs are never deleted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from vendomini.cluster.ledger import live_runs
from vendomini.config import RunSpec, build_phase, expand, select
from vendomini.config.experiments import plans_of
from vendomini.errors import ConfigError, CorruptRecordError, ResultsError, UsageError, counted
from vendomini.records import Plan, Results
from vendomini.records.files import write_error
from vendomini.records.step_log import is_locked


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be deleted.

    Attributes:
        plans: their hashes.
        runs: ids, of those that were begun.
        ended: how many of them have their result.
        everything: the whole folder goes, reports and logs of jobs included.
    """

    plans: list[str]
    runs: list[str]
    ended: int
    everything: bool = False

    @property
    def sentence(self) -> str:
        told = [f"{len(self.plans)} {'plan' if len(self.plans) == 1 else 'plans'}"] if self.plans else []
        told.append(f"{counted(len(self.runs), 'run')}, {self.ended:,} of them finished")
        return ", ".join([*told, *(["its submissions and report"] if self.everything else [])])


def choose(results: Results, plan: str | None, runs: Sequence[str], only: Sequence[str]) -> Chosen:
    """What the options name; all of it where there are none.

    Raises:
        UsageError: they name nothing.
    """
    begun = results.run_ids()
    plans = plans_of(results)
    if plan:
        hashes = [digest for digest, _ in plans if digest.startswith(plan)]
        if len(hashes) != 1:
            known = ", ".join(f"{digest} ({one.name}, {counted(one.runs, 'run')})" for digest, one in plans)
            raise UsageError(f"--plan {plan} names {len(hashes)} plans; here are {known}")
        own = {spec.run_id for digest, one in plans if digest in hashes for spec in _specs(one)}
        others = {spec.run_id for digest, one in plans if digest not in hashes for spec in _specs(one)}
        return _chosen(results, hashes, [run_id for run_id in begun if run_id in own - others])
    if runs:
        if strangers := sorted(set(runs).difference(begun)):
            raise UsageError(f"there is no run {strangers[0]} in {results.root}")
        return _chosen(results, [], list(runs))
    if only:
        wanted = {spec.run_id for _, one in plans for spec in select(iter(_specs(one)), only)}
        found = [run_id for run_id in begun if run_id in wanted]
        if not found:
            raise UsageError(f"no run in {results.root} matches --only {' --only '.join(only)}")
        return _chosen(results, [], found)
    return _chosen(results, [digest for digest, _ in plans], begun, everything=True)


def _specs(plan: Plan) -> list[RunSpec]:
    try:
        return list(expand(build_phase(plan.config, trusted=False)))
    except ConfigError as exc:
        raise UsageError(f"the plan of {plan.name} can't be expanded ({exc}): name runs with --run") from exc


def _chosen(results: Results, plans: list[str], runs: list[str], everything: bool = False) -> Chosen:
    return Chosen(plans, runs, sum(_is_ended(results, run_id) for run_id in runs), everything)


def _is_ended(results: Results, run_id: str) -> bool:
    try:
        outcome = results.outcome(run_id)
    except CorruptRecordError:
        return False
    return outcome is not None and outcome.finished


def delete(results: Results, chosen: Chosen) -> None:
    """Deletes the plans and the runs; if that is everything, also submissions, pilot, halts and report.

    Raises:
        ResultsError: a run is being written, or a job is live for it: nothing was deleted. Or the place can't be
            written.
        ClusterError: SLURM, which has jobs of this experiment, does not answer.
    """
    live = live_runs(results)
    if busy := len(live if chosen.everything else live.keys() & set(chosen.runs)):
        raise ResultsError(f"jobs are live for {busy:,} of these runs: vendomini cancel them first")
    for run_id in chosen.runs:
        if is_locked(results.run(run_id).steps):
            raise ResultsError(f"{run_id} is being written by another process: stop it first")
    try:
        for digest in chosen.plans:
            (results.plans / f"{digest}.json").unlink(missing_ok=True)
        for run_id in chosen.runs:
            shutil.rmtree(results.run(run_id).folder)
        if chosen.everything:
            for folder in (
                results.submissions,
                results.pilot.root,
                *(results.root / name for name in ("halts", "report")),
            ):
                if folder.is_dir():
                    shutil.rmtree(folder)
            results.remove_if_empty()
    except OSError as exc:
        raise write_error(results.root, exc) from exc
