"""CUDA graphs of decode steps.

A step of one token a row launches hundreds of small kernels, which takes the CPU longer than the GPU takes to run them.
Recorded once, they are launched together. A recording repeats the same kernels on the same addresses, so what differs
from step to step (tokens, positions, slots, lengths) lies in one tensor that is written anew before each.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vendomini.engines.hf.model import LoadedModel, first_line

Tensor = Any
Work = Callable[[Tensor], Tensor]
Record = Callable[[Callable[[], object]], Callable[[], None]]

KEPT = 64
"""Recordings; the driver takes a few MB for each. Their tensors share memory, since one runs after the other."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What two passes have in common that one recording can stand for.

    Attributes:
        rows: that are run.
        width: tokens of each, padding included.
        span: as in ``Batch``.
        lengths: columns to read, for each kind of layers.
    """

    rows: int
    width: int
    span: tuple[int, int] | None
    lengths: tuple[int, ...]


class Graphs:
    """Callable: a pass's shape, numbers and work → its logits, which the next call overwrites.

    Each recording is compared with the pass that it was made of. If one differs or can't be made, there are none from
    then on, and ``LoadedModel.no_graphs`` says why.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._record = recorder(loaded)
        self._kept: OrderedDict[Shape, tuple[Tensor, Tensor, Callable[[], None]]] = OrderedDict()
        self._logits: Tensor | None = None

    @property
    def wanted(self) -> bool:
        return self._record is not None and not self._loaded.no_graphs

    def __call__(self, shape: Shape, numbers: Tensor, work: Work) -> Tensor:
        if shape not in self._kept:
            plain = work(numbers)  # also allocates what a recording must find in its place
            self._make(shape, numbers, work, plain)
            return plain
        kept, logits, replay = self._kept[shape]
        self._kept.move_to_end(shape)
        kept.copy_(numbers)
        replay()
        return logits

    def _make(self, shape: Shape, numbers: Tensor, work: Work, plain: Tensor) -> None:
        assert self._record is not None
        while len(self._kept) >= KEPT:
            self._kept.popitem(last=False)
        if self._logits is None or len(self._logits) < shape.rows:
            self._logits = plain.new_empty(plain.shape)
        logits = self._logits[: shape.rows]
        try:
            replay = self._record(lambda: logits.copy_(work(numbers)))
            replay()
            error = float((logits.float() - plain.float()).norm() / plain.float().norm())
            if not error <= self._loaded.tolerance:
                raise ValueError(f"a recorded step differs from a plain one by {error:.2g}")
        except Exception as exc:  # whatever a model does that can't be recorded
            self._loaded.no_graphs = first_line(exc)
            self._kept.clear()
        else:
            self._kept[shape] = numbers, logits, replay


def recorder(loaded: LoadedModel) -> Record | None:
    """None where nothing can be recorded: without a GPU, or with layers on several devices."""
    import torch

    if loaded.device.type != "cuda":
        return None
    if len(loaded.devices) > 1:
        loaded.no_graphs = "its layers are on several devices"
        return None
    pool = torch.cuda.graph_pool_handle()  # GPU only: from here on
    checked = False

    def record(work: Callable[[], object]) -> Callable[[], None]:
        nonlocal checked
        if not checked:
            with _refusing_to_wait():
                work()
            checked = True
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(loaded.device)
        try:
            with torch.cuda.device(loaded.device), torch.cuda.graph(graph, pool, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(stream)  # a recording that fails leaves its own behind
        replay: Callable[[], None] = graph.replay
        return replay

    return record


@contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Raises RuntimeError where the CPU would wait for the GPU.

    In a recording that is an error, too, but one after which PyTorch before 2.12 can't free the GPU's memory (its pull
    request 180395).
    """
    import torch

    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings(action="ignore"):  # PyTorch calls this mode experimental
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
