"""From files of pairs to what training reads: a tokenizer, and rows of ids on disk.

The files are read twice: once to count the rows, choose those held out and sample text for the tokenizer, then to
write their ids. Memory holds the sample and the rows held out, whatever the size of the files.
"""

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from regard.data.files import shown_name
from regard.data.inputs import copied, identity, stamps
from regard.data.reader import OF_COLUMNS, RecordReader, ending_format
from regard.data.rows import Pair, PairReader, read_pairs
from regard.data.sample import HeldOut, Sample, text_hash
from regard.data.store import PairStore, chunks, replacing
from regard.data.tokenizer import Tokenizer
from regard.errors import CheckpointError, ConfigError, DataError

FORMAT = 1
SUMMARY, TOKENIZER, TRAIN, VALID, VALID_TEXTS = "prepared.json", "tokenizer.json", "train", "valid", "valid.jsonl"
SAMPLED_PAIRS = 100_000  # that the tokenizer is trained on
MOST_VALID_TEXTS = 2000
PAIRS_AT_ONCE = 1000
LARGEST_SHARE = 20  # at most one row in so many is held out

Progress = Callable[[str, int], None]
Ids = tuple[list[int], list[int]]  # of a source and its target


class Prepared(NamedTuple):
    """What training reads."""

    train: PairStore
    valid: PairStore
    valid_texts: list[Pair]  # the first rows of `valid`, as texts
    tokenizer: Tokenizer
    counts: dict[str, Any]  # rows: read, train, valid, too_many_tokens; skipped: by reason; read_as: by file, if noted


def prepare(
    files: Sequence[str] | PairReader,
    folder: str | os.PathLike[str],
    *,
    vocab_size: int = 8000,
    valid: Sequence[str] | PairReader | None = None,
    held_out: int = 2000,
    max_tokens: int = 256,
    skip_bad_rows: bool = False,
    tokenizer: Tokenizer | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Tokenize pairs once, into a folder that is used again while files and options stay the same.

    Args:
        files: paths as for `read_pairs`, or its reader where other options than these are wanted.
        folder: where to; it appears, or is replaced, when all is done.
        vocab_size: of the tokenizer.
        valid: files to validate on; None: rows of `files` are held out, by a hash of their source.
        held_out: how many; at most one in twenty. Rows with the same source are on the same side.
        max_tokens: rows with more tokens on a side are left out, and counted.
        skip_bad_rows: count rows that cannot be used and go on, instead of stopping at the first.
        tokenizer: used instead of training one.
        progress: called now and then with what is being done, and how many rows of it are done.

    Returns:
        What training reads.

    Raises:
        DataError: files that cannot be read, a bad row, too few rows, a folder that cannot be written.
        ConfigError: an option out of range, or a folder that holds something else.
    """
    for name, number in (("held_out", held_out), ("max_tokens", max_tokens)):
        if number < 1:
            raise ConfigError(f"{name}={number} must be at least 1")
    readers = _readers(files, valid, skip_bad_rows)
    folder = Path(folder)
    copies = folder.with_name(folder.name + ".input")
    try:
        shutil.rmtree(copies, ignore_errors=True)
        readers = [copied(reader, copies) for reader in readers]
        before = [stamps(reader) for reader in readers]
        options = {
            "format": FORMAT,
            "inputs": [identity(reader) for reader in readers],
            "vocab_size": vocab_size,
            "held_out": held_out,
            "max_tokens": max_tokens,
            "tokenizer": tokenizer and tokenizer.fingerprint,
        }
        if (finished := _finished(folder, options)) is not None:
            return finished
        with replacing(folder, SUMMARY) as partial:
            work = _Work(
                partial, readers[0], readers[1] if valid is not None else None, max_tokens, progress or _silent
            )
            counts = work.run(vocab_size, held_out, tokenizer)
            if [stamps(reader) for reader in readers] != before:
                raise DataError(f"{_called(readers[0])}: changed while being read; start again when it is complete")
            (partial / SUMMARY).write_text(json.dumps({"options": options, "counts": counts}, indent=1))
    except OSError as error:
        raise DataError(f"{folder}: the prepared rows cannot be written: {error}; is there room?") from error
    finally:
        shutil.rmtree(copies, ignore_errors=True)
    return _opened(folder)


@dataclass(frozen=True)
class _Work:
    """The two readings, into a folder."""

    folder: Path
    train: PairReader
    valid: PairReader | None
    max_tokens: int
    progress: Progress
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, vocab_size: int, held_out: int, tokenizer: Tokenizer | None) -> dict[str, Any]:
        """Write everything.

        Returns:
            The counts of `Prepared`.
        """
        sample, chosen = self.survey(held_out)
        skipped = self.train.skipped.copy()
        if tokenizer is None:
            self.progress("training the tokenizer", len(sample))
            tokenizer = Tokenizer.train(sample, vocab_size=vocab_size)
        tokenizer.save(self.folder / TOKENIZER)
        self.write(tokenizer, chosen)
        notes = self.train.notes
        if self.valid:
            skipped += self.valid.skipped
            notes = notes | self.valid.notes
        counts: dict[str, Any] = {**self.counts, "skipped": dict(sorted(skipped.items()))}
        return counts | ({"read_as": notes} if notes else {})

    def survey(self, held_out: int) -> tuple[list[str], frozenset[int]]:
        """Read for the first time: texts for the tokenizer, and the hashes of the sources to hold out."""
        sample, sources, rows = Sample(SAMPLED_PAIRS), HeldOut(held_out), 0
        for rows, pair in enumerate(self.train, 1):
            sample.add(pair.source, pair.target)
            if not self.valid:
                sources.add(text_hash(pair.source))
            if rows % PAIRS_AT_ONCE == 0:
                self.progress("reading", rows)
        if not rows:
            raise DataError(f"{_called(self.train)}: no usable row; skipped: {dict(self.train.skipped)}")
        chosen = sources.choose(min(held_out, rows // LARGEST_SHARE))
        if not self.valid and not chosen:
            raise DataError(
                f"{_called(self.train)}: {rows} rows of one source, so that none can be held out; "
                f"expected two sources or more, or files to validate on"
            )
        self.counts["read"] = rows
        return sample.texts, chosen

    def write(self, tokenizer: Tokenizer, chosen: frozenset[int]) -> None:
        """Read for the second time, and write ids."""
        held: list[tuple[Pair, Ids]] = []
        train = PairStore.write(self.folder / TRAIN, self.kept(self.encoded(self.train, tokenizer), chosen, held))
        texts: list[Pair] = []
        valid_rows = self.encoded(self.valid, tokenizer) if self.valid else iter(held)
        valid = PairStore.write(self.folder / VALID, self.noted(valid_rows, texts))
        for purpose, store in (("train", train), ("validate", valid)):
            if not len(store):
                long = self.counts["too_many_tokens"]
                raise DataError(
                    f"{_called(self.train)}: no row is left to {purpose} on; {long} rows have more than "
                    f"max_tokens={self.max_tokens} tokens"
                )
            self.counts["train" if store is train else "valid"] = len(store)
        with (self.folder / VALID_TEXTS).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(pair) + "\n" for pair in texts)

    def encoded(self, reader: PairReader, tokenizer: Tokenizer) -> Iterator[tuple[Pair, Ids]]:
        """Pairs and their ids, but for those that are too long."""
        self.counts["too_many_tokens"] += 0  # a count of none is told too
        rows = 0
        for pairs in chunks(reader, PAIRS_AT_ONCE):
            sources = tokenizer.encode_batch([pair.source for pair in pairs])
            targets = tokenizer.encode_batch([pair.target for pair in pairs])
            for pair, source, target in zip(pairs, sources, targets, strict=True):
                if max(len(source), len(target)) <= self.max_tokens:
                    yield pair, (source, target)
                else:
                    self.counts["too_many_tokens"] += 1
            rows += len(pairs)
            self.progress("tokenizing", rows)

    @staticmethod
    def kept(rows: Iterator[tuple[Pair, Ids]], chosen: frozenset[int], held: list[tuple[Pair, Ids]]) -> Iterator[Ids]:
        """The ids of rows to train on; the others are put into `held`."""
        for pair, ids in rows:
            if chosen and text_hash(pair.source) in chosen:
                held.append((pair, ids))
            else:
                yield ids

    @staticmethod
    def noted(rows: Iterator[tuple[Pair, Ids]], texts: list[Pair]) -> Iterator[Ids]:
        """The ids of rows; the first of their texts are put into `texts`."""
        for pair, ids in rows:
            if len(texts) < MOST_VALID_TEXTS:
                texts.append(pair)
            yield ids


def is_prepared_from(
    folder: str | os.PathLike[str],
    files: Sequence[str] | PairReader,
    *,
    valid: Sequence[str] | PairReader | None = None,
    skip_bad_rows: bool = False,
) -> bool:
    """Whether `prepare` has read files of this content into a folder; True too where that cannot be told any more."""
    try:
        inputs = json.loads((Path(folder) / SUMMARY).read_bytes())["options"]["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return bool(inputs == [identity(reader) for reader in _readers(files, valid, skip_bad_rows)])


def _readers(
    files: Sequence[str] | PairReader, valid: Sequence[str] | PairReader | None, skip_bad_rows: bool
) -> list[PairReader]:
    """What reads the pairs to train on, and those to validate on if there are such files."""
    readers = [files if isinstance(files, RecordReader) else read_pairs(files)]
    if valid is not None:
        readers.append(valid if isinstance(valid, RecordReader) else _like(readers[0], valid))
    return [
        dataclasses.replace(reader, skip_bad_rows=skip_bad_rows or reader.skip_bad_rows, skipped=Counter(), notes={})
        for reader in readers
    ]


def _like(reader: PairReader, files: Sequence[str]) -> PairReader:
    """A reader of further files, whose fields are called as in the first ones."""
    endings = [ending_format(file) for file in files]
    format = reader.format if None in endings else None
    delimiter = reader.delimiter if all(ending in (None, *OF_COLUMNS) for ending in endings) else None
    return dataclasses.replace(reader, files=tuple(files), parallel=None, format=format, delimiter=delimiter, copies={})


def _silent(doing: str, rows: int) -> None:
    """No progress is asked for."""


def _called(reader: PairReader) -> str:
    files = [shown_name(file) for file in (*reader.files, *(reader.parallel or ()))]
    return ", ".join(files[:3]) + (", …" if len(files) > 3 else "")


def _finished(folder: Path, options: dict[str, Any]) -> Prepared | None:
    """What stands in the folder, if it is whole, and made from the same files with the same options."""
    try:
        same = json.loads((folder / SUMMARY).read_bytes())["options"] == options
        return _opened(folder) if same else None
    except (OSError, ValueError, KeyError, TypeError, CheckpointError):  # DataError is a ValueError
        return None


def _opened(folder: Path) -> Prepared:
    counts = json.loads((folder / SUMMARY).read_bytes())["counts"]
    with (folder / VALID_TEXTS).open(encoding="utf-8") as file:
        texts = [Pair(*json.loads(line)) for line in file]
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    return Prepared(PairStore.open(folder / TRAIN), PairStore.open(folder / VALID), texts, tokenizer, counts)
