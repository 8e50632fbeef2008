"""How far an agent's stated reasoning has drifted from how it reasoned at first."""

from __future__ import annotations

import math
import zlib
from collections import deque

BASELINE_STEPS = 50
WINDOW = 20
FEWEST = 10
"""Steps with a stated thought that the window must hold to be judged."""
MAX_WORDS = 100

_BUCKETS = 512
_MAX_CHARACTERS = 1_000
_CACHED_WORDS = 1 << 15

Bag = tuple[int, ...]


class Divergence:
    """Cosine between the hashed bag-of-words of the last 20 steps and that of the first 50 healthy ones.

    A healthy step has a parsed completion, a successful call and a stated thought; that doesn't depend on any
    threshold, so that what a lenient one catches, a strict one catches as well. Words are runs between blanks, in lower
    case, of which only the letters count: figures and ids change with every order and say nothing. Dot product and
    norm are kept up to date in integers, so a step costs O(its words) and nothing drifts.
    """

    __slots__ = ("_bags", "_baseline", "_cache", "_dot", "_healthy", "_norm", "_norm_baseline", "_thoughts", "_window")

    def __init__(self) -> None:
        self._cache: dict[str, int] = {}
        self._bags: deque[Bag] = deque([()] * WINDOW, maxlen=WINDOW)
        self._baseline = [0] * _BUCKETS
        self._window = [0] * _BUCKETS
        self._healthy = self._thoughts = self._dot = self._norm = self._norm_baseline = 0

    def update(self, thought: str, healthy: bool) -> float | None:
        """Takes one step's thought. The cosine, in [0, 1]; None while there is too little to compare."""
        bag = self._bag(thought) if thought else ()
        self._slide(bag)
        if self._healthy < BASELINE_STEPS:
            if healthy and bag:
                self._learn(bag)
            return None
        if self._thoughts < FEWEST:
            return None
        return self._dot / math.sqrt(self._norm * self._norm_baseline)

    def _bag(self, thought: str) -> Bag:
        cache = self._cache
        bag = []
        for word in thought[:_MAX_CHARACTERS].lower().split(None, MAX_WORDS)[:MAX_WORDS]:
            bucket = cache.get(word)
            if bucket is None:
                if len(cache) >= _CACHED_WORDS:
                    cache.clear()
                bucket = cache[word] = _bucket(word)
            if bucket >= 0:
                bag.append(bucket)
        return tuple(bag)

    def _slide(self, bag: Bag) -> None:
        old = self._bags[0]
        self._bags.append(bag)
        if old == bag:
            return
        window, baseline = self._window, self._baseline
        norm, dot = self._norm, self._dot
        for bucket in bag:
            n = window[bucket]
            window[bucket] = n + 1
            norm += 2 * n + 1
            dot += baseline[bucket]
        for bucket in old:
            n = window[bucket] - 1
            window[bucket] = n
            norm -= 2 * n + 1
            dot -= baseline[bucket]
        self._norm, self._dot = norm, dot
        self._thoughts += bool(bag) - bool(old)

    def _learn(self, bag: Bag) -> None:
        """Adds a healthy step to the baseline, and completes it with the 50th."""
        baseline = self._baseline
        for bucket in bag:
            baseline[bucket] += 1
        self._healthy += 1
        if self._healthy == BASELINE_STEPS:
            self._norm_baseline = sum(n * n for n in baseline)
            self._dot = sum(n * m for n, m in zip(baseline, self._window, strict=True))


def _bucket(word: str) -> int:
    """CRC-32, which is the same everywhere, of the word's letters; −1 if it has none."""
    letters = "".join(filter(str.isalpha, word))
    return zlib.crc32(letters.encode("utf-8", "backslashreplace")) % _BUCKETS if letters else -1
