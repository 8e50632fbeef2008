"""`vendomini` as a person calls it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from vendomini.records import Results


def vendomini(*arguments, cwd=None, **environ):
    return subprocess.run(
        [sys.executable, "-m", "vendomini", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "120"} | environ,
        timeout=300,
    )


def demo(folder, *arguments, **environ):
    small = ("-o", "simulation.max_steps=20", "-o", "experiment.replications=1")
    return vendomini("run", "--config", "configs/demo.yaml", "--results", folder, *small, *arguments, **environ)


def one_open_run(folder):
    """Results of the demo and the id of the one run in them: its log is whole, but without a summary it is not done."""
    demo(folder, "--limit", "1")
    results = Results(folder)
    (run_id,) = results.run_ids()
    results.run(run_id).summary.unlink()
    return results, run_id


def fails(done, code=1):
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last
