"""Preparation of captioned pictures: pixels and token ids on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from regard.data.prepare import LeftOut, Preparation, Progress, Row, unreadable
from regard.data.record import BadRow, Record, path_and_text
from regard.data.sample import Sample
from regard.data.store import Column
from regard.data.tokenizer import Tokenizer
from regard.errors import DataError
from regard.tasks.text_pairs import SAMPLED_PAIRS, TOKENIZER, TOO_LONG
from regard.vision.pictures import read_picture
from regard.vision.processor import PictureProcessor


class Captioned(NamedTuple):
    """Picture file, its caption, and the row number in the file."""

    picture: str
    caption: str
    place: str


@final
class CaptionedPictures(Preparation[Captioned]):
    """Pictures as pixels of the size that a model reads, and captions as token ids.

    Args:
        picture_processor: resizes the pictures to one size.
        vocab_size: number of subwords of the tokenizer.
        max_tokens: maximum number of tokens of a caption.
        tokenizer: used instead of training one.
        skip: whether pictures that cannot be read are left out.
    """

    def __init__(
        self, picture_processor: PictureProcessor, *, vocab_size: int, max_tokens: int, tokenizer: Any, skip: bool
    ) -> None:
        self.picture_processor, self.vocab_size, self.max_tokens = picture_processor, vocab_size, max_tokens
        self.processor, self._has_tokenizer, self.skip = tokenizer, tokenizer is not None, skip
        self.columns = {"picture": Column("|u1", (*(picture_processor.size or ()), 3)), "target": Column()}
        self._sample = Sample(SAMPLED_PAIRS)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "processor": self.picture_processor.to_plain(),
            "vocab_size": self.vocab_size,
            "max_tokens": self.max_tokens,
            "tokenizer": self.processor.fingerprint if self._has_tokenizer else None,
            "skip": self.skip,
        }

    def key(self, record: Captioned) -> str:
        return Path(record.picture).name

    def survey(self, record: Captioned) -> None:
        self._sample.add(record.caption, "")

    def finish_survey(self, folder: Path, progress: Progress) -> None:
        if not self._has_tokenizer:
            texts = self._sample.texts
            progress("training the tokenizer", len(texts))
            self.processor = Tokenizer.train(texts, vocab_size=self.vocab_size)
        self.processor.save(folder / TOKENIZER)

    def encode(self, records: Sequence[Captioned]) -> list[Row | LeftOut]:
        captions = self.processor.encode_batch([record.caption for record in records])
        return [self._row(record, ids) for record, ids in zip(records, captions, strict=True)]

    def load(self, folder: Path) -> None:
        if not self._has_tokenizer:
            self.processor = Tokenizer.load(folder / TOKENIZER)

    def record(self, plain: Sequence[Any]) -> Captioned:
        return Captioned(*plain)

    def _row(self, record: Captioned, ids: list[int]) -> Row | LeftOut:
        if len(ids) > self.max_tokens:
            return LeftOut(TOO_LONG)
        try:
            pixels = self.picture_processor.resized(read_picture(record.picture))
        except DataError as error:
            return unreadable("picture", record.place, error, skip=self.skip)
        return pixels[None], ids


def captioned(record: Record) -> Captioned | BadRow:
    """The picture and caption of a record; a relative name is looked for beside the record's file."""
    values = path_and_text(record, "picture", "caption")
    return values if isinstance(values, BadRow) else Captioned(*values, record.place)
