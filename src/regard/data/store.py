"""Pairs of token ids on disk, read through memory maps: as many as fit the disk, whatever the memory.

A folder of four files: the ids of every pair, source then target, one after the other; where each pair starts; how
long its two sides are; and how much there is of each, written last.
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np

from regard.errors import ConfigError, DataError

IDS, STARTS, LENGTHS, SUMMARY = "ids.i32", "starts.i64", "lengths.i32", "store.json"
FORMAT = 1
ROWS_AT_ONCE = 1000

T = TypeVar("T")
Ids = np.ndarray[Any, np.dtype[np.int32]]


@final
class PairStore:
    """Pairs of token ids, by number.

    Args:
        folder: where `write` wrote them.

    Raises:
        DataError: files that are missing, or shorter than what was written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            summary = json.loads((self.folder / SUMMARY).read_bytes())
            rows, ids = int(summary["rows"]), int(summary["ids"])
            written = int(summary["format"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.folder} holds no finished pairs ({error}); prepare the data again") from error
        if written != FORMAT:
            raise DataError(
                f"{self.folder} is of format {written}; this version reads {FORMAT}; prepare the data again"
            )
        self._ids = _map(self.folder / IDS, "<i4", (ids,))
        self._starts = _map(self.folder / STARTS, "<i8", (rows,))
        self._lengths = _map(self.folder / LENGTHS, "<i4", (rows, 2))

    @staticmethod
    def open(folder: str | os.PathLike[str]) -> "PairStore":
        """The pairs in a folder."""
        return PairStore(folder)

    @staticmethod
    def write(folder: str | os.PathLike[str], pairs: Iterable[tuple[list[int], list[int]]]) -> "PairStore":
        """Write pairs as they come; the folder appears, or is replaced, when all are written.

        Args:
            folder: where to; it is replaced if it holds pairs already.
            pairs: source ids and target ids, without marks of start or end.

        Returns:
            The pairs, opened.

        Raises:
            ConfigError: the folder holds something else.
        """
        with replacing(Path(folder), SUMMARY) as partial:
            rows = ids = 0
            with contextlib.ExitStack() as stack:
                id_file, start_file, length_file = (
                    stack.enter_context((partial / name).open("wb")) for name in (IDS, STARTS, LENGTHS)
                )
                for chunk in chunks(pairs, ROWS_AT_ONCE):
                    lengths = np.array([(len(source), len(target)) for source, target in chunk], "<i4")
                    starts = ids + np.cumsum([0, *lengths.sum(1)])
                    np.fromiter((i for pair in chunk for side in pair for i in side), "<i4").tofile(id_file)
                    starts[:-1].astype("<i8").tofile(start_file)
                    lengths.tofile(length_file)
                    rows, ids = rows + len(chunk), int(starts[-1])
            (partial / SUMMARY).write_text(json.dumps({"format": FORMAT, "rows": rows, "ids": ids}))
        return PairStore(folder)

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def source_lengths(self) -> Ids:
        """Tokens of every source, (rows,)."""
        return self._lengths[:, 0]

    @property
    def target_lengths(self) -> Ids:
        """Tokens of every target, (rows,)."""
        return self._lengths[:, 1]

    @property
    def fingerprint(self) -> str:
        """A digest of all ids and lengths: equal for equal pairs in the same order."""
        digest = hashlib.blake2b(digest_size=16)
        for name in (IDS, LENGTHS):
            with (self.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        return digest.hexdigest()

    def pair(self, row: int) -> tuple[Ids, Ids]:
        """The source ids and target ids of a row."""
        start, (source, target) = int(self._starts[row]), self._lengths[row].tolist()
        middle = start + source
        return self._ids[start:middle], self._ids[middle : middle + target]


@contextlib.contextmanager
def replacing(folder: Path, mark: str) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` once it is filled; it must hold the file `mark` by then.

    Raises:
        ConfigError: there is something in the place that was not made so.
    """
    if folder.exists() and not (folder / mark).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty, and holds no {mark}: it is not replaced; name another folder")
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
    """Lists of up to so many."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _map(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); prepare the data again") from error
    if found != expected:
        raise DataError(f"{path} has {found:,} bytes; expected {expected:,}; prepare the data again")
    if not expected:
        return np.zeros(shape, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, "r", shape=shape)
