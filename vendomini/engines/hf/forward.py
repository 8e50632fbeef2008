"""One forward pass over rows of unequal length, on top of the slots of ``cache``."""

from __future__ import annotations

from typing import Any

from vendomini.engines.hf.cache import Batch, Places, Row, SlotCache
from vendomini.engines.hf.model import LoadedModel
from vendomini.engines.hf.slots import reading

Tensor = Any


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
        self.cache = SlotCache(slots, limit, self._window, sliding)

    def __call__(self, rows: list[Row]) -> Tensor:
        import torch

        slots, picked, span = _layout(rows, in_place=self.loaded.flash)
        width = max(len(tokens) for _, tokens, _ in rows)
        device = self.loaded.device
        batch = self.cache.begin(rows, slots, span, self.loaded.flash, device)
        by_slot = {slot: (tokens, start) for slot, tokens, start in rows}
        ids, positions = zip(*(_padded(*by_slot.get(slot, ([0], 0)), width) for slot in slots), strict=True)
        position_ids = torch.tensor(positions, device=device)
        ends = [len(tokens) - 1 for _, tokens, _ in rows]
        keep = sorted(set(ends))
        with reading(self.cache):
            logits = self.loaded.model(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=None if self.loaded.flash else self._masks(position_ids, batch),
                position_ids=position_ids,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=torch.tensor(keep, device=device),
            ).logits
        return logits[picked, [keep.index(end) for end in ends]]

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


def _padded(tokens: list[int], start: int, width: int) -> tuple[list[int], list[int]]:
    """Ids and positions of a row."""
    padding = width - len(tokens)
    return [*tokens, *[0] * padding], [*range(start, start + len(tokens)), *[start] * padding]


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
