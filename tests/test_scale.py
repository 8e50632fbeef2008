"""What a run costs, counted: the same whether there are few runs or many. (Times and memory: benchmarks/scale.py.)"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.test_runner import grid, run_here
from vendomini.cluster.throughput import measured_throughput
from vendomini.config.schema import EngineConfig
from vendomini.engines.scripted import ScriptedEngine
from vendomini.records import Results, encode_record
from vendomini.runner import Progress, Runner

TINY = ("simulation.max_steps=3", "grid.pe_induction.p_shock=[0.1]", "grid.agent.model.name=[scripted/reactive]")
COUNT_OPENS = """
import sys
opened = 0
def count(event, arguments):
    global opened
    opened += event == "open" and "runs/" in str(arguments[0])
sys.addaudithook(count)
from vendomini.cli import main
try:
    main()
finally:
    print(opened, file=sys.stderr)
"""


def opens(*command: str) -> int:
    """Files of runs that a command opens."""
    done = subprocess.run([sys.executable, "-c", COUNT_OPENS, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("command", "each"),
    [(("status",), 1), (("run", "-c", "configs/demo.yaml", *(part for text in TINY for part in ("-o", text))), 2)],
    ids=["status", "run again"],
)
def test_a_command_opens_as_many_files_for_each_run_that_has_ended(
    tmp_path: Path, command: tuple[str, ...], each: int
) -> None:
    counts = {}
    for runs in (10, 30):
        folder, wanted = tmp_path / str(runs), f"experiment.replications={runs}"
        run_here(grid(*TINY, wanted), folder)
        (folder / "plans").mkdir(exist_ok=True)
        more = ("-o", wanted) if command[0] == "run" else ()
        counts[runs] = opens(*command, *more, "-r", str(folder))
    assert counts == {runs: each * runs for runs in counts}


def test_a_jobs_throughput_counts_all_its_runs(tmp_path: Path) -> None:
    """A second and ten steps each, one after another: a part of them, over the time that all took, would seem slow."""
    run_here(grid(*TINY, "experiment.replications=1"), tmp_path)
    results = Results(tmp_path)
    (first,) = results.run_ids()
    summary = results.summary(first)
    assert summary is not None
    for number in range(600):
        at = number * 7 % 600
        paths = results.run(f"{first[:-4]}{number:04}")
        paths.folder.mkdir()
        ended = msgspec.structs.replace(
            summary, run_id=paths.folder.name, seconds=1.0, steps=10,
            ended_at=f"2026-01-01T00:{at // 60:02}:{at % 60:02}+00:00",
        )  # fmt: skip
        paths.summary.write_bytes(encode_record(ended))
    results.run(first).summary.unlink()
    assert measured_throughput(results)["scripted/reactive", "standard"].step_s == pytest.approx(0.1)


class InTurns(ScriptedEngine):
    """Lets all other episodes answer first, as a batch does: as many as may be are in flight."""

    async def generate(self, prompt, params):
        await asyncio.sleep(0)
        return await super().generate(prompt, params)


def fly(soft: int, hard: int, folder: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    async def start(model, config):
        return InTurns(model.name)

    runner = Runner(Results(Path(folder)), EngineConfig(max_num_seqs=300), Progress(print), start=start)
    asyncio.run(runner.run_all(grid(*TINY, "experiment.replications=300")))
    print(runner.tally.finished, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


@pytest.mark.parametrize(
    ("soft", "hard", "warned"), [(128, 4096, False), (256, 256, True)], ids=["soft is raised", "hard is heeded"]
)
def test_episodes_in_flight_fit_the_limit_of_open_files(tmp_path: Path, soft: int, hard: int, warned: bool) -> None:
    code = f"from tests.test_scale import fly; fly({soft}, {hard}, {str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    finished, limit = map(int, last.split())
    assert finished == 300
    assert (limit > soft, any("episodes at once and not 300" in line for line in said)) == (not warned, warned)
