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
    """Obeys nothing that stands in a text, and says that the reader went away (``| head``) by Python's exception."""

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
    """A table whose first columns hold words and whose others hold numbers; a narrow terminal folds both, cuts neither.

    Args:
        words: how many columns hold words.
        style: Rich's own, for example ``title``.
    """
    made = Table(**style)
    for place, heading in enumerate(columns):
        made.add_column(heading, justify="left" if place < words else "right", overflow="fold")
    return made


def print_json(value: Any) -> None:
    """One JSON document on standard output, for scripts."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def forget(stream: IO[str]) -> None:
    """From here on what is written to it goes nowhere: at its end Python would stumble over a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
