"""Attention patterns: which keys a query may attend to.

A pattern is defined by `visible`: True where attention is allowed. Patterns combine with & | ~. `key_ranges` bounds
the visible keys of a block of queries, possibly loosely: a backend skips keys outside these ranges and evaluates
`visible` only for keys that part of the block may see. The patterns of this file depend on positions alone, those of
`block_pattern.py` on a layout of blocks, and those of `sequence_pattern.py` on data about each sequence.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from typing import final

import numpy as np
import torch
from torch import Tensor

from regard.attention.check import check_integer, is_integer, show
from regard.attention.engine.draw import shade
from regard.attention.patterns.intervals import FAR, Intervals
from regard.attention.patterns.schedule import Blocks, KeyRanges, Schedule
from regard.attention.value import Value, axis, has_tensors, slice_value, value
from regard.errors import ConfigError, ShapeError

MAX_SHOWN = 8  # positions listed in a repr


class Pattern(Value, ABC):
    """Base class of the patterns."""

    @abstractmethod
    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        """Boolean mask of the pattern, True = may attend.

        Args:
            query_BL: query positions, (B or 1, L).
            key_S: key positions, (S,).

        Returns:
            Booleans that broadcast to (B, H, L, S).
        """

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        """Key positions that some query of each block may see, and key positions that every query of it sees."""
        return KeyRanges(Intervals.everything(len(blocks)), Intervals.nothing(len(blocks)))

    @property
    def lookback(self) -> int | None:
        """Maximum distance from a query back to a visible key; None for no bound."""
        return None

    def check(self, query_start: int | None, num_queries: int, key_start: int, num_keys: int) -> None:
        """Raise ShapeError if the pattern does not cover these positions; `query_start` None: one per sequence."""

    def __bool__(self) -> bool:
        raise ConfigError(f"{self} has no truth value; combine patterns with & | ~ instead of `and`, `or`, `not`")

    def __and__(self, other: "Pattern") -> "Pattern":
        return And(self, other)

    def __or__(self, other: "Pattern") -> "Pattern":
        return Or(self, other)

    def __invert__(self) -> "Pattern":
        return Not(self)

    def _repr_html_(self) -> str:
        from regard.attention.engine.html import pattern_html  # html.py imports this module

        return pattern_html(self)

    @final
    def schedule(
        self, queries: int, keys: int, *, query_start: int | Tensor | None = None, key_start: int = 0, block: int = 128
    ) -> Schedule:
        """Nonempty tiles of the score matrix.

        Args:
            queries: L, number of queries.
            keys: S, number of keys.
            query_start: position of the first query, or integers (B,), one for each sequence; by default the last
                query has the position of the last key.
            key_start: position of the first key.
            block: number of rows in a block.

        Returns:
            The schedule, cached if the pattern holds no tensor.

        Raises:
            ShapeError: a count below 1, or positions or sizes that the pattern does not cover.
        """
        query_start = _query_start(self, queries, keys, query_start, key_start)
        if isinstance(query_start, Tensor):
            starts = (int(query_start.min()), int(query_start.max()))
        else:
            starts = (query_start, query_start)
        build = build_schedule if has_tensors(self) else _cached_schedule
        return build(self, queries, keys, block, starts, key_start)

    @final
    def density(self, queries: int, keys: int, *, query_start: int | Tensor | None = None, key_start: int = 0) -> float:
        """Fraction of visible (query, key) pairs, from 0 to 1, averaged over heads and sequences.

        Args:
            queries: L, number of queries.
            keys: S, number of keys.
            query_start: position of the first query; by default the last query has the position of the last key.
            key_start: position of the first key.

        Returns:
            The exact fraction; `visible` is evaluated in mixed tiles only.

        Raises:
            ShapeError: a count below 1, or positions or sizes that the pattern does not cover.
        """
        schedule = self.schedule(queries, keys, query_start=query_start, key_start=key_start)
        query_BL, key_S = positions(queries, keys, query_start, key_start, _device(self))
        pairs = float(schedule.full_pairs)
        for rows, runs in schedule:
            for start, stop, full in runs:
                if not full:
                    part = slice_value(self, rows, slice(start, stop))
                    visible = part.visible(query_BL[:, rows], key_S[start:stop])
                    pairs += float(visible.double().mean()) * (rows.stop - rows.start) * (stop - start)
        return pairs / (queries * keys)

    @final
    def draw(self, queries: int, keys: int, *, query_start: int | Tensor | None = None, key_start: int = 0) -> str:
        """Draw the pattern as text: one line per query, █ for a visible key.

        Args:
            queries: L, number of lines.
            keys: S, number of columns.
            query_start: position of the first query; by default the last query has the position of the last key.
            key_start: position of the first key.

        Returns:
            The text; for the first sequence and head if they differ.

        Raises:
            ShapeError: a count below 1, or positions or sizes that the pattern does not cover.

        >>> print(Causal().draw(queries=3, keys=5))
        ███··
        ████·
        █████
        """
        query_start = _query_start(self, queries, keys, query_start, key_start)
        _check_extent(self, queries, keys, 1, query_start, key_start)
        query_BL, key_S = positions(queries, keys, query_start, key_start, _device(self))
        visible = self.visible(query_BL, key_S)
        picture = visible.reshape(-1, *visible.shape[-2:])[0].expand(queries, keys)
        return shade(picture)


def positions(
    queries: int, keys: int, query_start: int | Tensor | None, key_start: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Query positions (B or 1, L) and key positions (S,)."""
    if query_start is None:
        query_start = key_start + keys - queries
    start = query_start.to(device)[:, None] if isinstance(query_start, Tensor) else query_start
    query_BL = torch.arange(queries, device=device)[None] + start
    return query_BL, torch.arange(keys, device=device) + key_start


@final
@value
class Full(Pattern):
    """Every query sees every key.

    >>> print(Full().draw(queries=2, keys=4))
    ████
    ████
    """

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return torch.ones(1, 1, query_BL.shape[1], key_S.shape[0], dtype=torch.bool, device=key_S.device)

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        everything = Intervals.everything(len(blocks))
        return KeyRanges(everything, everything)


@final
@value
class Causal(Pattern):
    """A query sees the keys up to its own position: key <= query.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.3.

    >>> print(Causal().draw(queries=4, keys=4))
    █···
    ██··
    ███·
    ████
    """

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return key_S <= query_BL[:, None, :, None]

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        return _window_ranges(blocks, None, 0)


@final
@value
class SlidingWindow(Pattern):
    """Sliding window: keys at most `left` before and `right` after the query's position, which is always visible.

    Args:
        left: number of keys before, >= 0; None for all.
        right: number of keys after, >= 0; None for all.

    Raises:
        ConfigError: a negative bound.

    Source: Beltagy et al. 2020, arXiv 2004.05150, section 3.1.

    >>> print(SlidingWindow(left=2, right=0).draw(queries=4, keys=4))
    █···
    ██··
    ███·
    ·███
    """

    left: int | None = None
    right: int | None = None

    def __post_init__(self) -> None:
        _check_window(self, self.left, self.right)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        distance = query_BL[:, None, :, None] - key_S
        return within(distance, self.left, self.right)

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        return _window_ranges(blocks, self.left, self.right)

    @property
    def lookback(self) -> int | None:
        return self.left


@final
@value
class Dilated(Pattern):
    """Dilated window: every `dilation`-th key, `left` of them before and `right` after the query's position.

    Args:
        dilation: distance between neighboring visible keys, >= 1.
        left: number of keys before, >= 0; None for all.
        right: number of keys after, >= 0; None for all.

    Raises:
        ConfigError: a dilation below 1 or a negative bound.

    Source: Beltagy et al. 2020, arXiv 2004.05150, section 3.1, "Dilated Sliding Window".

    >>> print(Dilated(dilation=2, left=1, right=1).draw(queries=5, keys=5))
    █·█··
    ·█·█·
    █·█·█
    ·█·█·
    ··█·█
    """

    dilation: int
    left: int | None = None
    right: int | None = None

    def __post_init__(self) -> None:
        check_integer("Dilated", "dilation", self.dilation, 1, " (1 is a plain window)")
        _check_window(self, self.left, self.right)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        distance = query_BL[:, None, :, None] - key_S
        return within(distance, self._distance(self.left), self._distance(self.right)) & (distance % self.dilation == 0)

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        some, every = _window_ranges(blocks, self._distance(self.left), self._distance(self.right))
        return KeyRanges(some, every if self.dilation == 1 else Intervals.nothing(len(blocks)))

    @property
    def lookback(self) -> int | None:
        return self._distance(self.left)

    def _distance(self, count: int | None) -> int | None:
        return None if count is None else min(count * self.dilation, FAR)


@final
@value
class Strided(Pattern):
    """Keys whose distance from the query, before or after, is a multiple of `stride`.

    The strided attention of the source is `Causal() & (Strided(stride) | SlidingWindow(left=stride))`.

    Args:
        stride: the distance, >= 1.

    Raises:
        ConfigError: a stride below 1.

    Source: Child et al. 2019, arXiv 1904.10509, section 4.2.

    >>> print((Causal() & Strided(3)).draw(queries=5, keys=5))
    █····
    ·█···
    ··█··
    █··█·
    ·█··█
    """

    stride: int

    def __post_init__(self) -> None:
        check_integer("Strided", "stride", self.stride, 1)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return (query_BL[:, None, :, None] - key_S) % self.stride == 0

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        everything = Intervals.everything(len(blocks))
        return KeyRanges(everything, everything if self.stride == 1 else Intervals.nothing(len(blocks)))


@final
@value
class GlobalTokens(Pattern):
    """Global tokens: they see every key and are seen by every query; no other pair is visible.

    Args:
        positions: the global positions, >= 0, an iterable of ints: `GlobalTokens([0])`, `GlobalTokens(range(64))`.

    Raises:
        ConfigError: a position that is negative or not an integer.

    Source: Beltagy et al. 2020, arXiv 2004.05150, section 3.1, "Global Attention".

    >>> print(GlobalTokens([1]).draw(queries=3, keys=3))
    ·█·
    ███
    ·█·
    """

    positions: Iterable[int]

    def __post_init__(self) -> None:
        try:
            ordered = tuple(sorted({operator.index(p) for p in self.positions}))
        except TypeError as error:
            raise ConfigError(
                f"GlobalTokens: positions={show(self.positions)}; expected integers, as in GlobalTokens([0, 5])"
            ) from error
        if ordered and not 0 <= ordered[0] <= ordered[-1] < FAR:
            raise ConfigError(
                f"GlobalTokens: positions from {ordered[0]} to {ordered[-1]}; expected positions >= 0 and below 2^62"
            )
        object.__setattr__(self, "positions", ordered)

    def __repr__(self) -> str:
        ranges = self._ranges()
        if len(tuple(self.positions)) <= MAX_SHOWN:
            return f"GlobalTokens(positions={self.positions})"
        if len(ranges) == 1:
            return f"GlobalTokens(positions=range({ranges[0][0]}, {ranges[0][1]}))"
        parts = [str(a) if b == a + 1 else f"*range({a}, {b})" for a, b in ranges]
        parts = parts if len(parts) <= MAX_SHOWN else [*parts[: MAX_SHOWN - 1], "...", parts[-1]]
        return f"GlobalTokens(positions=({', '.join(parts)}))"

    def _ranges(self) -> list[tuple[int, int]]:
        """The positions as disjoint ranges start <= position < stop."""
        ranges: list[tuple[int, int]] = []
        for p in self.positions:
            if ranges and ranges[-1][1] == p:
                ranges[-1] = (ranges[-1][0], p + 1)
            else:
                ranges.append((p, p + 1))
        return ranges

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        def is_global(x: Tensor) -> Tensor:
            mask = torch.zeros_like(x, dtype=torch.bool)
            for start, stop in self._ranges():
                mask = mask | ((start <= x) & (x < stop))
            return mask

        return is_global(query_BL)[:, None, :, None] | is_global(key_S)

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        ordered, ranges = np.array(tuple(self.positions), dtype=np.int64), self._ranges()
        count = np.searchsorted(ordered, blocks.last + 1) - np.searchsorted(ordered, blocks.first)
        keys = Intervals.of([r[0] for r in ranges], [r[1] for r in ranges], len(blocks))
        everything = Intervals.everything(len(blocks))
        # With a query_start per sequence, a block spans more positions than rows; `every` is then a subset.
        return KeyRanges(
            everything.where(count > 0, keys), everything.where(count == blocks.last + 1 - blocks.first, keys)
        )


@final
@value
class And(Pattern):
    """Intersection of two patterns: `left & right`."""

    left: Pattern
    right: Pattern

    def __post_init__(self) -> None:
        _check_patterns("&", self.left, self.right)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return self.left.visible(query_BL, key_S) & self.right.visible(query_BL, key_S)

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        left, right = self.left.key_ranges(blocks), self.right.key_ranges(blocks)
        return KeyRanges(left.some & right.some, left.every & right.every)

    @property
    def lookback(self) -> int | None:
        bounds = [b for b in (self.left.lookback, self.right.lookback) if b is not None]
        return min(bounds, default=None)

    def check(self, query_start: int | None, num_queries: int, key_start: int, num_keys: int) -> None:
        self.left.check(query_start, num_queries, key_start, num_keys)
        self.right.check(query_start, num_queries, key_start, num_keys)

    def __repr__(self) -> str:
        return " & ".join(f"({p})" if isinstance(p, Or) else str(p) for p in (self.left, self.right))


@final
@value
class Or(Pattern):
    """Union of two patterns: `left | right`."""

    left: Pattern
    right: Pattern

    def __post_init__(self) -> None:
        _check_patterns("|", self.left, self.right)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return self.left.visible(query_BL, key_S) | self.right.visible(query_BL, key_S)

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        left, right = self.left.key_ranges(blocks), self.right.key_ranges(blocks)
        return KeyRanges(left.some | right.some, left.every | right.every)

    @property
    def lookback(self) -> int | None:
        left, right = self.left.lookback, self.right.lookback
        return None if left is None or right is None else max(left, right)

    def check(self, query_start: int | None, num_queries: int, key_start: int, num_keys: int) -> None:
        self.left.check(query_start, num_queries, key_start, num_keys)
        self.right.check(query_start, num_queries, key_start, num_keys)

    def __repr__(self) -> str:
        return f"{self.left} | {self.right}"


@final
@value
class Not(Pattern):
    """Complement of a pattern: `~pattern`."""

    pattern: Pattern

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return ~self.pattern.visible(query_BL, key_S)

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        some, every = self.pattern.key_ranges(blocks)
        return KeyRanges(~every, ~some)

    def check(self, query_start: int | None, num_queries: int, key_start: int, num_keys: int) -> None:
        self.pattern.check(query_start, num_queries, key_start, num_keys)

    def __repr__(self) -> str:
        return f"~({self.pattern})" if isinstance(self.pattern, And | Or) else f"~{self.pattern}"


def _check_patterns(sign: str, left: object, right: object) -> None:
    for side in (left, right):
        if not isinstance(side, Pattern):
            raise ConfigError(
                f"{show(left)} {sign} {show(right)}: {show(side)} is not a pattern; wrap a boolean tensor in "
                "Mask(tensor), True = may attend"
            )


def within(distance: Tensor, left: int | None, right: int | None) -> Tensor:
    """Whether -right <= distance <= left; None for no bound."""
    if left is None:
        return torch.ones_like(distance, dtype=torch.bool) if right is None else distance >= -right
    return distance <= left if right is None else (distance <= left) & (distance >= -right)


def _window_ranges(blocks: Blocks, left: int | None, right: int | None) -> KeyRanges:
    """Key ranges of a window around each query."""
    far_left, far_right = (FAR if b is None else min(b, FAR) for b in (left, right))
    n, first, last = len(blocks), blocks.first[:, None], blocks.last[:, None]
    some = Intervals.of(first - far_left, last + 1 + far_right, n)
    return KeyRanges(some, Intervals.of(last - far_left, first + 1 + far_right, n))


def _check_window(pattern: Pattern, left: int | None, right: int | None) -> None:
    for name, bound in (("left", left), ("right", right)):
        if bound is not None:
            check_integer(type(pattern).__name__, name, bound, 0, " keys, or None for no bound")


def build_schedule(
    pattern: Pattern, queries: int, keys: int, block: int, starts: tuple[int, int], key_start: int
) -> Schedule:
    """Schedule of a pattern for query starts between `starts`, without a cache."""
    _check_extent(pattern, queries, keys, block, starts[0] if starts[0] == starts[1] else None, key_start)
    blocks = Blocks.cut(queries, keys, block, starts, key_start)
    return Schedule.of(pattern.key_ranges(blocks), blocks)


def _query_start(
    pattern: Pattern, queries: int, keys: int, query_start: int | Tensor | None, key_start: int
) -> int | Tensor:
    """Position of the first query; by default the last query has the position of the last key."""
    for name, x in (("queries", queries), ("keys", keys), ("key_start", key_start)):
        if not is_integer(x):
            raise ShapeError(f"{pattern}: {name}={show(x)} must be an integer")
    if query_start is None:
        return key_start + keys - queries
    integral = not query_start.is_floating_point() if isinstance(query_start, Tensor) else is_integer(query_start)
    if not integral:
        raise ShapeError(
            f"{pattern}: query_start={show(query_start)} must be an integer, or an integer tensor (batch,)"
        )
    return query_start


def _check_extent(
    pattern: Pattern, queries: int, keys: int, block: int, query_start: int | Tensor | None, key_start: int
) -> None:
    """Raise ShapeError unless the pattern covers these positions; `query_start` may be None for one per sequence."""
    for name, count in (("queries", queries), ("keys", keys), ("block", block)):
        if not is_integer(count) or count < 1:
            raise ShapeError(f"{pattern}: {name}={show(count)} must be an integer >= 1")
    pattern.check(None if isinstance(query_start, Tensor) else query_start, queries, key_start, keys)
    for field in pattern.tensor_fields:
        for letter, expected in (("L", queries), ("S", keys)):
            dim = axis(field.tensor, field.axes, letter)
            if dim is not None and field.tensor.shape[dim] not in (1, expected):
                raise ShapeError(
                    f"{field.path} has shape {tuple(field.tensor.shape)}, but the score matrix has {queries} "
                    f"queries x {keys} keys"
                )


_cached_schedule = lru_cache(maxsize=256)(build_schedule)


def _device(pattern: Pattern) -> torch.device:
    fields = pattern.tensor_fields
    return fields[0].tensor.device if fields else torch.device("cpu")
