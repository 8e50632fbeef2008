"""Set-up on machines whose ``python3`` will not do: the Makefile says so, and repairs an environment it made before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def old_python(path: Path) -> Path:
    """A Python that answers as 3.10 would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pretend = "import sys; sys.version_info = (3, 10, 14, 'final', 0); "
    path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -c "{pretend}$2"\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def make(checkout: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=checkout, capture_output=True, text=True, env=os.environ | environ)


def test_an_old_python_is_named(checkout):
    done = make(checkout, "demo", f"PYTHON={old_python(checkout / 'python3.10')}")
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stdout
    assert "is 3.10." in done.stdout
    assert "PYTHON=python3.12" in done.stdout
    assert not (checkout / ".venv").exists()


def test_a_python_that_is_not_there_is_named(checkout):
    done = make(checkout, "demo", "PYTHON=python3.99")
    assert done.returncode == 2
    assert "There is no python3.99 here" in done.stdout


def test_a_shim_without_a_python_behind_it_is_none(checkout):
    shim = checkout / "python3.98"
    shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    done = make(checkout, "demo", f"PYTHON={shim}")
    assert done.returncode == 2
    assert f"There is no {shim} here, or it does not start. Name a Python 3.11 or newer" in done.stdout


@pytest.mark.parametrize("asked", [(), (f"PYTHON={sys.executable}",)])
def test_an_environment_of_an_old_python_is_made_again(checkout, asked):
    """Also where the old one is left from a call that failed half-way."""
    old_python(checkout / ".venv/bin/python")
    (checkout / ".venv/.demo").touch()
    done = make(checkout, "--dry-run", "demo", *asked)
    assert "rm -rf .venv" in done.stdout
    assert "-m venv .venv" in done.stdout
    assert (checkout / ".venv").exists(), "this was a dry run"


def test_an_environment_that_will_do_is_kept(checkout):
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    make(checkout, "--dry-run", "demo", f"PYTHON={sys.executable}")
    assert (checkout / ".venv/bin/python").is_symlink()


def test_an_environment_stays_where_there_is_no_python_for_another(checkout):
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    for python in ("python3.99", str(old_python(checkout / "python3.10"))):
        assert make(checkout, ".venv/bin/python", f"PYTHON={python}").returncode == 2
    assert (checkout / ".venv/bin/python").is_symlink()


@pytest.mark.parametrize(
    ("environ", "installer"),
    [
        ({}, "uv venv"),
        ({"PIP_INDEX_URL": "https://mirror.example/simple"}, "-m venv"),
        (
            {"PIP_INDEX_URL": "https://mirror.example/simple", "UV_INDEX_URL": "https://mirror.example"},
            "uv venv",
        ),
    ],
)
def test_a_mirror_that_only_pip_knows_is_pips_to_use(checkout, environ, installer):
    uv = checkout / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    unset = {key: "" for key in os.environ if key.startswith(("PIP_", "UV_"))}
    here = {"PATH": f"{uv.parent}:{os.environ['PATH']}", "HOME": str(checkout), "PIP_CONFIG_FILE": os.devnull}
    done = make(checkout, "--dry-run", "demo", f"PYTHON={sys.executable}", **unset | here | environ)
    assert installer in done.stdout
