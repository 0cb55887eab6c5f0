"""From a user's files to what training reads: a processor, and rows of numbers on disk.

The files are read twice: once to count the records, choose those held out and survey them (for a tokenizer, or the
labels), then to write their rows. Memory holds the survey and the records held out, whatever the size of the files.
"""

import dataclasses
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, final

from regard.data.files import shown_name
from regard.data.inputs import copied, identity, stamps
from regard.data.reader import RecordReader
from regard.data.sample import HeldOut, text_hash
from regard.data.store import Column, RecordStore, chunks, replacing
from regard.errors import CheckpointError, DataError

FORMAT = 2
SUMMARY, TRAIN, VALID, VALID_RECORDS = "prepared.json", "train", "valid", "valid.jsonl"
MAX_VALID_RECORDS = 2000  # whose originals are kept, to show samples and compute metrics of texts
ROWS_AT_ONCE = 1000
MIN_TRAIN_PER_VALID = 20  # at most one record in so many is held out

Progress = Callable[[str, int], None]
R = TypeVar("R", bound=tuple[Any, ...])  # a record: a named tuple of plain values


class LeftOut(NamedTuple):
    """A record that has no row, such as one that is too long."""

    reason: str  # what it is counted under


Row = Sequence[Any]  # an array or list of numbers for each column


class Preparation(ABC, Generic[R]):
    """How the records of a job become rows."""

    columns: Mapping[str, Column]
    processor: Any  # what makes numbers of a record, such as a tokenizer; there once it is made or read

    @property
    def options(self) -> dict[str, Any]:
        """Plain data that the rows depend on, besides the files; nothing by default."""
        return {}

    @property
    def digest(self) -> str:
        """Of the processor: equal for processors that do the same."""
        return str(self.processor.fingerprint)

    @abstractmethod
    def key(self, record: R) -> str:
        """Records with the same key stay on the same side of the held-out split."""

    @abstractmethod
    def survey(self, record: R) -> None:
        """Take in a record of the first reading."""

    @abstractmethod
    def finish_survey(self, folder: Path, progress: Progress) -> None:
        """Make the processor of what was surveyed, and write it into the folder."""

    @abstractmethod
    def encode(self, records: Sequence[R]) -> list[Row | LeftOut]:
        """The rows of some records."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read the processor that `finish_survey` wrote."""

    @abstractmethod
    def record(self, plain: Sequence[Any]) -> R:
        """A record from the list of its values."""


class Prepared(NamedTuple, Generic[R]):
    """What training reads."""

    train: RecordStore
    valid: RecordStore
    valid_records: list[R]  # the first records of `valid`
    processor: Any  # of the preparation
    counts: dict[str, Any]  # rows: read, train, valid; left_out and skipped: by reason; read_as: by file, if noted


def prepare(
    reader: RecordReader[R],
    folder: str | os.PathLike[str],
    preparation: Preparation[R],
    *,
    valid: RecordReader[R] | None = None,
    held_out: int = 2000,
    progress: Progress | None = None,
) -> Prepared[R]:
    """Write the rows of records once, into a folder that is used again while files and options stay the same.

    Args:
        reader: of the records.
        folder: where to; it appears, or is replaced, when all is done.
        preparation: of the job; afterwards it has its processor.
        valid: records to validate on; None: some of `reader` are held out, by a hash of their key.
        held_out: how many; at most one in twenty.
        progress: called now and then with what is being done, and how many records of it are done.

    Returns:
        What training reads.

    Raises:
        DataError: files that cannot be read, a bad row, too few rows, a folder that cannot be written.
        ConfigError: a folder that holds something else.
    """
    folder, readers = Path(folder), [reader] if valid is None else [reader, valid]
    readers = [dataclasses.replace(one, skipped=Counter(), notes={}) for one in readers]
    copies = folder.with_name(folder.name + ".input")
    try:
        shutil.rmtree(copies, ignore_errors=True)
        readers = [copied(one, copies) for one in readers]
        before = [stamps(one) for one in readers]
        inputs = [identity(one) for one in readers]
        plain = {"format": FORMAT, "inputs": inputs, "held_out": held_out, **preparation.options}
        options: dict[str, Any] = json.loads(json.dumps(plain))  # as it is read back
        if (prepared := _finished(folder, options, preparation)) is not None:
            return prepared
        with replacing(folder, SUMMARY) as partial:
            writer = _Writer(partial, readers, preparation, progress or _silent)
            counts = writer.run(held_out)
            if [stamps(one) for one in readers] != before:
                raise DataError(f"{_names(readers[0])}: changed while being read; start again when it is complete")
            (partial / SUMMARY).write_text(json.dumps({"options": options, "counts": counts}, indent=1))
    except OSError as error:
        raise DataError(f"{folder}: the prepared rows cannot be written: {error}; is there room?") from error
    finally:
        shutil.rmtree(copies, ignore_errors=True)
    return _opened(folder, preparation)


def is_prepared_from(folder: str | os.PathLike[str], readers: Sequence[RecordReader[Any]]) -> bool:
    """Whether `prepare` has read files of this content into a folder; True too where that cannot be told any more."""
    try:
        inputs = json.loads((Path(folder) / SUMMARY).read_bytes())["options"]["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return bool(inputs == [identity(reader) for reader in readers])


@final
class _Writer(Generic[R]):
    """The two readings, into a folder."""

    def __init__(
        self, folder: Path, readers: Sequence[RecordReader[R]], preparation: Preparation[R], progress: Progress
    ) -> None:
        self.folder, self.preparation, self.progress = folder, preparation, progress
        self.train, self.valid = readers[0], readers[1] if len(readers) > 1 else None
        self.counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def run(self, held_out: int) -> dict[str, Any]:
        """Write everything; the counts of `Prepared`."""
        keys = self.survey(held_out)
        skipped = self.train.skipped.copy()
        self.preparation.finish_survey(self.folder, self.progress)
        self.write(keys)
        notes = self.train.notes
        if self.valid is not None:
            skipped += self.valid.skipped
            notes = notes | self.valid.notes
        reasons = {"left_out": dict(sorted(self.left_out.items())), "skipped": dict(sorted(skipped.items()))}
        return {**self.counts, **reasons, **({"read_as": notes} if notes else {})}

    def survey(self, held_out: int) -> frozenset[int]:
        """Read for the first time; the hashes of the keys to hold out."""
        keys, count = HeldOut(held_out), 0
        for count, record in enumerate(self.train, 1):
            self.preparation.survey(record)
            if self.valid is None:
                keys.add(text_hash(self.preparation.key(record)))
            if count % ROWS_AT_ONCE == 0:
                self.progress("reading", count)
        if not count:
            raise DataError(f"{_names(self.train)}: no usable row; skipped: {dict(self.train.skipped)}")
        chosen = keys.choose(min(held_out, count // MIN_TRAIN_PER_VALID)) if self.valid is None else frozenset()
        if self.valid is None and not chosen:
            raise DataError(
                f"{_names(self.train)}: {count} rows of one {next(iter(self.train.fields))}, so that none can be held "
                "out; expected two or more, or files to validate on"
            )
        self.counts["read"] = count
        return chosen

    def write(self, keys: frozenset[int]) -> None:
        """Read for the second time, and write rows."""
        held: list[tuple[R, Row]] = []
        columns, records = self.preparation.columns, list[R]()
        train = RecordStore.write(self.folder / TRAIN, columns, self.kept(self.encoded(self.train), keys, held))
        valid_rows = iter(held) if self.valid is None else self.encoded(self.valid)
        valid = RecordStore.write(self.folder / VALID, columns, self.noted(valid_rows, records))
        for purpose, name, store in (("train", "train", train), ("validate", "valid", valid)):
            if not len(store):
                raise DataError(
                    f"{_names(self.train)}: no row is left to {purpose} on; left out: {dict(self.left_out) or 'none'}"
                )
            self.counts[name] = len(store)
        with (self.folder / VALID_RECORDS).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    def encoded(self, reader: RecordReader[R]) -> Iterator[tuple[R, Row]]:
        """Records and their rows, but for those that are left out."""
        count = 0
        for records in chunks(reader, ROWS_AT_ONCE):
            for record, row in zip(records, self.preparation.encode(records), strict=True):
                if isinstance(row, LeftOut):
                    self.left_out[row.reason] += 1
                else:
                    yield record, row
            count += len(records)
            self.progress("writing rows", count)

    def kept(self, rows: Iterator[tuple[R, Row]], keys: frozenset[int], held: list[tuple[R, Row]]) -> Iterator[Row]:
        """The rows to train on; the others are put into `held`."""
        for record, row in rows:
            if keys and text_hash(self.preparation.key(record)) in keys:
                held.append((record, row))
            else:
                yield row

    @staticmethod
    def noted(rows: Iterator[tuple[R, Row]], records: list[R]) -> Iterator[Row]:
        """The rows; the first of their records are put into `records`."""
        for record, row in rows:
            if len(records) < MAX_VALID_RECORDS:
                records.append(record)
            yield row


def _silent(doing: str, rows: int) -> None:
    """No progress is asked for."""


def _names(reader: RecordReader[Any]) -> str:
    files = [shown_name(file) for file in (*reader.files, *(reader.parallel or ()))]
    return ", ".join(files[:3]) + (", …" if len(files) > 3 else "")


def _finished(folder: Path, options: dict[str, Any], preparation: Preparation[R]) -> Prepared[R] | None:
    """What stands in the folder, if it is whole, and made from the same files with the same options."""
    try:
        same = json.loads((folder / SUMMARY).read_bytes())["options"] == options
        return _opened(folder, preparation) if same else None
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):  # DataError is a ValueError
        return None


def _opened(folder: Path, preparation: Preparation[R]) -> Prepared[R]:
    counts = json.loads((folder / SUMMARY).read_bytes())["counts"]
    with (folder / VALID_RECORDS).open(encoding="utf-8") as file:
        records = [preparation.record(json.loads(line)) for line in file]
    preparation.load(folder)
    stores = RecordStore(folder / TRAIN), RecordStore(folder / VALID)
    return Prepared(*stores, records, preparation.processor, counts)
