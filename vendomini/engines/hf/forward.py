"""One forward pass over rows of unequal length, on top of the slots of ``cache``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from vendomini.engines.hf.cache import Batch, Places, Row, SlotCache
from vendomini.engines.hf.graphs import Graphs, Shape
from vendomini.engines.hf.model import LoadedModel
from vendomini.engines.hf.slots import reading

Tensor = Any

NOBODY = -1
"""Stands for a slot in rows that only fill a batch up."""


class CannotBatch(Exception):
    """Why this model can't run in a batch of unequal rows."""


class Forward:
    """Callable: rows → logits after the last token of each, ``[rows, vocabulary]``.

    Args:
        slots: conversations that are kept.
        limit: tokens of each, at most.

    Raises:
        CannotBatch: the model has layers of a kind that this can't do.
    """

    def __init__(self, loaded: LoadedModel, slots: int, limit: int) -> None:
        self.loaded = loaded
        config = loaded.model.config.get_text_config()
        kinds = getattr(config, "layer_types", None) or ()
        self._kinds = set(kinds)
        self._window = getattr(config, "sliding_window", None)
        if unknown := self._kinds - {"full_attention", "sliding_attention"}:
            raise CannotBatch(f"its layers of type {', '.join(sorted(unknown))} keep a state that can't be batched")
        layers = range(config.num_hidden_layers if self._window else 0)
        sliding = [layer for layer in layers if not kinds or kinds[layer] == "sliding_attention"]
        self.graphs = Graphs(loaded)
        self.cache = SlotCache(slots, limit, self.graphs.wanted, self._window, sliding)

    def __call__(self, rows: list[Row]) -> Tensor:
        import torch

        width = max(len(tokens) for _, tokens, _ in rows)
        recorded = width == 1 and self.graphs.wanted
        slots, picked, span = self._layout(rows, recorded)
        kinds = self.cache.kinds
        places, lengths = zip(*(kind.places(rows, slots, width) for kind in kinds), strict=True)
        if recorded:
            capacities = tuple(kind.capacity for kind in kinds)
            lengths = capacities if self.loaded.flash else tuple(map(_coarse, lengths, capacities))
        by_slot = {slot: (tokens, start) for slot, tokens, start in rows}
        numbers = [
            [*_padded(*by_slot.get(slot, ([0], 0)), width), max(slot, 0), *(n for part in parts for n in part)]
            for slot, *parts in zip(slots, *places, strict=True)
        ]
        shape = Shape(len(slots), width, span, lengths)
        run = self.graphs if recorded else _at_once
        return run(shape, torch.tensor(numbers, device=self.loaded.device), partial(self._run, shape))[picked]

    def _layout(self, rows: list[Row], recorded: bool) -> tuple[list[int], list[int], tuple[int, int] | None]:
        """Which slots to run, where the asked rows are among them, and the slots as a span if they are one.

        A span is read in place; scattered rows are copied. So for single tokens gaps are run along, unless most would
        be gaps. Flash Attention reads any rows in place. What is recorded comes in few sizes.
        """
        wanted = [slot for slot, _, _ in rows]
        if not self.loaded.flash:
            low, high = min(wanted), max(wanted) + 1
            if recorded:
                low, high = 0, _coarse(high, self.cache.slots)
            single = all(len(tokens) == 1 for _, tokens, _ in rows)
            if high - low == len(wanted) or (single and high - low <= 2 * len(wanted)):
                return list(range(low, high)), [slot - low for slot in wanted], (low, high)
        more = _coarse(len(wanted)) - len(wanted) if recorded else 0
        return [*wanted, *[NOBODY] * more], list(range(len(wanted))), None

    def _run(self, shape: Shape, numbers: Tensor) -> Tensor:
        """Args:
            numbers: ``[rows, *]``: token ids, positions, the slot, and columns, first and length for each kind.

        Returns:
            Logits after the last token of each row.
        """
        width, kinds = shape.width, len(shape.lengths)
        ids, positions, slots, *places = numbers.split([width, width, 1, *[width, 1, 1] * kinds], dim=1)
        each = [
            Places(columns, first[:, 0], lengths[:, 0].int(), length)
            for columns, first, lengths, length in zip(
                places[::3], places[1::3], places[2::3], shape.lengths, strict=True
            )
        ]
        slots, flash = slots[:, 0], self.loaded.flash
        batch = self.cache.batch = Batch(slots, slots.int(), shape.span, flash, each[0], each[-1])
        with reading(self.cache):
            logits: Tensor = self.loaded.model(
                input_ids=ids.contiguous(),
                attention_mask=None if flash else self._masks(positions, batch),
                position_ids=positions.contiguous(),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        return logits[:, -1]

    def _masks(self, positions: Tensor, batch: Batch) -> Tensor:
        """Each token sees the columns up to its own position; in sliding layers, only the last ``window`` of them."""
        if not self._kinds:
            return self._mask(positions, batch.sliding, self._window)
        return {
            kind: self._mask(positions, batch.full)
            if kind == "full_attention"
            else self._mask(positions, batch.sliding, self._window)
            for kind in self._kinds
        }

    def _mask(self, positions: Tensor, places: Places, window: int | None = None) -> Tensor:
        """``[batch, 1, queries, length]``: booleans, or values added to the scores where the attention wants those."""
        import torch

        seen = (torch.arange(places.length, device=positions.device) + places.first[:, None])[:, None, None]
        queries = positions[:, None, :, None]
        allowed = seen <= queries
        if window is not None:
            allowed &= seen > queries - window
        if self.loaded.attention != "eager":
            return allowed
        dtype = self.loaded.model.dtype
        zero = torch.zeros((), dtype=dtype, device=allowed.device)
        return torch.where(allowed, zero, torch.finfo(dtype).min)


def _at_once(_: Shape, numbers: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
    return work(numbers)


def _padded(tokens: list[int], start: int, width: int) -> list[int]:
    """Ids, then positions, of a row. Padding is in front: Flash Attention takes a row's last query for its newest."""
    padding = width - len(tokens)
    return [*[0] * padding, *tokens, *[start] * padding, *range(start, start + len(tokens))]


def _coarse(number: int, most: int | None = None) -> int:
    """The next number of those that have three significant binary digits: at most a quarter more."""
    step = 1 << max(number.bit_length() - 3, 0)
    up = -(-number // step) * step
    return up if most is None else min(up, most)
