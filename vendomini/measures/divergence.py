"""How far an agent's stated reasoning has drifted from how it reasoned at first."""

from __future__ import annotations

import math
import zlib
from collections import deque
from itertools import chain, compress, starmap, zip_longest
from operator import ne

BASELINE_STEPS = 50
WINDOW = 20
FEWEST = 10
"""Steps with a stated thought that the window must hold before it is judged."""
SHORTEST_WORD = 4
MAX_CHARACTERS = 600
"""Characters of a thought that count: about 100 words."""

_BUCKETS = 512
_NOTHING = 0
_OTHERS = {code: None for code in range(128) if not chr(code).isalpha()}
_CACHED_WORDS = 1 << 15
_CACHED_SENTENCES = 1 << 10

Bag = tuple[int, ...]


class Divergence:
    """Cosine between the hashed bag-of-words of the last 20 steps and that of the first 50 healthy ones.

    A healthy step has a parsed completion, a successful call and a stated thought; that doesn't depend on any
    threshold, so that a strict one catches whatever a lenient one does. Words are runs between blanks, in lower case,
    of which only the letters count: figures change with every order and say nothing. Nor do words of fewer than four
    letters: any two English texts share "the", "of" and "to", which would hide that they share nothing else. Dot
    product and norm are kept up to date in integers, so a step costs O(its words) and nothing drifts.
    """

    __slots__ = ("_bags", "_baseline", "_dot", "_healthy", "_norm", "_norm_baseline", "_thoughts", "_window")

    def __init__(self) -> None:
        self._bags: deque[Bag] = deque([()] * WINDOW, maxlen=WINDOW)
        self._baseline = [0] * (_BUCKETS + 1)
        self._window = [0] * (_BUCKETS + 1)
        self._healthy = self._thoughts = self._dot = self._norm = self._norm_baseline = 0

    def update(self, thought: str, healthy: bool) -> float | None:
        """Takes one step's thought. The cosine, in [0, 1]; None while there is too little to compare."""
        bag = tuple(chain.from_iterable(map(_buckets_of, thought[:MAX_CHARACTERS].lower().split(". "))))
        self._slide(bag)
        if self._healthy < BASELINE_STEPS:
            if healthy and bag:
                self._learn(bag)
            return None
        if self._thoughts < FEWEST:
            return None
        norm = self._norm - self._window[_NOTHING] ** 2
        return self._dot / math.sqrt(norm * self._norm_baseline)

    def _slide(self, bag: Bag) -> None:
        """Exchanges the oldest thought for the newest, word for word: most of them are the same."""
        old = self._bags[0]
        self._bags.append(bag)
        window, baseline = self._window, self._baseline
        norm = dot = 0
        pairs = list(zip_longest(bag, old, fillvalue=_NOTHING))
        for comes, goes in compress(pairs, starmap(ne, pairs)):
            more, less = window[comes], window[goes] - 1
            window[comes], window[goes] = more + 1, less
            norm += more - less
            dot += baseline[comes] - baseline[goes]
        self._norm += 2 * norm
        self._dot += dot
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


class _Words(dict[str, int]):
    """Word → bucket, remembered; shared by all episodes of the process, since it depends on the word alone."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _CACHED_WORDS:
            self.clear()
        self[word] = bucket = _bucket(word)
        return bucket


class _Sentences(dict[str, Bag]):
    """Sentence → buckets of its words that count, likewise: agents repeat themselves."""

    def __missing__(self, sentence: str) -> Bag:
        if len(self) >= _CACHED_SENTENCES:
            self.clear()
        self[sentence] = bag = tuple(filter(None, map(_bucket_of, sentence.split())))
        return bag


def _bucket(word: str) -> int:
    """CRC-32 of the word's letters as a number from 1 to 512, the same everywhere; 0 for a word that is left out."""
    letters = word.translate(_OTHERS) if word.isascii() else "".join(filter(str.isalpha, word))
    if len(letters) < SHORTEST_WORD:
        return _NOTHING
    return 1 + zlib.crc32(letters.encode("utf-8", "backslashreplace")) % _BUCKETS


_bucket_of = _Words().__getitem__
_buckets_of = _Sentences().__getitem__
