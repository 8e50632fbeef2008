"""How far an agent's stated reasoning has drifted from how it reasoned at first."""

from __future__ import annotations

import math
import zlib
from collections import deque
from itertools import chain, zip_longest

BASELINE_STEPS = 50
WINDOW = 20
FEWEST = 10
"""Steps with a stated thought that the window must hold before it is judged."""
SHORTEST_WORD = 4
MAX_CHARACTERS = 600
"""Characters of a thought that count: about 100 words."""

_BUCKETS = 512
_NOTHING = 0
_CACHED_WORDS = 1 << 15
_CACHED_SENTENCES = 1 << 10

_KEPT = bytes(ord(" " if chr(code).isspace() else chr(code).lower()) for code in range(128)) + bytes(128)
_LEFT_OUT = bytes(code for code in range(256) if not chr(_KEPT[code]).isalpha() and chr(_KEPT[code]) not in " .")

Bag = tuple[int, ...]
"""The buckets of the words of a sentence."""


class Divergence:
    """Cosine between the hashed bag-of-words of the last 20 steps and that of the first 50 healthy ones.

    A healthy step has a parsed completion, a successful call and a stated thought; that doesn't depend on any
    threshold, so that a strict one catches whatever a lenient one does. Words are runs between blanks, in lower case,
    of which only the letters count: figures change with every order and say nothing. Nor do words of fewer than four
    letters: any two English texts share "the", "of" and "to", which would hide that they share nothing else. Dot
    product and norm are kept up to date in integers, so a step costs O(its words) and nothing drifts.
    """

    __slots__ = ("_baseline", "_dot", "_healthy", "_norm", "_norm_baseline", "_stated", "_thoughts", "_window")

    def __init__(self) -> None:
        self._thoughts: deque[tuple[Bag, ...]] = deque([()] * WINDOW, maxlen=WINDOW)
        self._baseline = [0] * (_BUCKETS + 1)
        self._window = [0] * (_BUCKETS + 1)
        self._healthy = self._stated = self._dot = self._norm = self._norm_baseline = 0

    def update(self, thought: str, healthy: bool) -> float | None:
        """Takes one step's thought. The cosine, in [0, 1]; None while there is too little to compare."""
        bags = tuple(map(_buckets_of, _sentences(thought[:MAX_CHARACTERS])))
        self._slide(bags)
        if self._healthy < BASELINE_STEPS:
            if healthy and any(bags):
                self._learn(bags)
            return None
        if self._stated < FEWEST:
            return None
        norm = self._norm - self._window[_NOTHING] ** 2
        return self._dot / math.sqrt(norm * self._norm_baseline)

    def _slide(self, bags: tuple[Bag, ...]) -> None:
        """Exchanges the oldest thought for the newest, word for word: most of them are the same."""
        old = self._thoughts[0]
        self._thoughts.append(bags)
        window, baseline = self._window, self._baseline
        norm = dot = 0
        for come, go in zip_longest(bags, old, fillvalue=()):
            if come == go:
                continue
            for comes, goes in zip_longest(come, go, fillvalue=_NOTHING):
                if comes != goes:
                    more, less = window[comes], window[goes] - 1
                    window[comes], window[goes] = more + 1, less
                    norm += more - less
                    dot += baseline[comes] - baseline[goes]
        self._norm += 2 * norm
        self._dot += dot
        self._stated += any(bags) - any(old)

    def _learn(self, bags: tuple[Bag, ...]) -> None:
        """Adds a healthy step to the baseline, and completes it with the 50th."""
        baseline = self._baseline
        for bucket in chain.from_iterable(bags):
            baseline[bucket] += 1
        self._healthy += 1
        if self._healthy == BASELINE_STEPS:
            self._norm_baseline = sum(n * n for n in baseline)
            self._dot = sum(n * m for n, m in zip(baseline, self._window, strict=True))


def _sentences(thought: str) -> list[bytes] | list[str]:
    """Its sentences in lower case; those of ASCII without what is neither letter, blank nor full stop."""
    if thought.isascii():
        return thought.encode().translate(_KEPT, _LEFT_OUT).split(b". ")
    return thought.lower().split(". ")


class _Words(dict[str | bytes, int]):
    """Word → bucket, remembered; shared by all episodes of the process, since it depends on the word alone."""

    def __missing__(self, word: str | bytes) -> int:
        if len(self) >= _CACHED_WORDS:
            self.clear()
        self[word] = bucket = _bucket(word)
        return bucket


class _Sentences(dict[str | bytes, Bag]):
    """Sentence → buckets of its words that count, likewise: agents repeat themselves, but for figures."""

    def __missing__(self, sentence: str | bytes) -> Bag:
        if len(self) >= _CACHED_SENTENCES:
            self.clear()
        self[sentence] = bag = tuple(filter(None, map(_bucket_of, sentence.split())))
        return bag


def _bucket(word: str | bytes) -> int:
    """CRC-32 of the word's letters as a number from 1 to 512, the same everywhere; 0 for a word that is left out."""
    letters = "".join(filter(str.isalpha, word if isinstance(word, str) else word.decode()))
    if len(letters) < SHORTEST_WORD:
        return _NOTHING
    return 1 + zlib.crc32(letters.encode("utf-8", "backslashreplace")) % _BUCKETS


_bucket_of = _Words().__getitem__
_buckets_of = _Sentences().__getitem__
