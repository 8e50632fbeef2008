from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.bench import Bench
from tests.cluster.slurm import Settings, Slurm, why_not


def _running(settings: Settings, beside: Slurm | None = None) -> Iterator[Slurm]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:  # pytest's own paths are too long for a socket
        slurm = Slurm(Path(folder), settings, beside)
        try:
            slurm.start()
            yield slurm
        finally:
            slurm.stop()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    yield from _running(Settings())


@pytest.fixture(scope="session")
def slurm_without_accounting() -> Iterator[Slurm]:
    yield from _running(Settings(accounting=False))


@pytest.fixture(scope="session")
def other_slurm(slurm: Slurm) -> Iterator[Slurm]:
    """A second cluster at the same site: ``--clusters=other``."""
    yield from _running(Settings(name="other"), beside=slurm)


@pytest.fixture
def bench(slurm: Slurm, tmp_path: Path) -> Iterator[Bench]:
    """A user's folder on that cluster; afterwards nothing of it may still run."""
    bench = Bench(slurm, tmp_path)
    yield bench
    slurm.call("scancel", "--user", "root", check=False)
    slurm.wait_for_jobs()
    assert bench.processes() == []


@pytest.fixture
def bench_without_accounting(slurm_without_accounting: Slurm, tmp_path: Path) -> Bench:
    return Bench(slurm_without_accounting, tmp_path)
