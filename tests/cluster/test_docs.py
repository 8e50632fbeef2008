"""The first hour of ``docs/cluster.md``, typed by a new user."""

from __future__ import annotations

import re
import shutil
import subprocess

from tests.cluster.bench import REPOSITORY, Bench

GUIDE = REPOSITORY / "docs" / "cluster.md"


def test_every_command_of_the_first_hour_works(bench: Bench) -> None:
    shutil.copytree(REPOSITORY / "configs", bench.folder / "configs")
    commands = "\n".join(re.findall(r"^```bash\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)).splitlines()
    assert len(commands) >= 8
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=bench.folder, env=bench.environ | {"PATH": bench.path},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    bench.slurm.wait_for_jobs()
    assert bench.json("status", "demo")[0]["done"] == 240


def test_options_in_the_guide_exist(bench: Bench) -> None:
    pattern = r"vendomini (submit|status|logs|cancel|prefetch|estimate)\b[^`\n]*?(--[a-z-]+)"
    for name, option in set(re.findall(pattern, GUIDE.read_text())):
        assert option in bench.vendomini(name, "--help"), f"vendomini {name} has no {option}"


def test_templates_named_in_the_guide_exist() -> None:
    for name in re.findall(r"slurm/\w+\.\w+", GUIDE.read_text()):
        assert (REPOSITORY / name).is_file(), name
