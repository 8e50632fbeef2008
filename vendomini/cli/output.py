"""How commands print: colour and progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vendomini.errors import harmless


class _Console(Console):
    """Passes on no control sequences in a text, and reports a closed pipe (``| head``) by Python's own exception."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(harmless(text), **how)

    def on_broken_pipe(self) -> None:
        forget(self.file)
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A Rich console; off a terminal it neither colours nor wraps."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 200
    return _Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


def table(*columns: str, words: int = 1, **style: Any) -> Table:
    """A table whose first columns hold words and whose others hold numbers; on a narrow terminal both wrap and neither
    is cut.

    Args:
        words: how many columns hold words.
        style: Rich's own, for example ``title``.
    """
    made = Table(**style)
    for place, heading in enumerate(columns):
        made.add_column(heading, justify="left" if place < words else "right", overflow="fold")
    return made


def print_json(value: object) -> None:
    """One JSON document on standard output, for scripts."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def forget(stream: IO[str]) -> None:
    """Discards what is written to it from here on: otherwise Python would fail on a closed pipe at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
