"""Running another program to ask it something."""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

PR_SET_PDEATHSIG = 1
"""From ``<sys/prctl.h>``."""

MOST = 1000
"""Characters of a reason."""


def last_line(text: str) -> str:
    """The last line that says anything: of a traceback, the error itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def every_line(text: str) -> str:
    """Each line once, without the name of the program that says it: SLURM's reasons come first and its verdict last."""
    lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))[:MOST]


def die_with_parent() -> None:
    """Have this process killed when the one that began it ends, however that ends (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def ask(
    command: Sequence[str],
    environ: Mapping[str, str],
    timeout: float = 10.0,
    explain: Callable[[str], str] = last_line,
) -> tuple[str | None, str]:
    """What the program printed; or None, with the reason.

    Args:
        timeout: seconds; a controller or a file system that hangs must not hang us.
        explain: from what a program that fails has printed to the reason.
    """
    try:
        done = subprocess.run(
            list(command),
            env=dict(environ),
            timeout=timeout,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        return None, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return None, f"{command[0]} did not answer within {timeout:g} s"
    except OSError as exc:
        return None, f"{command[0]} can't be run: {exc.strerror}"
    if done.returncode:
        return None, f"{command[0]} failed: {explain(done.stderr or done.stdout) or f'exit code {done.returncode}'}"
    return done.stdout, ""
