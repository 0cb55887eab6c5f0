"""Record store: rows of arrays on disk, read through memory maps.

A row has one array for each named column, of any length along its first axis: token ids of a source and a target, the
frames of a recording, a label. A folder has two files for each column, the concatenated items of all rows and the start
of each row, and `store.json`, written last, with the types of columns and a digest of the contents.
"""

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np

from regard.errors import ConfigError, DataError

SUMMARY = "store.json"
FORMAT = 2
ROWS_AT_ONCE = 1000

T = TypeVar("T")
Array = np.ndarray[Any, np.dtype[Any]]


@final
@dataclass(frozen=True)
class Column:
    """The type of a column.

    Args:
        dtype: little-endian NumPy dtype.
        shape: shape of an item; a row's array is (length, *shape).
    """

    dtype: str = "<i4"
    shape: tuple[int, ...] = ()


@final
class RecordStore:
    """A store of rows of arrays, read by row number.

    Args:
        folder: that `write` wrote.

    Raises:
        DataError: files that are missing or of another size.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            summary = json.loads((self.folder / SUMMARY).read_bytes())
            version, self._rows = int(summary["format"]), int(summary["rows"])
            described, self.digest = summary.get("columns", {}), str(summary.get("digest"))
            columns = {n: (c["dtype"], tuple(c["shape"]), int(c["items"])) for n, c in described.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self.folder} is not a complete record store ({error}); prepare the data again"
            ) from error
        if version != FORMAT:
            raise DataError(
                f"{self.folder} is of format {version}; this version reads {FORMAT}; prepare the data again"
            )
        self._items = {name: _map(_data(self.folder, name), d, (n, *s)) for name, (d, s, n) in columns.items()}
        self._starts = {name: _map(_starts(self.folder, name), "<i8", (self._rows + 1,)) for name in columns}

    @staticmethod
    def write(
        folder: str | os.PathLike[str], columns: Mapping[str, Column], rows: Iterable[Sequence[Any]]
    ) -> "RecordStore":
        """Write rows to a folder, which is created or replaced when all are written.

        Args:
            folder: of the store.
            columns: types of columns by name.
            rows: an array or list for each column, in order.

        Returns:
            The store.

        Raises:
            ConfigError: the folder holds other files.
        """
        with replace_folder(Path(folder), SUMMARY) as partial:
            count, items = 0, dict.fromkeys(columns, 0)
            digests = {name: hashlib.blake2b(digest_size=16) for name in columns}
            with contextlib.ExitStack() as stack:
                files = {
                    name: [stack.enter_context(path(partial, name).open("wb")) for path in (_data, _starts)]
                    for name in columns
                }
                for chunk in chunks(rows, ROWS_AT_ONCE):
                    for (name, column), parts in zip(columns.items(), zip(*chunk, strict=True), strict=True):
                        arrays = [np.asarray(part, column.dtype).reshape(-1, *column.shape) for part in parts]
                        ends = items[name] + np.cumsum([len(array) for array in arrays])
                        starts = np.concatenate(([items[name]], ends[:-1])).astype("<i8")
                        for file, content in zip(files[name], (np.concatenate(arrays), starts), strict=True):
                            digests[name].update(data := content.tobytes())
                            file.write(data)
                        items[name] = int(ends[-1])
                    count += len(chunk)
                for name in columns:
                    files[name][1].write(np.array([items[name]], "<i8").tobytes())
            described = {n: {"dtype": c.dtype, "shape": c.shape, "items": items[n]} for n, c in columns.items()}
            whole = hashlib.blake2b(json.dumps(described).encode(), digest_size=16)
            for digest in digests.values():
                whole.update(digest.digest())
            summary = {"format": FORMAT, "rows": count, "columns": described, "digest": whole.hexdigest()}
            (partial / SUMMARY).write_text(json.dumps(summary))
        return RecordStore(folder)

    def __len__(self) -> int:
        return self._rows

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self._items)

    def lengths(self, column: str, rows: Array | slice = slice(None)) -> Array:
        """The number of items of a column in each of some rows: (rows,), int64."""
        starts = self._starts[column]
        if isinstance(rows, slice):
            first, last, stride = rows.indices(self._rows)
            return np.diff(starts[first : last + 1])[::stride] if last > first else np.zeros(0, np.int64)
        return np.asarray(starts[rows + 1] - starts[rows])

    def row(self, number: int) -> tuple[Array, ...]:
        """The arrays of a row, one a column."""
        return tuple(
            self._items[name][int(starts[number]) : int(starts[number + 1])] for name, starts in self._starts.items()
        )


@contextlib.contextmanager
def replace_folder(folder: Path, mark: str) -> Iterator[Path]:
    """A context with a temporary folder, which replaces `folder` at the end.

    Args:
        folder: to be replaced.
        mark: name of a file that an existing folder must have to be replaced, and that the new one must have.

    Yields:
        The temporary folder.

    Raises:
        ConfigError: an existing folder that is not empty and lacks the file.
    """
    if folder.exists() and not (folder / mark).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty and has no {mark}, so it is not replaced; choose another folder")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split items into lists of `size`; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _data(folder: Path, column: str) -> Path:
    return folder / f"{column}.data"


def _starts(folder: Path, column: str) -> Path:
    return folder / f"{column}.starts"


def _map(path: Path, dtype: str, shape: tuple[int, ...]) -> Array:
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); prepare the data again") from error
    if size != expected:
        raise DataError(f"{path} has {size:,} bytes; expected {expected:,}; prepare the data again")
    if not expected:
        return np.zeros(shape, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, "r", shape=shape)
