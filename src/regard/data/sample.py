"""Some of many rows, chosen while they pass by: the same ones every time, in memory that does not grow."""

import hashlib
import heapq
import random
from typing import final

from regard.data.spaces import normalized

LONGEST_TEXT = 1000  # characters of a sampled text; more would let few rows fill the memory


def text_hash(text: str) -> int:
    """64 bits that are equal for texts that differ in case, spaces and invisible characters alone."""
    plain = normalized(text.casefold())
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "big")


@final
class Sample:
    """Up to `size` pairs of texts, each of those that pass by with the same chance (reservoir sampling).

    Args:
        size: pairs that are kept.

    Source: Vitter 1985, Random sampling with a reservoir, algorithm R.
    """

    def __init__(self, size: int) -> None:
        self._size, self._seen = size, 0
        self._random = random.Random(0)
        self._pairs: list[tuple[str, str]] = []

    def add(self, source: str, target: str) -> None:
        """Let one more pair pass by."""
        self._seen += 1
        pair = source[:LONGEST_TEXT], target[:LONGEST_TEXT]
        if len(self._pairs) < self._size:
            self._pairs.append(pair)
        elif (place := self._random.randrange(self._seen)) < self._size:
            self._pairs[place] = pair

    @property
    def texts(self) -> list[str]:
        """Sources and targets of the pairs kept."""
        return [text for pair in self._pairs for text in pair]


@final
class HeldOut:
    """The sources with the smallest hashes: rows that are added later change few of them.

    Args:
        most: sources that are kept in mind.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: dict[int, int] = {}  # rows by hash, of the smallest hashes so far
        self._largest_first: list[int] = []  # the same hashes, negative, as a heap
        self._other_sources = False

    def add(self, key: int) -> None:
        """Count one more row, by the hash of its source."""
        if key in self._rows:
            self._rows[key] += 1
            return
        if len(self._rows) == self._most:
            self._other_sources = True
            if key > -self._largest_first[0]:
                return
            # Never to come back: from now on there are `most` smaller ones.
            del self._rows[-heapq.heapreplace(self._largest_first, -key)]
        else:
            heapq.heappush(self._largest_first, -key)
        self._rows[key] = 1

    def choose(self, rows: int) -> frozenset[int]:
        """Hashes of sources that have at most so many rows together; at least one, unless there is only one source."""
        chosen, total = set(), 0
        for key in sorted(self._rows):
            if total + self._rows[key] <= rows:
                chosen.add(key)
                total += self._rows[key]
        if not chosen and (len(self._rows) > 1 or self._other_sources):
            chosen = {min(self._rows, key=self._rows.__getitem__)}
        return frozenset(chosen)
