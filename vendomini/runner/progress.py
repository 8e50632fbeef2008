"""Progress of a run of many episodes: cheap counters, shown at intervals by a thread of their own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vendomini.errors import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PLAIN_INTERVAL_S = 30.0
"""Seconds between two lines where there is no terminal."""


@dataclass(slots=True)
class Counters:
    """Updated by the episodes, read by the display.

    Attributes:
        runs_total: to be done in this call.
        runs_done: ended in this call, whatever the ending.
        runs_failed: of these, not to be analysed.
        steps_total: the most that the runs can still take (a run that crashes takes fewer).
        steps: done in this call.
        steps_resumed: found in the logs.
        completion_tokens: generated in this call.
    """

    runs_total: int = 0
    runs_done: int = 0
    runs_failed: int = 0
    steps_total: int = 0
    steps: int = 0
    steps_resumed: int = 0
    completion_tokens: int = 0


class Progress:
    """Shows counters while inside: a plain line every 30 s and one at the end.

    Args:
        say: takes each line; by default none are shown. One that can't be written (``| head``, a full disk) does not
            stop the work.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say
        self.counters = Counters()
        self._started = time.monotonic()
        self._ended = threading.Event()

    def say(self, line: str) -> None:
        """A line of the log."""
        if self._say:
            with contextlib.suppress(OSError):
                self._say(line)

    def line(self) -> str:
        """The counters in words."""
        c = self.counters
        seconds = max(time.monotonic() - self._started, 1e-9)
        left = c.steps_total - c.steps - c.steps_resumed
        parts = [f"{c.runs_done:,}/{counted(c.runs_total, 'run')}"]
        if c.steps:
            parts += [counted(c.steps, "step"), f"{rate(c.steps / seconds)} steps/s"]
        elif c.runs_done < c.runs_total:  # a model loads for minutes
            parts.append(f"no step yet after {duration(seconds)}")
        if c.completion_tokens:
            parts.append(f"{rate(c.completion_tokens / seconds)} tokens/s")
        if c.steps and left > 0:
            parts.append(f"at most {duration(left * seconds / c.steps)} left")
        if c.runs_failed:
            parts.append(f"{c.runs_failed} failed")
        return " · ".join(parts)

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hide()
        self.say(self.line())

    def _show(self) -> None:
        threading.Thread(target=self._print_now_and_then, daemon=True).start()

    def _hide(self) -> None:
        self._ended.set()

    def _print_now_and_then(self) -> None:
        while not self._ended.wait(PLAIN_INTERVAL_S):
            self.say(self.line())


class LiveProgress(Progress):
    """Progress on a terminal: one line that is kept up to date, below the lines of the log."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        super().__init__(lambda line: console.print(line, markup=False))
        self._live = Live(get_renderable=self._renderable, console=console, refresh_per_second=4, transient=True)

    def _show(self) -> None:
        self._live.start()

    def _hide(self) -> None:
        self._live.stop()

    def _renderable(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(self.counters.runs_total, 1), completed=self.counters.runs_done, width=24)
        grid.add_row(bar, self.line())
        return grid


def progress_on(console: Console) -> Progress:
    """How a command shows it."""
    if console.is_terminal:
        return LiveProgress(console)
    return Progress(lambda line: console.print(line, markup=False))


def rate(value: float) -> str:
    """``1,300``, ``12``, ``0.23``: a large model on few GPUs does less than a step a second."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """``2 h 05 min``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
