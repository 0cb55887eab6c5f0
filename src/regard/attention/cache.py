"""Keys and values kept between decoding steps, so that each step computes its own only."""

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

SLACK = 64  # positions that a buffer has to spare at least, so that it is not moved at every step
SMALL = 1 << 12  # numbers that PyTorch copies as soon as the kernel


@final
class KeyValueCache:
    """Keys (B, G, S, E) and values (B, G, S, V) of the positions seen so far, or of the last of them.

    Without a `lookback` every position is kept, and the buffer doubles when it is full. With one, only what a query
    may still see: memory follows the window, not the length. For inference: what is kept carries no gradient.

    Args:
        lookback: keys before its own position that a query may see at most, >= 0; None for no bound.
        capacity: positions to make room for at once, >= 1, where the length is known beforehand; it still grows when
            they are full. Only without `lookback`.

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
                f"KeyValueCache: capacity={capacity} has no meaning with lookback={lookback}, which bounds the memory "
                "by itself; give one of them"
            )
        self._lookback = lookback
        self._capacity = capacity or 0
        self._key: Tensor | None = None  # buffers (B, G, room, E) and (B, G, room, V)
        self._value: Tensor | None = None
        self._stop = 0  # where the kept positions end in the buffers
        self._length = 0

    @staticmethod
    def for_pattern(pattern: Pattern, *, capacity: int | None = None) -> "KeyValueCache":
        """The cache that keeps what a pattern lets a query see, and no more.

        Args:
            pattern: which keys a query may attend to. `pattern.lookback` says how far back that is.
            capacity: as for `KeyValueCache`; ignored where the pattern bounds the memory.

        Returns:
            An empty cache.

        Raises:
            ConfigError: a capacity below 1.
        """
        lookback = pattern.lookback
        return KeyValueCache(lookback, capacity=capacity if lookback is None else None)

    @property
    def lookback(self) -> int | None:
        """Keys before its own position that a query may see at most; None where every position is kept."""
        return self._lookback

    @property
    def length(self) -> int:
        """How many positions it has seen, kept or not: the position of the next one."""
        return self._length

    @property
    def bytes(self) -> int:
        """Memory that it holds, in bytes."""
        return sum(x.nbytes for x in (self._key, self._value) if x is not None)

    def __repr__(self) -> str:
        return f"KeyValueCache(lookback={self._lookback}, length={self._length}, bytes={self.bytes})"

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, int]:
        """Take in the keys and values of new positions, and give all that their queries may see.

        `attend(query, keys, values, pattern=pattern, key_start=key_start)` is then the attention of the new positions'
        queries: by default the last query stands on the last key.

        Args:
            key: (B, G, N, E), N new positions; of one or of many, as when a prompt is read at once. N may be 0 when
                something is kept already: the memory of a cross attention is appended once, and read afterwards.
            value: (B, G, N, V).

        Returns:
            keys (B, G, S, E), values (B, G, S, V) and the position of the first of them. They may share the cache's
            memory, and stay as they are when it goes on; don't write into them.

        Raises:
            ShapeError: shapes, dtypes or devices that differ from each other or from what is kept.
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
        """What `append` gives, with the last N positions yet to be written, by the caller: nothing is looked at.

        Args:
            key: B, G, N and E, that go with what is kept.
            value: B, G, N and V.
            like: a tensor of their dtype and device.

        Returns:
            As `append`.
        """
        new = key[2]
        kept = self._stop if self._lookback is None else min(self._stop, self._lookback)
        # An ordinary tensor can be written in any mode; one made under torch.inference_mode only there.
        with torch.inference_mode(False), torch.no_grad():
            if self._key is None or self._value is None or self._stop + new > self._key.shape[2]:
                self._key = self._moved(self._key, key, like, kept)
                self._value = self._moved(self._value, value, like, kept)
                self._stop = kept
            stop = self._stop + new
            keys, values = (x[:, :, self._stop - kept : stop] for x in (self._key, self._value))
            self._stop = stop
            self._length += new
        return keys, values, self._length - new - kept

    def goes_with(self, sizes: tuple[int, int, int], like: Tensor) -> bool:
        """Whether keys and values (B, G, E) of a tensor's dtype and device go with what is kept, if anything is."""
        return all(
            x is None or ((*x.shape[:2], x.shape[3]) == sizes and x.dtype is like.dtype and x.device == like.device)
            for x in (self._key, self._value)
        )

    @property
    def kept(self) -> tuple[Tensor, Tensor, int]:
        """What `append` gives if nothing is new: keys, values and the position of the first of them.

        Raises:
            ShapeError: nothing is kept.
        """
        if self._key is None or self._value is None:
            raise ShapeError("KeyValueCache.kept: nothing is kept yet; `append` keys and values first")
        count = self._stop if self._lookback is None else min(self._stop, self._lookback)
        keys, values = (x[:, :, self._stop - count : self._stop] for x in (self._key, self._value))
        return keys, values, self._length - count

    @contextmanager
    def appended(self, key: Tensor, value: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """What `append` gives, for a computation: if that fails, the cache is as it was before."""
        before, done = dict(vars(self)), False  # append writes only behind what is kept
        try:
            yield self.append(key, value)
            done = True
        finally:
            if not done:
                vars(self).update(before)

    def select(self, rows: Tensor) -> None:
        """Keep some sequences of the batch, in this order: beams that go on, unfinished sequences.

        Args:
            rows: indices (B',) of sequences, each any number of times; or booleans (B,), True = stays.

        Raises:
            ShapeError: rows that are neither, that are out of range, or that leave nothing.

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
        # On other devices looking would wait for everything queued there; the indexing itself stops the program.
        if rows.device.type == "cpu" and not 0 <= int(rows.min()) <= int(rows.max()) < batch:
            raise ShapeError(
                f"KeyValueCache.select: rows has indices from {int(rows.min())} to {int(rows.max())}, but the cache "
                f"holds {batch} sequences, 0 to {batch - 1}"
            )
        with torch.inference_mode(False), torch.no_grad():
            rows = rows.to(self._key.device, copy=True)
            self._key, self._value = (self._selected(x, rows) for x in (self._key, self._value))

    def overwrite(self, rows: Tensor, others: Tensor, *, first: int | None = None) -> None:
        """Make some sequences copies of others, in place, and keep only the first ones of the batch.

        `select` says the same with all rows, and copies them all. Here what `append` gave out changes, too.

        Args:
            rows: indices (N,) of sequences to write, all different; on the device of what is kept.
            others: indices (N,) of those that they become copies of, none of them among `rows`.
            first: the batch size from now on; None for all of it.

        >>> cache = rg.KeyValueCache()
        >>> keys, _, _ = cache.append(torch.arange(3.0).view(3, 1, 1, 1), torch.zeros(3, 1, 1, 1))
        >>> cache.overwrite(torch.tensor([0]), torch.tensor([2]), first=2)
        >>> cache.kept[0].flatten()
        tensor([2., 1.])
        """
        if self._key is None or self._value is None:
            return
        with torch.inference_mode(False), torch.no_grad():
            seen = slice(0 if self._lookback is None else max(0, self._stop - self._lookback), self._stop)
            rows, others = rows.long().contiguous(), others.long().contiguous()
            for buffer in (self._key, self._value):
                _copy(buffer[:, :, seen], buffer[:, :, seen], rows, others)
            self._key, self._value = self._key[:first], self._value[:first]

    def _selected(self, buffer: Tensor, rows: Tensor) -> Tensor:
        """As much room for other sequences; only what is filled is copied."""
        chosen = buffer.new_empty(len(rows), *buffer.shape[1:])
        chosen[:, :, : self._stop] = buffer[:, :, : self._stop].index_select(0, rows)
        return chosen

    def _moved(self, buffer: Tensor | None, new: Sequence[int], like: Tensor, kept: int) -> Tensor:
        """A larger or emptier buffer that starts with what is kept. What was given out stays as it is."""
        needed = kept + new[2]
        if self._lookback is not None:
            room = max(needed, _rolling_room(self._lookback))
        elif buffer is None:
            room = max(needed + SLACK, self._capacity)
        else:
            room = max(needed, 2 * buffer.shape[2])
        moved = torch.empty(*new[:2], room, new[3], dtype=like.dtype, device=like.device)
        if buffer is not None:
            moved[:, :, :kept] = buffer[:, :, self._stop - kept : self._stop]
        return moved

    def _shrink(self) -> None:
        """Leave the large buffer of a long prompt for one of the window's size."""
        if self._lookback is None or self._key is None or self._value is None:
            return
        if self._key.shape[2] <= _rolling_room(self._lookback):
            return
        kept = min(self._lookback, self._stop)
        key, value = (self._moved(x, (*x.shape[:2], 0, x.shape[3]), x, kept) for x in (self._key, self._value))
        self._key, self._value, self._stop = key, value, kept

    def _check(self, key: Tensor, value: Tensor) -> None:
        """Raise unless these go together and with what is kept."""
        if not (is_dense(key) and is_dense(value)):
            raise ShapeError(f"KeyValueCache.append: key={show(key)}, value={show(value)}; expected dense tensors")
        if key.dim() != 4 or value.dim() != 4 or key.shape[:3] != value.shape[:3]:
            raise ShapeError(
                f"KeyValueCache.append: key {tuple(key.shape)}, value {tuple(value.shape)}; expected (batch, kv heads, "
                "new positions, head_dim), equal but for the last"
            )
        if key.dtype != value.dtype or key.device != value.device:
            raise ShapeError(
                f"KeyValueCache.append: key is {key.dtype} on {key.device}, value {value.dtype} on {value.device}; "
                "they must agree"
            )
        if self._key is None or self._value is None:
            if 0 in (*key.shape[1:], value.shape[3]):
                raise ShapeError(
                    f"KeyValueCache.append: key {tuple(key.shape)}, value {tuple(value.shape)} into an empty cache; "
                    "every dimension but the batch must be at least 1"
                )
            return
        for name, new, held in (("key", key, self._key), ("value", value, self._value)):
            if (new.shape[:2], new.shape[3]) != (held.shape[:2], held.shape[3]):
                raise ShapeError(
                    f"KeyValueCache.append: {name} {tuple(new.shape)} does not go with what is kept, (batch, kv heads, "
                    f"positions, head_dim) = {(*held.shape[:2], self._length, held.shape[3])}; start a new cache for "
                    "another batch, or `select` the sequences that go on"
                )
            if new.dtype != held.dtype or new.device != held.device:
                raise ShapeError(
                    f"KeyValueCache.append: {name} is {new.dtype} on {new.device}, but what is kept {held.dtype} on "
                    f"{held.device}; they must agree, so keep to one autocast setting and device"
                )


def _copy(to: Tensor, source: Tensor, rows: Tensor | None = None, others: Tensor | None = None) -> None:
    """Write `source` (B, G, N, E) into `to`: its sequences `others` in the place of `rows`; None for all of them."""
    count, sizes = len(to) if rows is None else len(rows), to.shape[1:]
    runs = all(x.stride(3) == 1 and (sizes[1] == 1 or x.stride(2) == sizes[2]) for x in (to, source))
    small = count * sizes[0] * sizes[1] * sizes[2] < SMALL
    alike = to.is_cpu and to.dtype is source.dtype and type(source) is Tensor
    if small or not (runs and alike) or is_traced() or kernels.missing() is not None:
        if rows is None or others is None:
            to.copy_(source)
        else:
            to.index_copy_(0, rows, source.index_select(0, others))
        return
    size = to.element_size()
    of_to, of_source = ((x.data_ptr(), x.stride(0) * size, x.stride(1) * size) for x in (to, source))
    kernels.module().copy_runs(
        of_to, 0 if rows is None else rows.data_ptr(), of_source, 0 if others is None else others.data_ptr(),
        len(to), count, sizes[0], sizes[1] * sizes[2] * size, torch.get_num_threads(),
    )  # fmt: skip


def _rolling_room(lookback: int) -> int:
    """Positions in the buffer of a window: each is moved about once."""
    return lookback + max(lookback, SLACK)
