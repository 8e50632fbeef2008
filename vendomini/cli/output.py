"""How commands print: colour and progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from vendomini.errors import harmless

WIDEST = 10_000
"""Columns of a terminal that is wide enough for anything."""


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
    width = None if stream.isatty() else WIDEST
    return _Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


@dataclass
class Rows:
    """A table: columns of words, then columns of numbers. Where the terminal is too narrow for it, a paragraph a row.

    Args:
        headings: of the columns.
        words: how many of the first columns hold words.
        title, caption: lines above and below.
        prose: the last column is a sentence, which may wrap.
    """

    headings: Sequence[str]
    words: int = 1
    title: str = ""
    caption: str = ""
    prose: bool = False
    rows: list[tuple[str | Text, ...]] = field(default_factory=list)

    def add(self, *cells: str | Text) -> None:
        """A row; a text is shown as it is, without markup."""
        self.rows.append(tuple(cell if isinstance(cell, Text) else Text(harmless(cell)) for cell in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="bold")
        grid = self._grid()
        fits = Measurement.get(console, options.update(width=WIDEST), grid).maximum <= options.max_width
        if fits or self.prose:
            for line in console.render_lines(grid, options, pad=False):
                yield from (*_without_blanks(line), Segment.line())
        else:
            yield from (line for row in self.rows for line in self._paragraph(row, options.max_width))
        if self.caption:
            yield Text(self.caption)

    def _grid(self) -> Table:
        grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for place, heading in enumerate(self.headings):
            is_words = place < self.words or (self.prose and place == len(self.headings) - 1)
            grid.add_column(heading, justify="left" if is_words else "right", overflow="fold")
        for row in self.rows:
            grid.add_row(*row)
        return grid

    def _paragraph(self, row: Sequence[str | Text], width: int) -> Iterator[Text]:
        """The words in bold, and below them each number after its heading; a heading and its number stay together."""
        named = zip(self.headings[1 : self.words], row[1 : self.words], strict=True)
        yield Text("  ".join([str(row[0]), *(f"{heading} {cell}" for heading, cell in named)]), style="bold")
        line = ""
        for heading, cell in zip(self.headings[self.words :], row[self.words :], strict=True):
            pair = f"{heading} {cell}"
            if line and cell_len(line) + 3 + cell_len(pair) > width:
                yield Text(line)
                line = ""
            line = f"{line} · {pair}" if line else f"  {pair}"
        yield Text(line)


def _without_blanks(line: list[Segment]) -> list[Segment]:
    """A line without the blanks at its end."""
    while line and not line[-1].text.strip():
        line = line[:-1]
    return line and [*line[:-1], line[-1]._replace(text=line[-1].text.rstrip())]


def this_command() -> str:
    """This command line, as it was typed."""
    return shlex.join(["vendomini", *sys.argv[1:]])


def print_json(value: object) -> None:
    """One JSON document on standard output, for scripts."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def forget(stream: IO[str]) -> None:
    """Discards what is written to it from here on: otherwise Python would fail on a closed pipe at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
