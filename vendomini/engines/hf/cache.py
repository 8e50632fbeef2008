"""Keys and values of many conversations, each in a row of its own that it keeps from turn to turn.

Every attention layer has two tensors of shape ``[slots, heads, capacity + 1, dim]``. A conversation owns one slot; its
tokens are at positions 0, 1, 2 … of that row. So nothing is copied when conversations of different lengths are decoded
together, and dropping the end of one means counting less of it. The last column takes what must be written somewhere
and is never read: the keys of padding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Tensor = Any

FIRST_CAPACITY = 512
GROWTH = 1.5


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
class Batch:
    """Which rows and columns one forward pass writes and reads.

    Attributes:
        rows: slot indices, ``[batch]``.
        lengths: what each row holds with its new tokens, ``[batch]``, 32-bit integers.
        positions: column of each new token, ``[batch, queries]``; beyond a row's own tokens, the spare column.
        length: columns to read.
        span: the rows as a slice where they lie side by side: reading them then copies nothing.
        in_place: the attention finds rows and lengths in the slots by itself.
    """

    rows: Tensor
    lengths: Tensor
    positions: Tensor
    length: int
    span: slice | None
    in_place: bool


class SlotCache:
    """Takes the place of Transformers' ``Cache``, of which only ``update`` and the sizes of masks are used."""

    is_compileable = False

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = min(FIRST_CAPACITY, capacity)
        self.limit = capacity
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.batch: Batch | None = None

    def reserve(self, length: int) -> None:
        """Makes room for ``length`` tokens a row, one layer at a time, so that little is held twice."""
        if length <= self.capacity:
            return
        self.capacity = min(self.limit, max(length, int(self.capacity * GROWTH)))
        for index, (keys, values) in self.layers.items():
            self.layers[index] = (self._grown(keys), self._grown(values))

    def _grown(self, old: Tensor) -> Tensor:
        new = old.new_zeros((*old.shape[:2], self.capacity + 1, old.shape[3]))
        new[:, :, : old.shape[2] - 1] = old[:, :, :-1]
        return new

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Writes the new tokens' keys and values and returns those of the whole batch, or of all slots if ``in_place``.

        Args:
            keys, values: ``[batch, heads, queries, dim]``; the two may differ in ``dim``.

        Returns:
            ``[batch, heads, length, dim]`` each; ``[slots, heads, capacity + 1, dim]``.
        """
        assert self.batch is not None
        stored = self.layers.get(layer_idx) or (self._empty(keys), self._empty(values))
        self.layers[layer_idx] = stored
        return self._write(stored[0], keys, self.batch), self._write(stored[1], values, self.batch)

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_zeros((self.slots, like.shape[1], self.capacity + 1, like.shape[3]))

    @staticmethod
    def _write(stored: Tensor, new: Tensor, batch: Batch) -> Tensor:
        rows, positions = batch.rows.to(stored.device), batch.positions.to(stored.device)
        stored[rows[:, None], :, positions] = new.transpose(1, 2)
        if batch.in_place:
            return stored
        return (stored[batch.span] if batch.span else stored[rows])[:, :, : batch.length]

    def truncate(self, _slot: Slot, length: int) -> int:
        """Drops what a slot holds beyond ``length`` tokens, and says how many it still holds."""
        return length

    def copy_prefix(self, source: Slot, target: Slot, length: int) -> bool:
        """Gives ``target`` the first ``length`` tokens of ``source``: a system prompt is computed once for all."""
        for keys, values in self.layers.values():
            keys[target.index, :, :length] = keys[source.index, :, :length]
            values[target.index, :, :length] = values[source.index, :, :length]
        target.tokens = source.tokens[:length]
        return True

    # What Transformers asks while it builds masks for Flash Attention.

    def get_seq_length(self, _layer_idx: int = 0) -> int:
        return self.batch.length - self.batch.positions.shape[1] if self.batch else 0

    def get_query_offset(self, _layer_idx: int = 0) -> int:
        return self.get_seq_length()

    def get_mask_sizes(self, _query_length: int, _layer_idx: int = 0) -> tuple[int, int]:
        return (self.batch.length if self.batch else 0), 0


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
