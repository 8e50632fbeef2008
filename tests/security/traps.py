"""What attackers bring, and what they attack."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.described import offers
from vendomini.cluster.offers import Offers
from vendomini.cluster.sizing import Sizing
from vendomini.cluster.submit import Request, Submission, prepare
from vendomini.config import load_config
from vendomini.config.grid import expand
from vendomini.records import Results


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {shlex.quote(str(self.mark))}",)


def submission(results: Results, here: Offers = offers(), **values: str) -> Submission:  # noqa: B008
    overrides = ["simulation.max_steps=3", *(f"{key.replace('__', '.')}={value}" for key, value in values.items())]
    phase = load_config("configs/demo.yaml", overrides)
    return prepare(phase, list(expand(phase))[:2], results, Request(), here, Sizing(phase.config.engine, here))


def python(*arguments: str | Path, cwd: Path, umask: int = -1, **environ: str) -> subprocess.CompletedProcess[str]:
    """In a folder, whose files are also the temporary ones."""
    how: dict[str, Any] = {"cwd": cwd, "env": os.environ | {"TMPDIR": str(cwd)} | environ, "umask": umask}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120, **how)
