"""A phase on its way to the cluster: what is neither finished nor live is planned, written down, handed to submitit."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from vendomini.cluster.ledger import array_folder, live_runs
from vendomini.cluster.plan import Limits, arrays, cut, group_runs
from vendomini.cluster.site import Site
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.templates import Template, load_template
from vendomini.config import Phase, RunSpec
from vendomini.config.schema import Model
from vendomini.errors import ClusterError
from vendomini.records import Manifest, Results, ShardArray, encode_record, write_atomically


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks for.

    Attributes:
        templates: folder of the sbatch templates; by default ``slurm/`` here, then the shipped ones.
        options: sbatch options over those of the templates.
        minutes: time limit over the templates'.
        throttle: tasks of one array that run at once.
        after: jobs that must have ended before these begin.
    """

    templates: Path | None = None
    options: dict[str, str] = field(default_factory=dict)
    minutes: int | None = None
    runs_per_job: int | None = None
    max_jobs: int | None = None
    throttle: int | None = None
    retries: int = 1
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Submission:
    """What will be sent, and what was left out of it.

    Attributes:
        templates: GPU count → the template of its jobs, the request's options applied.
        models: that its jobs will load.
        steps: still to be done, at most.
        finished, live: runs that are left alone, by number.
        refused: run id → what is wrong with its files.
    """

    manifest: Manifest
    results: Results
    request: Request
    templates: dict[int, Template]
    models: tuple[Model, ...]
    steps: int
    finished: int
    live: int
    refused: dict[str, str]

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


def prepare(
    phase: Phase, specs: Sequence[RunSpec], results: Results, request: Request, site: Site, sizing: Sizing
) -> Submission:
    """Plans every run that has no result yet and that no live job has. Changes nothing.

    Raises:
        ClusterError: SLURM does not answer, or a model's GPUs are unknown.
        ConfigError: a template is wrong.
    """
    from vendomini.runner import pending

    todo, tally = pending(specs, results)
    live = live_runs(results) if site.live else {}
    free = [spec for spec in todo if spec.run_id not in live]
    groups = group_runs(free, sizing.gpus, sizing.pace)
    templates = {group.gpus: _template(group.gpus, request, site) for group in groups}
    usable = {gpus: template.minutes * 60.0 - template.signal_s for gpus, template in templates.items()}
    shards = cut(groups, Limits(usable, request.runs_per_job, request.max_jobs))
    submission_id = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    manifest = Manifest(
        id=submission_id,
        name=phase.name,
        config=phase.config.model_dump(mode="json"),
        created_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        retries=request.retries,
        arrays=[
            ShardArray(job_name=f"{phase.name}.{submission_id}.{k}", gpus=gpus, shards=some)
            for k, (gpus, some) in enumerate(arrays(shards, site.max_array_size))
        ],
    )
    return Submission(
        manifest=manifest,
        results=results,
        request=request,
        templates=templates,
        models=tuple(group.model for group in groups),
        steps=sum(item.steps for group in groups for item in group.items),
        finished=tally.already,
        live=len(todo) - len(free),
        refused=tally.refused,
    )


def send(submission: Submission) -> list[str]:
    """Writes the manifest, then hands over array by array.

    Returns:
        The SLURM job ids.

    Raises:
        ClusterError: sbatch refuses; arrays sent before stay in the queue, and the next submit knows them.
        ResultsError: the place is not writable.
    """
    content = encode_record(submission.manifest)
    submission.manifest_file.parent.mkdir(parents=True)
    write_atomically(submission.manifest_file, content)
    return [_send_array(submission, k, command) for k, command in enumerate(_commands(submission, content))]


def scripts(submission: Submission) -> list[str]:
    """The sbatch script of every array, exactly as submitit will write it. (This function of submitit's is private.)"""
    from submitit.slurm.slurm import _make_sbatch_string

    commands = _commands(submission, encode_record(submission.manifest))
    return [
        _make_sbatch_string(command=command, folder=submission.folder(k), **_parameters(submission, k))
        for k, command in enumerate(commands)
    ]


def _commands(submission: Submission, manifest: bytes) -> list[str]:
    """What each array's tasks run: not submitit's own start, which would unpickle a file of the results folder."""
    digest = hashlib.sha256(manifest).hexdigest()
    start = [sys.executable, "-P", "-u", "-m", "vendomini.cluster.job", str(submission.manifest_file), digest]
    return [shlex.join([*start, str(k)]) for k in range(len(submission.manifest.arrays))]


def _send_array(submission: Submission, k: int, command: str) -> str:
    """Through submitit, which writes the script, calls sbatch and files the script under the job's id."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    submission.folder(k).mkdir()
    with _outside_of_any_job():
        try:
            executor = submitit.SlurmExecutor(folder=submission.folder(k))
            executor.parameters.update(_parameters(submission, k))
            job = executor._submit_command(command)
        except (FailedJobError, FailedSubmissionError, RuntimeError) as exc:
            raise ClusterError(f"sbatch refuses array {k + 1} of {len(submission.manifest.arrays)}: {exc}") from exc
    return str(job.job_id)


def _parameters(submission: Submission, k: int) -> dict[str, Any]:
    """Of the script, for submitit."""
    array, request = submission.manifest.arrays[k], submission.request
    template = submission.templates[array.gpus]
    additional: dict[str, str | bool] = dict(template.options)
    if request.after:
        additional |= {"dependency": f"afterany:{':'.join(request.after)}", "kill-on-invalid-dep": "yes"}
    count = {"map_count": len(array.shards)} if len(array.shards) > 1 else {}
    return {
        **count,
        "job_name": array.job_name,
        "time": template.minutes,
        "ntasks_per_node": 1,
        "signal_delay_s": template.signal_s,
        "array_parallelism": request.throttle or len(array.shards),
        "setup": list(template.setup),
        "stderr_to_stdout": True,
        "wckey": None,
        "additional_parameters": additional,
    }


def _template(gpus: int, request: Request, site: Site) -> Template:
    """The template with the command line's options over its own."""
    template = load_template(gpus, request.templates)
    return replace(
        template,
        minutes=request.minutes or template.minutes,
        options={**template.options, "partition": site.partition, **request.options},
    )


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Inside a job its variables would leak into the new ones: without them, but with SLURM_CONF."""
    from submitit.helpers import clean_env

    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield
