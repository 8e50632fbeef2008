"""The sbatch scripts that are sent, word for word."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.described import offers
from vendomini.cluster.script import scripts
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.submit import Request, prepare
from vendomini.cluster.tasks import encoded, root
from vendomini.cluster.templates import GPU_COUNTS
from vendomini.config import expand, load_config
from vendomini.records import Results

GOLDEN = Path(__file__).parent / "golden"

SIZES = {1: (8, "64G"), 2: (12, "128G"), 4: (16, "256G"), 8: (32, "480G")}
"""GPUs → CPUs and memory: all that differs between the scripts of jobs with GPUs, which share one golden text."""


@pytest.mark.parametrize("gpus", GPU_COUNTS)
def test_script(gpus: int, tmp_path: Path) -> None:
    model = "scripted/oracle" if gpus == 0 else "Qwen/Qwen3-32B"
    phase = load_config(
        "configs/phases/phase1_large_models.yaml", [f"grid.agent.model.name=[{model}]", f"engine.gpus={gpus}"]
    )
    request = Request(runs_per_job=100, throttle=2, after=("11", "12"))
    here = replace(offers(account="lab"), minutes=720)
    sizing = Sizing(phase.config.engine, here)
    submission = prepare(phase, list(expand(phase)), Results(tmp_path), request, here, sizing)
    (script,) = scripts(submission)
    digest = root(encoded(submission.manifest, 0))
    names = {str(tmp_path): "RESULTS", sys.executable: "PYTHON", submission.manifest.id: "ID", digest: "DIGEST"}
    if gpus:
        cpus, memory = SIZES[gpus]
        sizes = {"cpus-per-task": (cpus, "CPUS"), "gpus-per-node": (gpus, "GPUS"), "mem": (memory, "MEMORY")}
        names |= {f"--{option}={value}\n": f"--{option}={name}\n" for option, (value, name) in sizes.items()}
    for actual, name in names.items():
        script = script.replace(actual, name)
    golden = GOLDEN / ("gpu.sh" if gpus else "gpu0.sh")
    if "REFRESH_GOLDEN" in os.environ:
        golden.write_text(script)
    assert script == golden.read_text(), (
        f"the script for {gpus} GPUs is another than {golden} says; if that is meant: "
        "REFRESH_GOLDEN=1 pytest tests/cluster/test_scripts.py, and read the difference"
    )
