"""Key-value cache for decoding."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from regard import kernels
from regard.attention.check import check_integer, is_dense, show
from regard.attention.engine.tracing import is_traced
from regard.attention.patterns.pattern import Pattern
from regard.errors import ConfigError, ShapeError

SLACK = 64  # minimum spare positions of a new buffer, so that it is not reallocated at every step
SMALL = 1 << 12  # elements below which PyTorch's copy is as fast as the kernel


@final
class KeyValueCache:
    """Key-value cache for decoding: keys (B, G, S, E) and values (B, G, S, V) of previous positions.

    Without `lookback`, all positions are stored, and the buffer doubles when it is full. With `lookback`, the cache is
    a rolling buffer of the positions that later queries may still see, so memory depends on the window and not on the
    length. For inference only: the stored tensors carry no gradient.

    Args:
        lookback: maximum distance, in positions, from a query back to a key that it may see, >= 0; None for no bound.
        capacity: number of positions to allocate at first, >= 1, for a length that is known beforehand; the buffer
            still grows beyond it. Only without `lookback`.

    Raises:
        ConfigError: a negative lookback, a capacity below 1, or both of them.

    >>> cache = rg.KeyValueCache.for_pattern(rg.Causal() & rg.SlidingWindow(left=2))
    >>> prompt = torch.randn(1, 2, 5, 4)
    >>> keys, values, key_start = cache.append(prompt, prompt)
    >>> step = torch.randn(1, 2, 1, 4)
    >>> keys, values, key_start = cache.append(step, step)
    >>> keys.shape, key_start
    (torch.Size([1, 2, 3, 4]), 3)
    """

    def __init__(self, lookback: int | None = None, *, capacity: int | None = None) -> None:
        if lookback is not None:
            check_integer("KeyValueCache", "lookback", lookback, 0, " keys, or None to keep all of them")
        if capacity is not None:
            check_integer("KeyValueCache", "capacity", capacity, 1, " positions, or None")
        if lookback is not None and capacity is not None:
            raise ConfigError(
                f"KeyValueCache: capacity={capacity} cannot be combined with lookback={lookback}, which already bounds "
                "the memory; give one of them"
            )
        self._lookback = lookback
        self._capacity = capacity or 0
        self._key: Tensor | None = None  # buffers (B, G, capacity, E) and (B, G, capacity, V)
        self._value: Tensor | None = None
        self._stop = 0  # end of the stored positions in the buffers
        self._length = 0

    @staticmethod
    def for_pattern(pattern: Pattern, *, capacity: int | None = None) -> "KeyValueCache":
        """Cache that stores the positions that a pattern allows, and no more.

        Args:
            pattern: which keys a query may attend to; `pattern.lookback` is the lookback of the cache.
            capacity: as for `KeyValueCache`; ignored if the pattern has a lookback.

        Returns:
            An empty cache.

        Raises:
            ConfigError: a capacity below 1.
        """
        lookback = pattern.lookback
        return KeyValueCache(lookback, capacity=capacity if lookback is None else None)

    @property
    def lookback(self) -> int | None:
        """Maximum distance from a query back to a visible key; None if all positions are stored."""
        return self._lookback

    @property
    def length(self) -> int:
        """Number of positions appended so far, stored or not; also the position of the next one."""
        return self._length

    @property
    def bytes(self) -> int:
        """Size of the buffers, in bytes."""
        return sum(x.nbytes for x in (self._key, self._value) if x is not None)

    def __repr__(self) -> str:
        return f"KeyValueCache(lookback={self._lookback}, length={self._length}, bytes={self.bytes})"

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, int]:
        """Append keys and values of new positions; returns all keys and values that their queries may see.

        `attend(query, keys, values, pattern=pattern, key_start=key_start)` then computes the attention of the new
        positions: by default the last query has the position of the last key.

        Args:
            key: (B, G, N, E), N new positions: 1 in a decoding step, many in prefill, or 0 to read a nonempty cache, as
                cross-attention does.
            value: (B, G, N, V).

        Returns:
            keys (B, G, S, E), values (B, G, S, V) and the position of the first key. They may be views of the cache's
            buffers, which later calls of `append` don't change; don't write into them.

        Raises:
            ShapeError: shapes, dtypes or devices that differ between key and value or from the cache.
        """
        self._check(key, value)
        keys, values, key_start = self.room(key.shape, value.shape, key)
        first = keys.shape[2] - key.shape[2]
        with torch.inference_mode(False), torch.no_grad():
            _copy(keys[:, :, first:], key)
            _copy(values[:, :, first:], value)
            self._shrink()
        return keys, values, key_start

    def room(self, key: Sequence[int], value: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor, int]:
        """As `append`, but leaves the last N positions uninitialized for the caller to write; nothing is checked.

        Args:
            key: sizes (B, G, N, E), which must match the cache.
            value: sizes (B, G, N, V).
            like: tensor with their dtype and device.

        Returns:
            As `append`.
        """
        first, stop = self.reserve(key, value, like)
        with torch.inference_mode(False), torch.no_grad():
            keys, values = (x[:, :, first:stop] for x in self.buffers)
        self.advance(key[2])
        return keys, values, self._length - (stop - first)

    def reserve(self, key: Sequence[int], value: Sequence[int], like: Tensor) -> tuple[int, int]:
        """Make room for N more positions, which `advance` then adds.

        Args:
            key, value, like: as for `room`.

        Returns:
            Where in `buffers` the positions start and end that the new ones may see, themselves included.
        """
        new = key[2]
        old = self._stop if self._lookback is None else min(self._stop, self._lookback)  # positions still visible
        if self._key is None or self._value is None or self._stop + new > self._key.shape[2]:
            # Not inference tensors, which could only be written under torch.inference_mode.
            with torch.inference_mode(False), torch.no_grad():
                self._key = self._reallocated(self._key, key, like, old)
                self._value = self._reallocated(self._value, value, like, old)
            self._stop = old
        return self._stop - old, self._stop + new

    def advance(self, count: int) -> None:
        """Add positions that `reserve` has made room for, and that have been written."""
        self._stop += count
        self._length += count

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """The memory of keys and values, (B, G, capacity, E) and (B, G, capacity, V).

        Raises:
            ShapeError: the cache is empty.
        """
        if self._key is None or self._value is None:
            raise ShapeError("KeyValueCache.buffers: the cache is empty; `append` keys and values first")
        return self._key, self._value

    def goes_with(self, sizes: tuple[int, int, int], like: Tensor) -> bool:
        """Whether keys and values of sizes (B, G, E), with the dtype and device of `like`, match the cache."""
        return all(
            x is None or ((*x.shape[:2], x.shape[3]) == sizes and x.dtype is like.dtype and x.device == like.device)
            for x in (self._key, self._value)
        )

    @property
    def contents(self) -> tuple[Tensor, Tensor, int]:
        """Stored keys and values, and the position of the first key; as `append` of 0 positions.

        Raises:
            ShapeError: the cache is empty.
        """
        if self._key is None or self._value is None:
            raise ShapeError("KeyValueCache.contents: the cache is empty; `append` keys and values first")
        count = self._stop if self._lookback is None else min(self._stop, self._lookback)
        keys, values = (x[:, :, self._stop - count : self._stop] for x in (self._key, self._value))
        return keys, values, self._length - count

    @contextmanager
    def appended(self, key: Tensor, value: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Context manager around `append`: an exception in the block restores the cache."""
        before, done = dict(vars(self)), False  # append writes only after the stored positions
        try:
            yield self.append(key, value)
            done = True
        finally:
            if not done:
                vars(self).update(before)

    def select(self, rows: Tensor) -> None:
        """Select and reorder sequences of the batch, as beam search does.

        Args:
            rows: indices (B',) of sequences, repetitions allowed; or booleans (B,), True = keep.

        Raises:
            ShapeError: rows of another shape or dtype, out of range, or that select no sequence.

        >>> cache = rg.KeyValueCache()
        >>> keys, _, _ = cache.append(torch.zeros(3, 1, 2, 4), torch.zeros(3, 1, 2, 4))
        >>> cache.select(torch.tensor([2, 2, 0, 1]))
        >>> cache.append(torch.ones(4, 1, 1, 4), torch.ones(4, 1, 1, 4))[0].shape
        torch.Size([4, 1, 3, 4])
        """
        if not is_dense(rows):
            raise ShapeError(f"KeyValueCache.select: rows={show(rows)} is not a tensor; wrap it in torch.tensor(...)")
        if self._key is None or self._value is None:
            return
        batch = self._key.shape[0]
        if rows.dtype == torch.bool and rows.shape == (batch,):
            rows = rows.nonzero().squeeze(-1)
        if rows.dim() != 1 or not rows.numel() or rows.is_floating_point() or rows.dtype == torch.bool:
            raise ShapeError(
                f"KeyValueCache.select: rows is {rows.dtype} of shape {tuple(rows.shape)}; expected at least one index "
                f"of a sequence, integers of one dimension, or booleans ({batch},) of which one is True"
            )
        rows = rows.long()
        # On a GPU, reading the indices would synchronize; there the indexing kernel itself reports an invalid one.
        if rows.device.type == "cpu" and not 0 <= int(rows.min()) <= int(rows.max()) < batch:
            raise ShapeError(
                f"KeyValueCache.select: rows has indices from {int(rows.min())} to {int(rows.max())}, but the cache "
                f"holds {batch} sequences, 0 to {batch - 1}"
            )
        with torch.inference_mode(False), torch.no_grad():
            rows = rows.to(self._key.device, copy=True)
            self._key, self._value = (self._selected(x, rows) for x in (self._key, self._value))

    def overwrite(self, rows: Tensor, others: Tensor, *, first: int | None = None) -> None:
        """Overwrite sequences with copies of others, in place, and truncate the batch.

        `select` with all rows has the same effect but copies every sequence. Here tensors that `append` returned change
        too.

        Args:
            rows: indices (N,) of the sequences to overwrite, all different; on the device of the cache.
            others: indices (N,) of the sequences to copy, none of them in `rows`.
            first: the new batch size; None for no change.

        >>> cache = rg.KeyValueCache()
        >>> keys, _, _ = cache.append(torch.arange(3.0).view(3, 1, 1, 1), torch.zeros(3, 1, 1, 1))
        >>> cache.overwrite(torch.tensor([0]), torch.tensor([2]), first=2)
        >>> cache.contents[0].flatten()
        tensor([2., 1.])
        """
        if self._key is None or self._value is None:
            return
        with torch.inference_mode(False), torch.no_grad():
            positions = self._visible
            rows, others = rows.long().contiguous(), others.long().contiguous()
            for buffer in (self._key, self._value):
                _copy(buffer[:, :, positions], buffer[:, :, positions], rows, others)
            if first is not None and first != len(self._key):
                self._key, self._value = self._key[:first], self._value[:first]

    @property
    def _visible(self) -> slice:
        """Positions in the buffers that the next one may see."""
        return slice(0 if self._lookback is None else max(0, self._stop - self._lookback), self._stop)

    def _selected(self, buffer: Tensor, rows: Tensor) -> Tensor:
        """Buffer of the same capacity for the selected sequences; only stored positions are copied."""
        selected = buffer.new_empty(len(rows), *buffer.shape[1:])
        selected[:, :, : self._stop] = buffer[:, :, : self._stop].index_select(0, rows)
        return selected

    def _reallocated(self, buffer: Tensor | None, new: Sequence[int], like: Tensor, old: int) -> Tensor:
        """New buffer that starts with the last `old` positions; the old buffer may have views and is unchanged."""
        needed = old + new[2]
        if self._lookback is not None:
            capacity = max(needed, _rolling_capacity(self._lookback))
        elif buffer is None:
            capacity = max(needed + SLACK, self._capacity)
        else:
            capacity = max(needed, 2 * buffer.shape[2])
        reallocated = torch.empty(*new[:2], capacity, new[3], dtype=like.dtype, device=like.device)
        if buffer is not None:
            reallocated[:, :, :old] = buffer[:, :, self._stop - old : self._stop]
        return reallocated

    def _shrink(self) -> None:
        """Replace the large buffer of a long prompt by one of the size of the window."""
        if self._lookback is None or self._key is None or self._value is None:
            return
        if self._key.shape[2] <= _rolling_capacity(self._lookback):
            return
        old = min(self._lookback, self._stop)
        key, value = (self._reallocated(x, (*x.shape[:2], 0, x.shape[3]), x, old) for x in (self._key, self._value))
        self._key, self._value, self._stop = key, value, old

    def _check(self, key: Tensor, value: Tensor) -> None:
        """Raise ShapeError unless key and value match each other and the cache."""
        if not (is_dense(key) and is_dense(value)):
            raise ShapeError(f"KeyValueCache.append: key={show(key)}, value={show(value)}; expected dense tensors")
        if key.dim() != 4 or value.dim() != 4 or key.shape[:3] != value.shape[:3]:
            raise ShapeError(
                f"KeyValueCache.append: key {tuple(key.shape)}, value {tuple(value.shape)}; expected (batch, kv heads, "
                "new positions, head_dim), with equal sizes except head_dim"
            )
        if key.dtype != value.dtype or key.device != value.device:
            raise ShapeError(
                f"KeyValueCache.append: key is {key.dtype} on {key.device}, value {value.dtype} on {value.device}; "
                "expected one dtype and device"
            )
        if self._key is None or self._value is None:
            if 0 in (*key.shape[1:], value.shape[3]):
                raise ShapeError(
                    f"KeyValueCache.append: key {tuple(key.shape)}, value {tuple(value.shape)} for an empty cache; "
                    "expected every size except the batch to be at least 1"
                )
            return
        for name, new, old in (("key", key, self._key), ("value", value, self._value)):
            if (new.shape[:2], new.shape[3]) != (old.shape[:2], old.shape[3]):
                raise ShapeError(
                    f"KeyValueCache.append: {name} {tuple(new.shape)} does not match the cache, (batch, kv heads, "
                    f"positions, head_dim) = {(*old.shape[:2], self._length, old.shape[3])}; start a new cache for "
                    "another batch, or `select` the sequences to continue"
                )
            if new.dtype != old.dtype or new.device != old.device:
                raise ShapeError(
                    f"KeyValueCache.append: {name} is {new.dtype} on {new.device}, but the cache is {old.dtype} on "
                    f"{old.device}; use one autocast setting and device for all calls"
                )


def overwrite_all(caches: Sequence[KeyValueCache], rows: Tensor, others: Tensor) -> None:
    """`overwrite` of several caches of as many sequences, those of a model's layers, in one native call.

    Args:
        caches: of equally many sequences.
        rows: indices (N,) of the sequences to overwrite, all different.
        others: indices (N,) of the sequences to copy, none of them in `rows`.
    """
    buffers = [(x, cache._visible) for cache in caches if cache.length for x in cache.buffers]
    plain = all(x.is_cpu and x.stride(3) == 1 and x.stride(2) == x.shape[3] for x, _ in buffers)
    if not (plain and rows.is_cpu) or is_traced() or kernels.missing() is not None:
        for cache in caches:
            cache.overwrite(rows, others)
        return
    if not len(rows) or not buffers:
        return
    rows, others = rows.long().contiguous(), others.long().contiguous()
    runs = []
    for x, seen in buffers:
        size = x.element_size()
        row = x.shape[3] * size
        start, count = x.data_ptr() + seen.start * row, (seen.stop - seen.start) * row
        runs.append((start, x.stride(0) * size, x.stride(1) * size, x.shape[1], count))
    kernels.module().copy_sequences(
        runs, rows.data_ptr(), others.data_ptr(), min(len(x) for x, _ in buffers), len(rows), torch.get_num_threads()
    )


def _copy(to: Tensor, source: Tensor, rows: Tensor | None = None, others: Tensor | None = None) -> None:
    """Copy sequences `others` of `source` (B, G, N, E) to sequences `rows` of `to`; None for all of them."""
    count, sizes = len(to) if rows is None else len(rows), to.shape[1:]
    contiguous = all(x.stride(3) == 1 and (sizes[1] == 1 or x.stride(2) == sizes[2]) for x in (to, source))
    small = count * sizes[0] * sizes[1] * sizes[2] < SMALL
    same_dtype_on_cpu = to.is_cpu and to.dtype is source.dtype and type(source) is Tensor
    if small or not (contiguous and same_dtype_on_cpu) or is_traced() or kernels.missing() is not None:
        if rows is None or others is None:
            to.copy_(source)
        else:
            to.index_copy_(0, rows, source.index_select(0, others))
        return
    size = to.element_size()
    to_view, source_view = ((x.data_ptr(), x.stride(0) * size, x.stride(1) * size) for x in (to, source))
    kernels.module().copy_runs(
        to_view, 0 if rows is None else rows.data_ptr(), source_view, 0 if others is None else others.data_ptr(),
        len(to), count, sizes[0], sizes[1] * sizes[2] * size, torch.get_num_threads(),
    )  # fmt: skip


def _rolling_capacity(lookback: int) -> int:
    """Capacity of a rolling buffer: large enough that each position is moved about once."""
    return lookback + max(lookback, SLACK)
