"""Stopping on signals: the first lets the steps in flight finish, the second ends them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Ctrl-C; a job's end or preemption; SLURM's warning before the time limit."""


class Stop:
    """Whether to stop, and why. Episodes check it between steps.

    Attributes:
        reason: name of the signal, or None to continue.
        task: what a second signal cancels. An exception out of a handler could strike anywhere, where it is lost or
            leaves a traceback behind; a third signal raises one all the same, since something hangs.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.task: asyncio.Task[Any] | None = None

    def request(self, reason: str) -> None:
        self.reason = reason

    @contextmanager
    def on_signals(self, announce: Callable[[str], None]) -> Iterator[Stop]:
        """While inside, signals request the stop; afterwards the old handlers are back. Python gives signals to its
        main thread alone, so in another one this changes nothing.

        Args:
            announce: called once, with what is happening.
        """

        def handle(number: int, _: FrameType | None) -> None:
            if self.reason is not None:
                task, self.task = self.task, None
                if task is None or task.done():
                    raise KeyboardInterrupt
                task.get_loop().call_soon_threadsafe(task.cancel)
                return
            self.request(signal.Signals(number).name)
            announce(f"{self.reason}: stopping after the steps in flight (once more to stop at once)")

        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
