"""The probe on a compute node: what a job would find there, which the login node can't know."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from vendomini.cluster.site import Site, find_site
from vendomini.cluster.templates import Template, load_template
from vendomini.errors import ClusterError
from vendomini.probe.commands import last_line

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
    site = find_site(partition)
    template = load_template(1 if site.gpus_per_node else 0, templates)
    command = _srun(site, template)
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
    except subprocess.TimeoutExpired as exc:
        raise ClusterError(
            f"no compute node of partition {site.partition} was free within {timeout / 60:.0f} minutes: try later, or "
            "another with --partition"
        ) from exc
    _, found, report = done.stdout.partition(BEGIN)
    if done.returncode or not found:
        why = last_line(done.stderr or done.stdout) or f"exit code {done.returncode}"
        raise ClusterError(f"the probe did not run on a node of partition {site.partition}: {why}")
    result: dict[str, Any] = json.loads(report)
    return result


def _srun(site: Site, template: Template) -> list[str]:
    """One task, with the template's resources and setup."""
    kept = ("account", "qos", "constraint", "reservation", "mem", "cpus-per-task", "gpus-per-node", "gres")
    asked = [f"--{name}={value}" for name, value in template.options.items() if name in kept]
    doctor = shlex.join([sys.executable, "-P", "-m", "vendomini", "doctor", "--json"])
    script = "\n".join([*template.setup, f"echo {shlex.quote(BEGIN)}", f"exec {doctor}"])
    limits = [f"--partition={site.partition}", f"--time={MINUTES}", "--nodes=1", "--ntasks=1", "--quiet"]
    return ["srun", "--job-name=vendomini-doctor", *limits, *asked, "bash", "-c", script]
