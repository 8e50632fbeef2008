"""Settings of Python and of the operating system for a process with many episodes."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

SPARE_FILES = 64
"""Files that may be open besides the episodes' logs and those that the engine has open when they begin."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Steps create many objects and hardly any cycles: searching everything that is loaded for cycles as often as
    Python does by default costs a scripted step several per cent of its time."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def room_for(episodes: int) -> int:
    """How many of these can be in flight: each holds its log open. The soft limit, often 1,024, is raised if need
    be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return episodes
    others = len(os.listdir("/dev/fd")) + SPARE_FILES
    wanted = episodes + others if hard == resource.RLIM_INFINITY else min(episodes + others, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(min(episodes, max(wanted, soft) - others), 1)
