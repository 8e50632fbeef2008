"""A user at work on a cluster: types commands, looks at files, and pulls plugs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster.slurm import Slurm

REPOSITORY = Path(__file__).parents[2]

_UNDISTURBED: dict[str, dict[str, bytes]] = {}
"""A config's text without its name → its runs' logs."""


class Bench:
    """One working folder.

    Attributes:
        templates: this user's copy of the sbatch templates.
        path: for jobs started by hand, which look for Python there.
        user: who types the commands, root by default.
    """

    user: str | None = None

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.slurm = slurm
        self.folder = folder
        self.templates = folder / "slurm"
        shutil.copytree(REPOSITORY / "slurm", self.templates)
        self.path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environ = os.environ | slurm.environ | {"OMP_NUM_THREADS": "1"}

    # --------------------------------------------------------------------------------------------- commands

    def vendomini(self, *arguments: str, code: int | None = 0, **environ: str) -> str:
        """Standard output; the rest of what was said where another exit code is expected. None expects any."""
        done = subprocess.run(self.command(*arguments), timeout=600, **self.how(**environ))
        assert code in (None, done.returncode), f"exit code {done.returncode}: {done.stdout}{done.stderr}"
        return str(done.stdout if not code else done.stdout + done.stderr)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.vendomini(*arguments, "--json"))

    def submit(self, config: Path, *arguments: str) -> dict[str, Any]:
        """What one phase's submit says."""
        (outcome,) = self.json("submit", str(config), *arguments)
        return dict(outcome)

    def command(self, *arguments: str) -> list[str]:
        return [*self._as_user, sys.executable, "-m", "vendomini", *arguments]

    def how(self, **environ: str) -> dict[str, Any]:
        """For subprocess."""
        return {"cwd": self.folder, "env": self.environ | environ, "capture_output": True, "text": True, "check": False}

    @property
    def _as_user(self) -> list[str]:
        """SLURM sees this user, who may read all the same: Python itself may be where only root can."""
        if self.user is None:
            return []
        may = "+dac_override,+dac_read_search"
        who = [f"--reuid={self.user}", "--regid=nogroup", "--clear-groups"]
        return ["setpriv", *who, f"--inh-caps={may}", f"--ambient-caps={may}"]

    def become(self, user: str | None) -> None:
        """Somebody else at the same place, who may write there."""
        self.user = user
        subprocess.run(["chmod", "-R", "a+rwX", str(self.folder)], check=True)

    def wrap(self, command: str, script: str) -> dict[str, str]:
        """A PATH on which a command is another than SLURM's own, which the script has as ``$real``."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        wrapper = folder / command
        wrapper.write_text(f"#!/bin/bash\nreal={shutil.which(command)}\n{script}\n")
        wrapper.chmod(0o755)
        return {"PATH": f"{folder}{os.pathsep}{self.environ['PATH']}"}

    def set_in_template(self, name: str, **options: str) -> None:
        """More sbatch options, underscores for dashes."""
        template = self.templates / name
        lines = "".join(f"#SBATCH --{key.replace('_', '-')}={value}\n" for key, value in options.items())
        template.write_text(template.read_text().replace("#!/bin/bash\n", f"#!/bin/bash\n{lines}", 1))

    def shown(self, job_id: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        text = self.slurm.call("scontrol", "show", "job", job_id)
        return dict(word.partition("=")[::2] for word in text.split())

    def config(self, name: str, **values: Any) -> Path:
        """Phase 1 large on a control: ``grid`` and sections cut down as asked, dots written as two underscores."""
        overrides = {key.replace("__", "."): value for key, value in values.items()}
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(_phase(name, overrides)))
        return path.rename(path.with_suffix(".yaml"))

    # ------------------------------------------------------------------------------------------------ files

    def results(self, name: str) -> Path:
        return self.folder / "results" / name

    def logs(self, root: Path) -> dict[str, bytes]:
        """Run id → its step log, of every run that has ended."""
        return {
            file.parent.name: (file.parent / "steps.jsonl").read_bytes() for file in root.glob("runs/*/summary.json")
        }

    def undisturbed(self, config: Path) -> dict[str, bytes]:
        """The same runs, run here without a cluster: once for all configs that differ in their names alone."""
        runs = config.read_text().replace(config.stem, "")
        if runs not in _UNDISTURBED:
            root = self.folder / "undisturbed" / config.stem
            self.vendomini("run", "--config", str(config), "--results", str(root), "--json")
            _UNDISTURBED[runs] = self.logs(root)
        return _UNDISTURBED[runs]

    def job_logs(self, name: str) -> str:
        return "\n".join(file.read_text() for file in sorted(self.results(name).glob("submissions/*/*/*_log.out")))

    # ----------------------------------------------------------------------------------------------- plugs

    def hold(self) -> None:
        """Jobs begin, and then wait until something is there to watch them: see :meth:`freeze`."""
        self.add_to_template("gpu0.sbatch", f"until [ -e {self.folder / 'go'} ]; do sleep 0.1; done")

    def add_to_template(self, name: str, line: str) -> None:
        template = self.templates / name
        template.write_text(template.read_text().replace("# ---- the job", f"{line}\n# ---- the job"))

    def freeze(self, name: str, size: int = 200_000) -> int:
        """Stops a job's process in the middle of a run, as soon as its log has so many bytes; returns its pid."""
        return self.freeze_all(name, size=size)[0]

    def freeze_all(self, *names: str, size: int = 200_000) -> list[int]:
        """The same for jobs that begin together, each as soon as it is so far."""
        (self.folder / "go").touch()
        pids: dict[str, int] = {}
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for name in names:
                if name not in pids and (pid := self._stop_in_the_middle(name, size)):
                    pids[name] = pid
            if len(pids) == len(names):
                return [pids[name] for name in names]
            time.sleep(0.01)
        missed = [name for name in names if name not in pids]
        raise AssertionError(f"no run of {missed} was caught in the middle\n{self.job_logs(missed[0])}")

    def _stop_in_the_middle(self, name: str, size: int) -> int | None:
        for log in self.results(name).glob("runs/*/steps.jsonl"):
            if (log.parent / "summary.json").exists() or log.stat().st_size < size:
                continue
            pid = json.loads((log.parent / "run.json").read_text())["owner"]["pid"]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                return int(pid)
        return None

    def processes(self) -> list[str]:
        """Command lines of every job's process of this folder that is alive."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "vendomini.cluster.job" in line and str(self.folder) in line:
                    found.append(line)
        return found


def _phase(name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    phase: dict[str, Any] = {
        "inherit": str(REPOSITORY / "configs" / "phases" / "phase1_large_models.yaml"),
        "experiment": {"name": name, "replications": 1},
        "grid": {"agent.model.name": ["scripted/reactive"]},
    }
    for path, value in overrides.items():
        section, _, key = path.partition(".")
        if section == "grid":
            phase["grid"][key] = value
        else:
            tree = phase
            *parents, leaf = path.split(".")
            for parent in parents:
                tree = tree.setdefault(parent, {})
            tree[leaf] = value
    return phase
