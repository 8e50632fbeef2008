"""Keys and values of many conversations, each in a row of its own that it keeps from turn to turn.

Every attention layer has two tensors of shape ``[slots, heads, capacity + 1, dim]``. A conversation owns one slot; its
tokens are in the columns of that row, in order. So nothing is copied when conversations of different lengths are
decoded together, and dropping the end of one means counting less of it. The last column takes what must be written
somewhere and is never read: the keys of padding, which stands in front of a row's tokens.

Layers that see a window of the past keep that and some more: when a row is full, its newest columns move to its front.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Tensor = Any
Row = tuple[int, list[int], int]
"""Slot, new tokens, position of the first of them."""

FIRST_CAPACITY = 512
GROWTH = 1.5

PREFILL_TOKENS = 2048
"""New tokens that one forward pass takes at most, padding included: bounds what attention needs at once."""

MARGIN = 1024
"""Tokens that layers with a window keep beyond it: the end of a conversation that the next turn may drop."""


@dataclass(slots=True, eq=False)
class Slot:
    """One row of the cache.

    Attributes:
        tokens: whose keys and values the row holds, in order.
        used: the clock when it was last used, for eviction.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    used: int = 0


@dataclass(slots=True)
class Places:
    """Where layers of one kind keep the tokens of one forward pass.

    Attributes:
        columns: of each new token, ``[batch, queries]``; the spare one for padding.
        first: position of the token in column 0, ``[batch]``.
        lengths: columns that each row holds with its new tokens, ``[batch]``, 32-bit integers.
        length: columns to read.
    """

    columns: Tensor
    first: Tensor
    lengths: Tensor
    length: int


@dataclass(slots=True)
class Batch:
    """What one forward pass writes and reads.

    Attributes:
        rows: slot indices, ``[batch]``.
        rows_32: the same as 32-bit integers, which Flash Attention wants.
        span: the rows as first and last + 1 where they lie side by side: reading them then copies nothing.
        in_place: the attention finds rows and lengths in the slots by itself.
        full, sliding: by kind of layer.
    """

    rows: Tensor
    rows_32: Tensor
    span: tuple[int, int] | None
    in_place: bool
    full: Places
    sliding: Places


class Layers:
    """The layers of one kind.

    Args:
        limit: columns of a row, at most.
        whole: allocate them all at once, where they must not move.
        window: how far they see; None for all of it.
    """

    def __init__(self, slots: int, limit: int, whole: bool, window: int | None = None) -> None:
        self.window = window
        self.limit = self._columns(limit)
        self.capacity = self.limit if whole else min(FIRST_CAPACITY, self.limit)
        self.first = [0] * slots
        self.stored: dict[int, tuple[Tensor, Tensor]] = {}

    def places(self, rows: Sequence[Row], slots: Sequence[int], width: int) -> tuple[list[list[int]], int]:
        """Makes room for the new tokens and says where they go.

        Args:
            rows: what is asked for.
            slots: what is run, gaps between the rows included; a gap writes to the spare column.
            width: tokens of the widest row.

        Returns:
            Of each slot that is run, what ``Places`` holds of a row: columns, first, length. And the greatest length.
        """
        for slot, tokens, start in rows:
            self._make_room(slot, start, len(tokens))
        ends = {slot: start + len(tokens) - self.first[slot] for slot, tokens, start in rows}
        self._reserve(max(ends.values()))
        spare, numbers = [self.capacity] * width, {}
        for slot, tokens, _ in rows:
            end, new = ends[slot], len(tokens)
            numbers[slot] = [*spare[new:], *range(end - new, end), self.first[slot], end]
        gap = [*spare, 0, 0]
        return [numbers.get(slot, gap) for slot in slots], max(ends.values())

    def _make_room(self, slot: int, start: int, new: int) -> None:
        """In a full row, move what the window and its margin cover to the front."""
        if self.window is None or start + new - self.first[slot] <= self.limit:
            return
        kept = self.window + MARGIN
        dropped = start - kept - self.first[slot]
        for part in self._parts():
            part[slot, :, :kept] = part[slot, :, dropped : dropped + kept].clone()
        self.first[slot] += dropped

    def _reserve(self, length: int) -> None:
        """Makes room for ``length`` columns a row, one layer at a time, so that little is held twice."""
        if length <= self.capacity:
            return
        self.capacity = min(self.limit, max(length, int(self.capacity * GROWTH)))
        for index, (keys, values) in self.stored.items():
            self.stored[index] = (self._grown(keys), self._grown(values))

    def _grown(self, old: Tensor) -> Tensor:
        new = old.new_zeros((*old.shape[:2], self.capacity + 1, old.shape[3]))
        new[:, :, : old.shape[2] - 1] = old[:, :, :-1]
        return new

    def update(self, layer: int, keys: Tensor, values: Tensor, batch: Batch, places: Places) -> tuple[Tensor, Tensor]:
        if layer not in self.stored:
            self.stored[layer] = self._empty(keys), self._empty(values)
        stored = self.stored[layer]
        return _write(stored[0], keys, batch, places), _write(stored[1], values, batch, places)

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_zeros((len(self.first), like.shape[1], self.capacity + 1, like.shape[3]))

    def _parts(self) -> Iterable[Tensor]:
        return (part for stored in self.stored.values() for part in stored)

    def holds(self, slot: int, length: int) -> bool:
        """Whether a row still has all that the token after the first ``length`` sees."""
        return self.first[slot] == 0 or self.first[slot] <= length + 1 - (self.window or 0)

    def copy(self, source: int, target: int, length: int) -> None:
        self.first[target] = self.first[source]
        columns = length - self.first[source]
        for part in self._parts():
            part[target, :, :columns] = part[source, :, :columns]

    def sizes(self, context: int) -> Iterable[tuple[object, int]]:
        """Device and bytes of one conversation of ``context`` tokens, of each tensor."""
        for part in self._parts():
            yield part.device, self._columns(context) * part.shape[1] * part.shape[3] * part.element_size()

    def _columns(self, context: int) -> int:
        """Columns that a conversation of ``context`` tokens needs."""
        return context if self.window is None else min(context, self.window + MARGIN + PREFILL_TOKENS)


def _write(stored: Tensor, new: Tensor, batch: Batch, places: Places) -> Tensor:
    rows, columns = batch.rows.to(stored.device), places.columns.to(stored.device)
    stored[rows[:, None], :, columns] = new.transpose(1, 2)
    if batch.in_place:
        return stored
    return (stored[slice(*batch.span)] if batch.span else stored[rows])[:, :, : places.length]


class SlotCache:
    """Takes the place of Transformers' ``Cache``, of which only ``update`` and the sizes of masks are used.

    Args:
        whole: as in ``Layers``.
        window: how far the layers in ``sliding`` see.
    """

    is_compileable = False

    def __init__(
        self, slots: int, limit: int, whole: bool, window: int | None = None, sliding: Iterable[int] = ()
    ) -> None:
        self.slots, self.limit = slots, limit
        self.full = Layers(slots, limit, whole)
        self.sliding = Layers(slots, limit, whole, window)
        self._slides = frozenset(sliding)
        self.batch: Batch | None = None

    @property
    def kinds(self) -> tuple[Layers, ...]:
        """Layers that keep everything; then those with a window, where there are any."""
        return (self.full, self.sliding) if self._slides else (self.full,)

    def slides(self, layer: int) -> bool:
        return layer in self._slides

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Writes the new tokens' keys and values and returns those of the whole batch, or of all slots if ``in_place``.

        Args:
            keys, values: ``[batch, heads, queries, dim]``; the two may differ in ``dim``.

        Returns:
            ``[batch, heads, length, dim]`` each; ``[slots, heads, capacity + 1, dim]``.
        """
        assert self.batch is not None
        if self.slides(layer_idx):
            return self.sliding.update(layer_idx, keys, values, self.batch, self.batch.sliding)
        return self.full.update(layer_idx, keys, values, self.batch, self.batch.full)

    def truncate(self, slot: Slot, length: int) -> int:
        """Drops what a slot holds beyond ``length`` tokens, and says how many it still holds: none if what layers with
        a window would need of them is gone."""
        if not self.sliding.holds(slot.index, length):
            self.sliding.first[slot.index] = length = 0
        return length

    def copy_prefix(self, source: Slot, target: Slot, length: int) -> bool:
        """Gives ``target`` the first ``length`` tokens of ``source``: a system prompt is computed once for all."""
        if not self.sliding.holds(source.index, length):
            return False
        for kind in (self.full, self.sliding):
            kind.copy(source.index, target.index, length)
        target.tokens = source.tokens[:length]
        return True

    def slot_bytes(self, context: int) -> dict[Any, int]:
        """Device → bytes of one conversation of ``context`` tokens, as measured on what has been stored."""
        total: dict[Any, int] = {}
        for device, size in (*self.full.sizes(context), *self.sliding.sizes(context)):
            total[device] = total.get(device, 0) + size
        return total

    # What Transformers asks while it builds masks for Flash Attention.

    def get_seq_length(self, _layer_idx: int = 0) -> int:
        return self.batch.full.length - self.batch.full.columns.shape[1] if self.batch else 0

    def get_query_offset(self, _layer_idx: int = 0) -> int:
        return self.get_seq_length()

    def get_mask_sizes(self, _query_length: int, _layer_idx: int = 0) -> tuple[int, int]:
        return (self.batch.full.length if self.batch else 0), 0


def common_prefix(left: list[int], right: list[int]) -> int:
    """How many tokens both begin with. Bisection over slices: comparing them runs in C."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
