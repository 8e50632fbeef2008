"""A phase on its way to the cluster: what is neither finished nor live is planned."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from vendomini.cluster.budget import Budget, within
from vendomini.cluster.ledger import array_folder, live_runs
from vendomini.cluster.offers import Offer, Offers
from vendomini.cluster.plan import Group, Limits, Shape, arrays, cut, group_runs
from vendomini.cluster.site import Site
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.templates import Template
from vendomini.config import Phase, RunSpec
from vendomini.config.schema import EngineConfig, Model
from vendomini.records import Halt, Manifest, Results, Shard, ShardArray


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks for, apart from what a job gets.

    Attributes:
        throttle: tasks of one array that run at once.
        after: jobs that must have ended before these begin.
        take_over: also the runs of others' jobs that this cluster hides.
        whole_nodes: every job gets a whole node, and small models share it.
        restart_changed: restart what was begun under another prompt or version.
        anyway: also the runs that were halted.
        gpu_hours: plan what fits into so many.
        require_pilot: send nothing unless there is one, and it does not say no.
        pilot_command: sends the pilot; empty where none is wanted.
        max_array_size: of one array, below the cluster's own limit.
    """

    runs_per_job: int | None = None
    max_jobs: int | None = None
    throttle: int | None = None
    retries: int = 1
    after: tuple[str, ...] = ()
    take_over: bool = False
    whole_nodes: bool = False
    restart_changed: bool = False
    anyway: bool = False
    gpu_hours: float | None = None
    require_pilot: bool = False
    pilot_command: str = ""
    max_array_size: int | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """What will be sent, and what was left out of it.

    Attributes:
        templates: of each shape of job, the command line's options applied.
        sites: where they go.
        loads: each model that its jobs will load, and on which engine.
        steps: still to be done, at most.
        finished, live, hidden: how many runs are left alone; hidden ones are in other users' jobs, which this cluster
            does not show.
        refused: run id → what is wrong with its files.
        missing: which runs don't fit into the budget, in words; empty without one, or where all fit.
        halted: how many runs are left because runs like them were stopped, and the halts.
    """

    manifest: Manifest
    results: Results
    request: Request
    templates: dict[Shape, Template]
    sites: dict[Shape, Site]
    loads: tuple[tuple[Model, EngineConfig], ...]
    steps: int
    finished: int
    live: int
    hidden: int
    refused: dict[str, str]
    halted: tuple[int, list[Halt]] = (0, [])
    missing: str = ""

    @property
    def runs(self) -> int:
        return sum(1 for _ in self.manifest.runs())

    @property
    def jobs(self) -> int:
        return sum(len(array.shards) for array in self.manifest.arrays)

    @property
    def manifest_file(self) -> Path:
        return self.results.submissions.absolute() / self.manifest.id / "manifest.json"

    def folder(self, array: int) -> Path:
        return array_folder(self.results, self.manifest.id, array)

    def template(self, array: ShardArray) -> Template:
        return self.templates[Shape(array.gpus, array.nodes, array.replicas)]


def prepare(
    phase: Phase, specs: Sequence[RunSpec], results: Results, request: Request, offers: Offers, sizing: Sizing
) -> Submission:
    """Plans every run that has no result yet and that no live job has. Changes nothing.

    Raises:
        ClusterError: SLURM does not answer, or a model's GPUs are unknown.
        ConfigError: a template is wrong.
    """
    from vendomini.runner import pending

    todo, tally = pending(specs, results)
    taken = live_runs(results) if offers.live else {}
    if request.take_over:
        taken = {run_id: task for run_id, task in taken.items() if not task.hidden}
    free = [spec for spec in todo if spec.run_id not in taken]
    halts = {} if request.anyway else halts_of(phase, free, results)
    free = [spec for spec in free if spec.run_id not in halts]
    fits = _affordable(phase, free, request, offers, sizing)
    plan = _plan(fits.runs, request, offers, sizing)
    return Submission(
        manifest=_manifest(phase, request, plan),
        results=results,
        request=request,
        templates={shape: offer.template for shape, offer in plan.offered.items()},
        sites={shape: offer.site for shape, offer in plan.offered.items()},
        loads=tuple((group.model, sizing.of(group.model)) for group in plan.groups),
        steps=sum(item.steps for group in plan.groups for item in group.items),
        finished=tally.already,
        live=sum(1 for spec in todo if spec.run_id in taken and not taken[spec.run_id].hidden),
        hidden=sum(1 for spec in todo if spec.run_id in taken and taken[spec.run_id].hidden),
        refused=tally.refused,
        halted=(len(halts), list({halt.key: halt for halt in halts.values()}.values())),
        missing=fits.missing,
    )


class _Plan(NamedTuple):
    groups: list[Group]
    offered: dict[Shape, Offer]
    shards: list[tuple[Shape, Shard]]

    @property
    def gpu_hours(self) -> float:
        return sum(shard.seconds * shape.total_gpus for shape, shard in self.shards) / 3600


def _affordable(phase: Phase, free: list[RunSpec], request: Request, offers: Offers, sizing: Sizing) -> Budget:
    """The runs that fit into the GPU-hours asked for, if any were."""
    if request.gpu_hours is None:
        return Budget(free)

    def cost(runs: Sequence[RunSpec]) -> float:
        return _plan(runs, request, offers, sizing).gpu_hours

    return within(request.gpu_hours, free, phase.world.dose, cost)


def _manifest(phase: Phase, request: Request, plan: _Plan) -> Manifest:
    size = min((offer.site.max_array_size for offer in plan.offered.values()), default=0)
    size = min(size, request.max_array_size or size)
    now = datetime.now()
    submission_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return Manifest(
        id=submission_id,
        name=phase.name,
        config=phase.config.model_dump(mode="json"),
        created_at=now.astimezone().isoformat(timespec="seconds"),
        retries=request.retries,
        restart_changed=request.restart_changed,
        anyway=request.anyway,
        arrays=[
            ShardArray(
                job_name=f"{phase.name}.{submission_id}.{k}",
                gpus=shape.gpus,
                shards=some,
                nodes=shape.nodes,
                replicas=shape.replicas,
                clusters=str(plan.offered[shape].template.options.get("clusters", "")),
            )
            for k, (shape, some) in enumerate(arrays(plan.shards, size))
        ],
    )


def _plan(runs: Sequence[RunSpec], request: Request, offers: Offers, sizing: Sizing) -> _Plan:
    """Groups by model, what the jobs of each shape get, and the shards."""
    groups = group_runs(runs, sizing.shape, sizing.pace)
    offered = {group.shape: offers(group.shape.gpus, group.shape.nodes) for group in groups}
    usable = {shape: offer.template.minutes * 60.0 - offer.template.signal_s for shape, offer in offered.items()}
    return _Plan(groups, offered, cut(groups, Limits(usable, request.runs_per_job, request.max_jobs)))


def halts_of(phase: Phase, specs: Sequence[RunSpec], results: Results) -> dict[str, Halt]:
    """Run id → why runs set like this one were stopped."""
    from vendomini.runner.breaker import halt_key

    halts = results.halts()
    if not halts:
        return {}
    config = phase.config
    keys = {spec.run_id: halt_key(spec, phase.engines.get(spec.model, config.engine), config.breaker) for spec in specs}
    return {run_id: halts[key] for run_id, key in keys.items() if key in halts}
