"""Preparation of text pairs: token ids on disk, and collation into batches."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch

from regard.data.prepare import LeftOut, Preparation, Prepared, Progress, Row, prepare
from regard.data.record import BadRow, Record, text_of
from regard.data.rows import Pair, PairReader, read_pairs
from regard.data.sample import Sample
from regard.data.store import Column
from regard.data.tokenizer import Tokenizer
from regard.errors import ConfigError
from regard.models.seq2seq import Vocabulary
from regard.tasks.encoder_decoder import SequenceBatch, with_targets

TOKENIZER = "tokenizer.json"
SAMPLED_PAIRS = 100_000  # that the tokenizer is trained on
TOO_LONG = "longer than max_tokens"


@final
class TextPairs(Preparation[Pair]):
    """Pairs of texts as token ids.

    Args:
        vocab_size: number of subwords of the tokenizer.
        max_tokens: maximum number of tokens of either text.
        tokenizer: used instead of training one.
        cuts_sources: whether sources that are too long are truncated; otherwise their pairs are left out.

    Raises:
        ConfigError: a size that is out of range.
    """

    columns: ClassVar[Mapping[str, Column]] = {"source": Column(), "target": Column()}

    def __init__(
        self, *, vocab_size: int = 8000, max_tokens: int = 256, tokenizer: Any = None, cuts_sources: bool = False
    ) -> None:
        if max_tokens < 1:
            raise ConfigError(f"max_tokens={max_tokens} must be at least 1")
        self.vocab_size, self.max_tokens, self.cuts_sources = vocab_size, max_tokens, cuts_sources
        self.processor, self._has_tokenizer = tokenizer, tokenizer is not None
        self._sample = Sample(SAMPLED_PAIRS)

    @property
    def options(self) -> dict[str, Any]:
        tokenizer = self.processor.fingerprint if self._has_tokenizer else None
        sizes = {"vocab_size": self.vocab_size, "max_tokens": self.max_tokens, "cuts_sources": self.cuts_sources}
        return {**sizes, "tokenizer": tokenizer}

    def key(self, record: Pair) -> str:
        return record.source

    def survey(self, record: Pair) -> None:
        self._sample.add(record.source, record.target)

    def finish_survey(self, folder: Path, progress: Progress) -> None:
        if not self._has_tokenizer:
            texts = self._sample.texts
            progress("training the tokenizer", len(texts))
            self.processor = Tokenizer.train(texts, vocab_size=self.vocab_size)
        self.processor.save(folder / TOKENIZER)

    def encode(self, records: Sequence[Pair]) -> list[Row | LeftOut]:
        sources = self.processor.encode_batch([record.source for record in records])
        targets = self.processor.encode_batch([record.target for record in records])
        if self.cuts_sources:
            sources = [ids[: self.max_tokens] for ids in sources]
        return [
            (source, target) if max(len(source), len(target)) <= self.max_tokens else LeftOut(TOO_LONG)
            for source, target in zip(sources, targets, strict=True)
        ]

    def load(self, folder: Path) -> None:
        if not self._has_tokenizer:
            self.processor = Tokenizer.load(folder / TOKENIZER)

    def record(self, plain: Sequence[Any]) -> Pair:
        return Pair(*plain)


def prepare_pairs(
    files: Sequence[str] | PairReader,
    folder: str | os.PathLike[str],
    *,
    valid: Sequence[str] | PairReader | None = None,
    held_out: int = 2000,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Prepared[Pair]:
    """Tokenize pairs of texts into a folder, as training does.

    Args:
        files: paths as for `read_pairs`, or its reader for other options.
        folder: of the output; reused while files and options stay the same.
        valid: files to validate on, or a reader of them; None: rows of `files` are held out, by a hash of their source.
        held_out: number of validation rows; at most one in twenty. Rows with the same source are on the same side.
        skip_bad_rows: skip and count invalid rows instead of raising at the first.
        progress: called from time to time with the name of the current step and its number of rows done.
        settings: those of `TextPairs`: vocab_size, max_tokens, tokenizer.

    Returns:
        The rows, with the tokenizer as `processor`.

    Raises:
        DataError: files that cannot be read, a bad row, too few rows, a folder that cannot be written.
        ConfigError: an option out of range, or a folder that holds something else.
    """
    if held_out < 1:
        raise ConfigError(f"held_out={held_out} must be at least 1")
    reader = read_pairs(files, skip_bad_rows=skip_bad_rows) if isinstance(files, Sequence) else files
    valid_reader = reader.for_files(valid) if isinstance(valid, Sequence) else valid
    return prepare(reader, folder, TextPairs(**settings), valid=valid_reader, held_out=held_out, progress=progress)


def text_pair(record: Record) -> Pair | BadRow:
    """The two texts of a record as a pair."""
    source, target = (text_of(record, role) for role in record.values)
    if isinstance(source, BadRow):
        return source
    return target if isinstance(target, BadRow) else Pair(source, target, record.place)


def collate(pairs: Sequence[tuple[Any, ...]], vocabulary: Vocabulary) -> SequenceBatch:
    """Collate pairs of token ids: add start and end tokens, and pad on the right.

    Args:
        pairs: ids of each source and target, without special tokens.
        vocabulary: of both.

    Returns:
        A `SequenceBatch`.
    """
    sources, targets = zip(*pairs, strict=True)
    inputs = np.full((len(sources), max(map(len, sources)) + 1), vocabulary.pad, np.int64)
    for i, source in enumerate(sources):
        inputs[i, : len(source)] = source
        inputs[i, len(source)] = vocabulary.eos
    lengths = torch.tensor([len(source) + 1 for source in sources])
    return with_targets(torch.from_numpy(inputs), lengths, targets, vocabulary)
