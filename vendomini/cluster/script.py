"""The sbatch script of each array, as a text: what ``--dry-run`` shows is what is sent."""

from __future__ import annotations

import shlex
import sys

from vendomini.cluster import tasks
from vendomini.cluster.submit import Submission

SRUN = (
    "srun --export=ALL {together}--unbuffered --output {log} "
    '"${{VENDOMINI_SRUN[@]}}" "${{VENDOMINI_PYTHON[@]:-{python}}}"'
)
"""A step gets the job's whole environment even where the job itself was sent with ``--export=NONE``. Templates may set
``VENDOMINI_SRUN`` to more options and ``VENDOMINI_PYTHON`` to another Python, such as one in a container."""

REQUEUE = (
    "code=$?",
    'if [ "$code" -gt 1 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
    'exit "$code"',
)
"""On several nodes, one process that dies ends them all, whatever their state: the job is requeued, three times at
most."""


def scripts(submission: Submission) -> list[str]:
    """The script of every array."""
    return [_script(submission, k) for k in range(len(submission.manifest.arrays))]


def _script(submission: Submission, k: int) -> str:
    array = submission.manifest.arrays[k]
    template = submission.template(array)
    job = "%A_%a" if len(array.shards) > 1 else "%j"
    log = shlex.quote(str(submission.folder(k).absolute() / f"{job}_%t_log.out"))
    together = "--kill-on-bad-exit=1 " if array.nodes > 1 else ""
    srun = SRUN.format(together=together, log=log, python=shlex.quote(sys.executable).replace("}", "\\}"))
    digest = tasks.root(tasks.encoded(submission.manifest, k))  # which each job compares with its own file
    start = ["-P", "-u", "-m", "vendomini.cluster.job", str(submission.manifest_file.parent), digest, str(k)]
    lines = [
        "#!/bin/bash",
        "",
        "# Parameters",
        *(directive(name, value) for name, value in sorted(_options(submission, k).items())),
        "",
        "# setup",
        *template.setup,
        "",
        "# command",
        f"{srun} {shlex.join(start)}",
        *(REQUEUE if array.nodes > 1 else ()),
        "",
    ]
    return "\n".join(lines)


def _options(submission: Submission, k: int) -> dict[str, str | bool]:
    """Options of sbatch: the template's, overridden by the submission's own."""
    array, request = submission.manifest.arrays[k], submission.request
    template = submission.template(array)
    options: dict[str, str | bool] = dict(template.options)
    job = "%j"
    if (tasks := len(array.shards)) > 1:
        job = "%A_%a"
        options["array"] = f"0-{tasks - 1}%{min(request.throttle or tasks, tasks)}"
    if request.after:
        options |= {"dependency": f"afterany:{':'.join(request.after)}", "kill-on-invalid-dep": "yes"}
    return options | {
        "job-name": array.job_name,
        "nodes": str(array.nodes),
        "ntasks-per-node": "1",
        "open-mode": "append",
        "output": str(submission.folder(k).absolute() / f"{job}_0_log.out"),
        "signal": f"USR2@{template.signal_s}",
        "time": str(template.minutes),
    }


def directive(name: str, value: str | bool) -> str:
    """One ``#SBATCH`` line."""
    return f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"
