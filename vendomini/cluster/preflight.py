"""Everything that would make a job fail or wait forever, found before anything is queued."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence

from vendomini.cluster.slurm import LIMIT, call
from vendomini.cluster.submit import Submission
from vendomini.errors import ClusterError, VendoMiniError
from vendomini.probe.packages import find_package
from vendomini.probe.storage import find_disk

BYTES_PER_STEP = 3000
"""Rough size of a step in the log."""

LEAST_MINUTES = 5
"""A job needs time to load its model on top of the time it reserves for stopping."""


def check(submission: Submission, scripts: Sequence[str]) -> None:
    """Raises:
    ClusterError: all that is wrong, each with what to do; nothing was queued.
    """
    problems = list(find_problems(submission, scripts))
    if problems:
        raise ClusterError("nothing was submitted:\n" + "\n".join(f"  - {problem}" for problem in problems))


def find_problems(submission: Submission, scripts: Sequence[str]) -> Iterator[str]:
    """Each thing that would go wrong, as a sentence.

    Args:
        scripts: of its arrays.
    """
    yield from _gpus_and_time(submission)
    yield from _nodes(submission)
    yield from _models(submission)
    yield from _room(submission)
    if any(site.live for site in submission.sites.values()):
        yield from _engine(submission)
        yield from _ask_slurm(submission, scripts)


def _gpus_and_time(submission: Submission) -> Iterator[str]:
    for shape, template in submission.templates.items():
        site = submission.sites[shape]
        if shape.gpus > site.gpus_per_node:
            yield (
                f"{template.path} asks for {shape.gpus} GPUs, but the nodes of partition {site.partition} have "
                f"{site.gpus_per_node}: choose another with --partition, or fewer GPUs with -o engine.gpus=…"
            )
        if site.max_minutes is not None and template.minutes > site.max_minutes:
            yield (
                f"{_hours(template.minutes)} is longer than partition {site.partition} allows, and such a job would "
                f"wait forever: use --time {_hours(site.max_minutes)}"
            )
        if template.minutes * 60 < template.signal_s + LEAST_MINUTES * 60 and shape.gpus:
            yield (
                f"{_hours(template.minutes)} leaves a job too little time, since it stops {template.signal_s} s before "
                f"the end: give it more with --time, or change --signal in {template.path}"
            )


def _nodes(submission: Submission) -> Iterator[str]:
    for model, engine in submission.loads:
        if engine.nodes > 1 and engine.backend not in ("auto", "vllm"):
            yield f"{model.name}: several nodes (engine.nodes) are for vLLM, not for engine.backend {engine.backend}"


def _models(submission: Submission) -> Iterator[str]:
    """Compute nodes have no internet: what is not in the cache now will not be there then."""
    from vendomini.cluster.prefetch import missing
    from vendomini.engines.resolve import chain
    from vendomini.engines.scripted import ScriptedEngine

    for model, engine in submission.loads:
        try:
            backends = chain(model, engine)
            if backends[0].name == "scripted":
                ScriptedEngine(model.name)
            elif any(backend.model_files for backend in backends) and (lacks := missing(model)):
                yield lacks
        except VendoMiniError as exc:
            yield str(exc)


def _engine(submission: Submission) -> Iterator[str]:
    """Jobs run with this Python, or with what a template brings: what is not installed here will not be there."""
    from vendomini.engines.resolve import chain

    if any(template.brings_python for template in submission.templates.values()):
        return
    for model, engine in submission.loads:
        try:
            backends = chain(model, engine)
        except VendoMiniError:
            continue  # said by _models
        lacks = [[name for name in one.packages if not find_package(name).works] for one in backends]
        if all(lacks):
            extras = " or ".join(f'"vendomini[{one.extra}]"' for one in backends if one.extra)
            yield (
                f"jobs run with {sys.executable}, which lacks {' and '.join(lacks[-1])}, and so no engine could start"
                + (f": pip install {extras}" if extras else "")
            )
            return


def _room(submission: Submission) -> Iterator[str]:
    """Free space and quota for the logs still to be written."""
    root = submission.results.root
    disk = find_disk(root, os.environ)
    wanted = submission.steps * BYTES_PER_STEP
    free = [disk.free] if disk.free is not None else []
    if disk.quota_limit is not None and disk.quota_used is not None:
        free.append(disk.quota_limit - disk.quota_used)
    if free and min(free) < wanted:
        yield (
            f"{root} has room for {min(free) / 1e9:.1f} GB and the step logs need about {wanted / 1e9:.1f} GB: make "
            "room, or choose another place with --results"
        )


def _ask_slurm(submission: Submission, scripts: Sequence[str]) -> Iterator[str]:
    """SLURM's own opinion of each kind of script: account, memory, cores, options."""
    kinds = {id(submission.template(array)): k for k, array in enumerate(submission.manifest.arrays)}
    for k in kinds.values():
        with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
            script.write(scripts[k])
            script.flush()
            try:
                call("sbatch", "--test-only", script.name)
            except ClusterError as exc:
                path = submission.template(submission.manifest.arrays[k]).path
                if not LIMIT.search(str(exc)):
                    yield f"SLURM refuses a job from {path}: {exc}"


def _hours(minutes: int) -> str:
    """A time limit as sbatch reads it."""
    days, rest = divmod(minutes, 1440)
    clock = f"{rest // 60:02}:{rest % 60:02}:00"
    return f"{days}-{clock}" if days else clock
