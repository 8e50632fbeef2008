"""The probe on a compute node: what a job would find there, which the login node can't know."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from vendomini.cluster.launch import offers_of
from vendomini.cluster.offers import Offer
from vendomini.errors import ClusterError
from vendomini.probe.commands import every_line
from vendomini.probe.slurm import environment

MINUTES = 10
BEGIN = "--- vendomini doctor ---"
"""What comes before it was printed by the site's own start-up files."""


def probe_job(partition: str | None = None, templates: Path | None = None, timeout: float = 1800.0) -> dict[str, Any]:
    """What ``vendomini doctor --json`` prints on a compute node, in the environment that the template makes.

    A job of one GPU (none where the partition has none) and ten minutes at most; waits in the queue like any other.

    Args:
        partition: by default the cluster's own.
        templates: folder of the sbatch templates.
        timeout: seconds to wait in the queue.

    Raises:
        ClusterError: no SLURM, no such partition, or the job did not run; says what it said last.
    """
    offers = offers_of(templates, None, None, {"partition": partition})
    offer = offers(1)
    if not offer.site.gpus_per_node:
        offer = offers(0)
    site, environ = offer.site, environment(os.environ)
    try:
        done = subprocess.run(
            _srun(offer), env=environ, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise ClusterError(
            f"no compute node of partition {site.partition} was free within {timeout / 60:.0f} minutes: try later, or "
            "another with --partition"
        ) from exc
    _, found, report = done.stdout.partition(BEGIN)
    if done.returncode or not found:
        why = every_line(done.stderr or done.stdout) or f"exit code {done.returncode}"
        raise ClusterError(f"the probe did not run on a node of partition {site.partition}: {why}")
    result: dict[str, Any] = json.loads(report)
    return result


def _srun(offer: Offer) -> list[str]:
    """One task, with the template's resources and setup."""
    template = offer.template
    kept = {"account", "qos", "constraint", "reservation", "partition", "clusters", "mem", "cpus-per-task", "gres"}
    kept |= {"gpus-per-node", "nodelist", "exclude"}
    asked = [f"--{name}={value}" for name, value in template.options.items() if name in kept or "container" in name]
    doctor = shlex.join(["-P", "-m", "vendomini", "doctor", "--json"])
    python = f'exec "${{VENDOMINI_PYTHON[@]:-{shlex.quote(sys.executable)}}}"'
    script = "\n".join([*template.setup, f"echo {shlex.quote(BEGIN)}", f"{python} {doctor}"])
    limits = [f"--time={MINUTES}", "--nodes=1", "--ntasks=1", "--quiet"]
    return ["srun", "--export=ALL", "--job-name=vendomini-doctor", *limits, *asked, "bash", "-c", script]
