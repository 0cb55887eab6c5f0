"""Data preparation: from a user's files to a processor and stores of encoded rows.

Files are read twice: first to count the records, choose those held out and survey them (for a tokenizer or labels),
then to write their rows. Memory holds the survey and the held-out records, whatever the size of the files.
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
from regard.data.inputs import copy_streams, file_stamps, identity
from regard.data.reader import RecordReader
from regard.data.sample import HeldOut, text_hash
from regard.data.store import Column, RecordStore, chunks, replace_folder
from regard.errors import CheckpointError, DataError

FORMAT = 2
SUMMARY, TRAIN, VALID, VALID_RECORDS = "prepared.json", "train", "valid", "valid.jsonl"
MAX_VALID_RECORDS = 2000  # held-out records stored as text, for samples and metrics
ROWS_AT_ONCE = 1000
MIN_TRAIN_PER_VALID = 20  # at most one record in 20 is held out

Progress = Callable[[str, int], None]
R = TypeVar("R", bound=tuple[Any, ...])  # a record: a named tuple of plain values


class LeftOut(NamedTuple):
    """A record that is left out, such as one that is too long."""

    reason: str  # category in the counts


Row = Sequence[Any]  # an array or list of numbers for each column


def unreadable(kind: str, place: str, error: DataError, *, skip: bool) -> LeftOut:
    """A record whose file cannot be read, as left out.

    Args:
        kind: name of such a file, such as "picture".
        place: of the record.
        error: why the file cannot be read.
        skip: whether such records are left out.

    Returns:
        The record as left out.

    Raises:
        DataError: if such records are not left out.
    """
    if skip:
        return LeftOut(f"a {kind} that cannot be read")
    where = "" if str(error).startswith(place) else f"{place}: "
    raise DataError(f"{where}{error}, or skip such {kind}s: --skip-bad-rows, skip_bad_rows=True") from error


class Preparation(ABC, Generic[R]):
    """How records of a job are encoded as rows."""

    columns: Mapping[str, Column]
    processor: Any  # encoder of records, such as a tokenizer; set by `finish_survey` or `load`

    @property
    def options(self) -> dict[str, Any]:
        """Settings that the rows depend on, as plain data; none by default."""
        return {}

    @property
    def digest(self) -> str:
        """A hash of the processor, equal for equivalent ones."""
        return str(self.processor.fingerprint)

    @abstractmethod
    def key(self, record: R) -> str:
        """The key of a record: records with equal keys are held out together or not at all."""

    @abstractmethod
    def survey(self, record: R) -> None:
        """Process a record in the first pass."""

    @abstractmethod
    def finish_survey(self, folder: Path, progress: Progress) -> None:
        """Build the processor from the surveyed records, and save it in the folder."""

    @abstractmethod
    def encode(self, records: Sequence[R]) -> list[Row | LeftOut]:
        """Encode records as rows."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Load the processor that `finish_survey` saved."""

    @abstractmethod
    def record(self, plain: Sequence[Any]) -> R:
        """A record from the list of its values."""


class Prepared(NamedTuple, Generic[R]):
    """Prepared data."""

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
    """Encode records into a folder, or reuse the folder if files and options have not changed.

    Args:
        reader: of the records.
        folder: created or replaced when everything is written.
        preparation: of the job; its processor is set.
        valid: records for validation; None to hold out some of `reader`, by a hash of their key.
        held_out: maximum number of held-out records; at most one in twenty.
        progress: called from time to time with the name of the step and the number of records done.

    Returns:
        The prepared data.

    Raises:
        DataError: files that cannot be read, a bad row, too few rows, a folder that cannot be written.
        ConfigError: a folder that holds something else.
    """
    folder, readers = Path(folder), [reader] if valid is None else [reader, valid]
    readers = [dataclasses.replace(one, skipped=Counter(), notes={}) for one in readers]
    copies = folder.with_name(folder.name + ".input")
    try:
        shutil.rmtree(copies, ignore_errors=True)
        readers = [copy_streams(one, copies) for one in readers]
        before = [file_stamps(one) for one in readers]
        inputs = [identity(one) for one in readers]
        plain = {"format": FORMAT, "inputs": inputs, "held_out": held_out, **preparation.options}
        options: dict[str, Any] = json.loads(json.dumps(plain))  # as it is read back
        if (prepared := _open_if_current(folder, options, preparation)) is not None:
            return prepared
        with replace_folder(folder, SUMMARY) as partial:
            writer = _Writer(partial, readers, preparation, progress or _silent)
            counts = writer.run(held_out)
            if [file_stamps(one) for one in readers] != before:
                raise DataError(f"{_names(readers[0])}: changed while being read; start again when it is complete")
            (partial / SUMMARY).write_text(json.dumps({"options": options, "counts": counts}, indent=1))
    except OSError as error:
        raise DataError(f"{folder}: the prepared rows cannot be written: {error}; is there room?") from error
    finally:
        shutil.rmtree(copies, ignore_errors=True)
    return _open_prepared(folder, preparation)


def is_prepared_from(folder: str | os.PathLike[str], readers: Sequence[RecordReader[Any]]) -> bool:
    """Whether a folder was prepared from files with this content; True also if it has no readable summary."""
    try:
        inputs = json.loads((Path(folder) / SUMMARY).read_bytes())["options"]["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return bool(inputs == [identity(reader) for reader in readers])


@final
class _Writer(Generic[R]):
    """The two passes over the records, which write a folder."""

    def __init__(
        self, folder: Path, readers: Sequence[RecordReader[R]], preparation: Preparation[R], progress: Progress
    ) -> None:
        self.folder, self.preparation, self.progress = folder, preparation, progress
        self.train, self.valid = readers[0], readers[1] if len(readers) > 1 else None
        self.counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def run(self, held_out: int) -> dict[str, Any]:
        """Write everything, and return the counts of `Prepared`."""
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
        """First pass: survey the records, and return the hashes of the keys to hold out."""
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
        """Second pass: encode the records and write rows."""
        held: list[tuple[R, Row]] = []
        columns, records = self.preparation.columns, list[R]()
        train = RecordStore.write(
            self.folder / TRAIN, columns, self.split_held_out(self.encoded(self.train), keys, held)
        )
        valid_rows = iter(held) if self.valid is None else self.encoded(self.valid)
        valid = RecordStore.write(self.folder / VALID, columns, self.keep_records(valid_rows, records))
        for purpose, name, store in (("train", "train", train), ("validate", "valid", valid)):
            if not len(store):
                raise DataError(
                    f"{_names(self.train)}: no row is left to {purpose} on; left out: {dict(self.left_out) or 'none'}"
                )
            self.counts[name] = len(store)
        with (self.folder / VALID_RECORDS).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    def encoded(self, reader: RecordReader[R]) -> Iterator[tuple[R, Row]]:
        """Records and their rows, without those that are left out."""
        count = 0
        for records in chunks(reader, ROWS_AT_ONCE):
            for record, row in zip(records, self.preparation.encode(records), strict=True):
                if isinstance(row, LeftOut):
                    self.left_out[row.reason] += 1
                else:
                    yield record, row
            count += len(records)
            self.progress("writing rows", count)

    def split_held_out(
        self, rows: Iterator[tuple[R, Row]], keys: frozenset[int], held: list[tuple[R, Row]]
    ) -> Iterator[Row]:
        """Yield the rows to train on, and append the held-out ones to `held`."""
        for record, row in rows:
            if keys and text_hash(self.preparation.key(record)) in keys:
                held.append((record, row))
            else:
                yield row

    @staticmethod
    def keep_records(rows: Iterator[tuple[R, Row]], records: list[R]) -> Iterator[Row]:
        """Yield all rows, and append the first MAX_VALID_RECORDS records to `records`."""
        for record, row in rows:
            if len(records) < MAX_VALID_RECORDS:
                records.append(record)
            yield row


def _silent(doing: str, rows: int) -> None:
    """The default of `progress`: nothing is reported."""


def _names(reader: RecordReader[Any]) -> str:
    files = [shown_name(file) for file in (*reader.files, *(reader.parallel or ()))]
    return ", ".join(files[:3]) + (", …" if len(files) > 3 else "")


def _open_if_current(folder: Path, options: dict[str, Any], preparation: Preparation[R]) -> Prepared[R] | None:
    """The prepared data in the folder, if it is complete and of the same files and options; else None."""
    try:
        same = json.loads((folder / SUMMARY).read_bytes())["options"] == options
        return _open_prepared(folder, preparation) if same else None
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):  # DataError is a ValueError
        return None


def _open_prepared(folder: Path, preparation: Preparation[R]) -> Prepared[R]:
    counts = json.loads((folder / SUMMARY).read_bytes())["counts"]
    with (folder / VALID_RECORDS).open(encoding="utf-8") as file:
        records = [preparation.record(json.loads(line)) for line in file]
    preparation.load(folder)
    stores = RecordStore(folder / TRAIN), RecordStore(folder / VALID)
    return Prepared(*stores, records, preparation.processor, counts)
