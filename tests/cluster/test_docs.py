"""The commands of ``README.md`` and ``docs/cluster.md`` that need a cluster, typed by a new user from first to last."""

from __future__ import annotations

from tests.cluster.bench import Bench
from tests.test_docs import ON_A_CLUSTER, check, small_configs


def test_every_documented_command_works(bench: Bench) -> None:
    small_configs(bench.folder)
    environ = bench.environ | {"PATH": bench.path, "COLUMNS": "120"}
    for command, expected in ON_A_CLUSTER.items():
        check(command, expected, bench.folder, environ)
    bench.slurm.wait_for_jobs()
    assert bench.json("status", "demo")[0]["done"] == 240
    (phase2,) = bench.json("status", "phase2_small")
    assert phase2["done"] == phase2["runs"]
