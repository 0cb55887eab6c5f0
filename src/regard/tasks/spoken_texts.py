"""Preparation of utterances for recognizers that are trained from nothing: spectrograms and token ids on disk."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from regard.audio.decoding import Samples
from regard.audio.sound import read_sound
from regard.audio.spectrogram import SpectrogramProcessor
from regard.data.prepare import LeftOut, Preparation, Progress, Row, unreadable
from regard.data.sample import Sample
from regard.data.store import Column
from regard.data.tokenizer import Tokenizer
from regard.errors import DataError
from regard.tasks.runner import PREPROCESSOR
from regard.tasks.text_pairs import SAMPLED_PAIRS, TOKENIZER, TOO_LONG
from regard.tasks.utterances import Utterance

MAX_SECONDS = 30  # of an utterance to train on
SAMPLED_SOUNDS = 500  # whose mean and variance stand for the corpus
Normalization = Literal["utterance", "corpus"]


@final
class SpokenTexts(Preparation[Utterance]):
    """Normalized spectrograms of the sounds, and their texts as token ids.

    Args:
        spectrograms: number of mel bands, and statistics of a model to start from.
        normalization: "utterance" for one mean and variance over each utterance; "corpus" for those of each band over
            the corpus, unless `spectrograms` has some.
        vocab_size: number of subwords of the tokenizer; None for characters.
        max_tokens: maximum number of tokens of a text.
        tokenizer: used instead of training one.
        skip: whether sounds that cannot be read are left out.
    """

    def __init__(
        self,
        spectrograms: SpectrogramProcessor,
        *,
        normalization: Normalization,
        vocab_size: int | None,
        max_tokens: int,
        tokenizer: Any,
        skip: bool,
    ) -> None:
        self.spectrograms, self.normalization, self.vocab_size = spectrograms, normalization, vocab_size
        self.max_tokens, self.skip = max_tokens, skip
        self.processor, self._has_tokenizer = tokenizer, tokenizer is not None
        self.columns: Mapping[str, Column] = {"mels": Column("<f2", (spectrograms.num_mels,)), "target": Column()}
        self._start = spectrograms.to_plain()
        self._texts, self._sounds = Sample(SAMPLED_PAIRS), Sample(SAMPLED_SOUNDS)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "spectrograms": self._start,
            "normalization": self.normalization,
            "vocab_size": self.vocab_size,
            "max_tokens": self.max_tokens,
            "tokenizer": self.processor.fingerprint if self._has_tokenizer else None,
            "skip": self.skip,
        }

    def key(self, record: Utterance) -> str:
        return Path(record.audio).name

    def survey(self, record: Utterance) -> None:
        self._texts.add(record.text, "")
        self._sounds.add(record.audio, "")

    def finish_survey(self, folder: Path, progress: Progress) -> None:
        if not self._has_tokenizer:
            texts = self._texts.texts
            progress("training the tokenizer", len(texts) // 2)
            size = self.vocab_size
            self.processor = Tokenizer.of_characters(texts) if size is None else Tokenizer.train(texts, vocab_size=size)
        self.processor.save(folder / TOKENIZER)
        if self.normalization == "corpus" and self.spectrograms.mean is None:
            sounds = self._sounds.texts[::2]
            progress("measuring spectrograms", len(sounds))
            self.spectrograms = self.spectrograms.of_corpus(self._samples(sounds))
        (folder / PREPROCESSOR).write_bytes(self.spectrograms.to_json())

    def encode(self, records: Sequence[Utterance]) -> list[Row | LeftOut]:
        targets = self.processor.encode_batch([record.text for record in records])
        return [self._row(record, ids) for record, ids in zip(records, targets, strict=True)]

    def load(self, folder: Path) -> None:
        if not self._has_tokenizer:
            self.processor = Tokenizer.load(folder / TOKENIZER)
        plain = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
        self.spectrograms = SpectrogramProcessor.from_plain(plain)

    def record(self, plain: Sequence[Any]) -> Utterance:
        return Utterance(*plain)

    def _row(self, record: Utterance, ids: list[int]) -> Row | LeftOut:
        if len(ids) > self.max_tokens:
            return LeftOut(TOO_LONG)
        try:
            sound = read_sound(record.audio)
        except DataError as error:
            return unreadable("sound", record.place, error, skip=self.skip)
        if sound.info.seconds > MAX_SECONDS:
            return LeftOut(f"longer than {MAX_SECONDS} s")
        return self.spectrograms(sound.samples).numpy().astype(np.float16), ids

    def _samples(self, names: Sequence[str]) -> Iterator[Samples]:
        """Samples of the sounds that can be read."""
        for name in names:
            with contextlib.suppress(DataError):  # those that cannot be read are reported or left out with their rows
                yield read_sound(name).samples
