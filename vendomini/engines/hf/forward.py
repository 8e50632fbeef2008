"""One forward pass over rows of unequal length, on top of the slots of ``cache``."""

from __future__ import annotations

from typing import Any

from vendomini.engines.hf.cache import Batch, SlotCache
from vendomini.engines.hf.model import LoadedModel
from vendomini.engines.hf.slots import reading

Tensor = Any
Row = tuple[int, list[int], int]
"""Slot, new tokens, position of the first of them."""


class CannotBatch(Exception):
    """Why this model can't run in a batch of unequal rows."""


class Forward:
    """Callable: rows → logits after the last token of each, ``[rows, vocabulary]``."""

    def __init__(self, loaded: LoadedModel, cache: SlotCache) -> None:
        self.loaded, self.cache = loaded, cache
        config = loaded.model.config.get_text_config()
        self._layer_types = set(getattr(config, "layer_types", None) or ())
        self._window = getattr(config, "sliding_window", None)
        if unknown := self._layer_types - {"full_attention", "sliding_attention"}:
            raise CannotBatch(f"its layers of type {', '.join(sorted(unknown))} keep a state that can't be batched")

    def __call__(self, rows: list[Row]) -> Tensor:
        import torch

        slots, picked, span = _layout(rows, in_place=self.loaded.flash)
        width = max(len(tokens) for _, tokens, _ in rows)
        length = max(start + len(tokens) for _, tokens, start in rows)
        self.cache.reserve(length)
        by_slot = {slot: (tokens, start) for slot, tokens, start in rows}
        ids, positions, columns = zip(*(self._row(*by_slot.get(slot, ([0], -1)), width) for slot in slots), strict=True)
        device = self.loaded.device
        position_ids = torch.tensor(positions, device=device)
        lengths = [start + len(tokens) for tokens, start in (by_slot.get(slot, ([], 0)) for slot in slots)]
        batch = self.cache.batch = Batch(
            torch.tensor(slots, device=device),
            torch.tensor(lengths, device=device, dtype=torch.int32),
            torch.tensor(columns, device=device),
            length,
            span,
            self.loaded.flash,
        )
        ends = [len(tokens) - 1 for _, tokens, _ in rows]
        keep = sorted(set(ends))
        with reading(batch):
            logits = self.loaded.model(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=self._mask(position_ids, length),
                position_ids=position_ids,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=torch.tensor(keep, device=device),
            ).logits
        return logits[picked, [keep.index(end) for end in ends]]

    def _row(self, tokens: list[int], start: int, width: int) -> tuple[list[int], list[int], list[int]]:
        """Ids, positions and columns, padded. A gap starts at -1 and writes to the spare column."""
        spare = self.cache.capacity
        padding = width - len(tokens)
        first = max(start, 0)
        columns = [spare] if start < 0 else list(range(start, start + len(tokens)))
        positions = [*range(first, first + len(tokens)), *[first] * padding]
        return [*tokens, *[0] * padding], positions, [*columns, *[spare] * padding]

    def _mask(self, positions: Tensor, length: int) -> Tensor:
        """Each token sees the columns up to its own position; in sliding layers, only the last ``window`` of them."""
        import torch

        if self.loaded.flash:
            return None  # the kernel knows the length of each row
        columns = torch.arange(length, device=positions.device)
        full = columns <= positions[:, None, :, None]
        sliding = full & (columns > positions[:, None, :, None] - self._window) if self._window else full
        masks = {"full_attention": self._as_asked(full), "sliding_attention": self._as_asked(sliding)}
        if self._layer_types:
            return {kind: masks[kind] for kind in self._layer_types}
        return masks["sliding_attention"]

    def _as_asked(self, allowed: Tensor) -> Tensor:
        """The mask as booleans, or as values added to the scores where the implementation wants those."""
        import torch

        if self.loaded.attention != "eager":
            return allowed
        dtype = self.loaded.model.dtype
        zero = torch.zeros((), dtype=dtype, device=allowed.device)
        return torch.where(allowed, zero, torch.finfo(dtype).min)


def _layout(rows: list[Row], in_place: bool) -> tuple[list[int], list[int], slice | None]:
    """Which slots to run, where the asked rows are among them, and the slots as a slice if they are one.

    A slice is read in place; scattered rows are copied. So for single tokens gaps are run along, unless most would be
    gaps.
    """
    wanted = [slot for slot, _, _ in rows]
    if in_place:
        return wanted, list(range(len(wanted))), None
    low, high = min(wanted), max(wanted) + 1
    single = all(len(tokens) == 1 for _, tokens, _ in rows)
    if high - low == len(wanted) or (single and high - low <= 2 * len(wanted)):
        return list(range(low, high)), [slot - low for slot in wanted], slice(low, high)
    return wanted, list(range(len(wanted))), None
