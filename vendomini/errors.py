"""Every exception that VendoMini raises on purpose.

::

    VendoMiniError                 1  expected: one clear sentence that says what to do
    ├── UsageError                 2  the command line asks for something that makes no sense
    ├── ConfigError                1  a config file says something that we refuse to guess about
    ├── ResultsError               1  the results folder can't be read or written
    │   ├── CorruptRecordError     1  a file of one run is damaged, or of another schema
    │   ├── RunLockedError         1  another live process is writing this run
    │   ├── RunEndedError          1  another process has finished this run meanwhile
    │   └── RunChangedError        1  a half-done run was begun under another prompt, version or engine
    ├── EngineError                1  an inference engine failed; the runs it carried are to be rerun
    │   ├── EngineUnavailable      1  an engine can't start here; the fallback chain goes on
    │   ├── EngineStopped          1  an engine answers no run any more; the runs stay as they are, to be resumed
    │   ├── PromptTooLong          1  the engine takes shorter prompts only: old turns go, and it is asked again
    │   └── NoReply                1  a server answered without words of the model: refused, filtered, broken off
    ├── ClusterError               1  SLURM is missing, or refuses what was asked of it
    └── MissingExtraError          1  an optional package is needed; names the command that brings it

The number is the exit code. Anything else that escapes is a bug (exit code 3, with a log file);
Ctrl-C is 130.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


class VendoMiniError(Exception):
    """Base of the tree; its text is shown to the user as it is."""

    exit_code = 1


class _Line(VendoMiniError):
    """One printable line, whatever the file or the command line that it quotes holds."""

    def __init__(self, sentence: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence))


class UsageError(_Line):
    exit_code = 2


class ConfigError(_Line):
    """``lines``: everything that is wrong, where that is more than one thing."""

    def __init__(self, sentence: str, lines: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.lines = list(lines)


class ResultsError(VendoMiniError):
    pass


class CorruptRecordError(ResultsError):
    pass


class RunLockedError(ResultsError):
    pass


class RunEndedError(ResultsError):
    pass


class RunChangedError(ResultsError):
    pass


class EngineError(VendoMiniError):
    pass


class EngineUnavailable(EngineError):
    pass


class EngineStopped(EngineError):
    pass


class PromptTooLong(EngineError):
    pass


class NoReply(EngineError):
    pass


class ClusterError(VendoMiniError):
    pass


class MissingExtraError(VendoMiniError):
    """An optional dependency is not installed.

    Args:
        feature: what the user wanted, as the subject of the sentence.
        package: the module that could not be imported.
        extra: the extra of this distribution that brings it, or None for the package alone.
    """

    def __init__(self, feature: str, package: str, extra: str | None) -> None:
        wanted = f'"vendomini[{extra}]"' if extra else package
        super().__init__(f"{feature} needs {package}: pip install {wanted}")


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}


def harmless(text: str) -> str:
    """Text from a server, a model or a colleague that can't send control sequences to a terminal."""
    return text.translate(_CONTROLS)


def counted(number: int, one: str, several: str = "") -> str:
    """``1 run``, ``2,000 runs``; with a verb: ``counted(n, "run is", "runs are")``."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def harden_streams() -> None:
    """Printing must not stop the program: characters that a stream can't encode (Latin-1) become question marks, and a
    stream that was closed before the start discards everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
