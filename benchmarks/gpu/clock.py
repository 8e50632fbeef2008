"""Time and memory of work that a GPU does behind the program's back."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

WARM_UP = 3
PROFILED = 3
"""Calls under the profiler, which takes seconds to sort out tens of thousands of kernels."""


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Median of the time until ``work`` and all that it queued on the GPU is done."""
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(repeats):
        synchronize()
        began = time.perf_counter()
        work()
        synchronize()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def kernel_milliseconds(work: Callable[[], object]) -> float | None:
    """What the GPU's kernels and copies alone take of it; the rest is waiting for the program. None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        begin.record()
        for _ in range(PROFILED):
            work()
        end.record()
        torch.cuda.synchronize()
    on_gpu = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.time_range.elapsed_us() for event in on_gpu) / 1000
    return min(busy, begin.elapsed_time(end)) / PROFILED


def synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """Most that tensors have taken since :func:`reset_peak`; on a CPU what the process holds now."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else held_bytes()


def held_bytes() -> int:
    """What tensors take now; on a CPU, what the process does."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def used_bytes() -> int | None:
    """Of the whole GPU, by all processes, the driver's share included; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free
