"""Running another program to ask it something."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


def ask(command: Sequence[str], environ: Mapping[str, str], timeout: float = 10.0) -> tuple[str | None, str]:
    """What the program printed, and why it is None if it is.

    Args:
        timeout: seconds; a controller or a file system that hangs must not hang us.
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
        return None, f"{command[0]} failed: {last_line(done.stderr or done.stdout) or f'exit code {done.returncode}'}"
    return done.stdout, ""


def last_line(text: str) -> str:
    """The last line that says anything: of a traceback, the error itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
