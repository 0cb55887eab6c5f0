"""Sampling of rows from a stream: reservoir sampling, and held-out rows by hash; deterministic, in bounded memory."""

import hashlib
import heapq
import random
from typing import final

from regard.data.spaces import normalized

LONGEST_TEXT = 1000  # characters of a sampled text, which bounds the memory


def text_hash(text: str) -> int:
    """A 64-bit hash of a text, which ignores case, spaces and invisible characters."""
    plain = normalized(text.casefold())
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "big")


@final
class Sample:
    """A uniform random sample of pairs of texts from a stream (reservoir sampling).

    Args:
        size: maximum number of pairs.

    Source: Vitter 1985, Random sampling with a reservoir, algorithm R.
    """

    def __init__(self, size: int) -> None:
        self._size, self._seen = size, 0
        self._random = random.Random(0)
        self._pairs: list[tuple[str, str]] = []

    def add(self, source: str, target: str) -> None:
        """Add a pair of the stream."""
        self._seen += 1
        pair = source[:LONGEST_TEXT], target[:LONGEST_TEXT]
        if len(self._pairs) < self._size:
            self._pairs.append(pair)
        elif (place := self._random.randrange(self._seen)) < self._size:
            self._pairs[place] = pair

    @property
    def texts(self) -> list[str]:
        """Sources and targets of the sampled pairs."""
        return [text for pair in self._pairs for text in pair]


@final
class HeldOut:
    """Held-out sources: those with the smallest hashes, so that adding rows changes few of them.

    Args:
        max_sources: maximum number of sources to remember.
    """

    def __init__(self, max_sources: int) -> None:
        self._max_sources = max_sources
        self._rows: dict[int, int] = {}  # number of rows by hash, of the smallest hashes so far
        self._largest_first: list[int] = []  # the same hashes, negated, as a heap
        self._other_sources = False

    def add(self, key: int) -> None:
        """Count a row, by the hash of its source."""
        if key in self._rows:
            self._rows[key] += 1
            return
        if len(self._rows) == self._max_sources:
            self._other_sources = True
            if key > -self._largest_first[0]:
                return
            # It can be dropped for good: from now on there are `max_sources` smaller ones.
            del self._rows[-heapq.heapreplace(self._largest_first, -key)]
        else:
            heapq.heappush(self._largest_first, -key)
        self._rows[key] = 1

    def choose(self, rows: int) -> frozenset[int]:
        """Hashes of the held-out sources: at most this number of rows, and at least one source if there are several."""
        chosen, total = set(), 0
        for key in sorted(self._rows):
            if total + self._rows[key] <= rows:
                chosen.add(key)
                total += self._rows[key]
        if not chosen and (len(self._rows) > 1 or self._other_sources):
            chosen = {min(self._rows, key=self._rows.__getitem__)}
        return frozenset(chosen)
