"""Preparation of labeled texts: token ids, label indices and word features on disk."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

from regard.data.prepare import LeftOut, Preparation, Progress, Row
from regard.data.record import BadRow, Record, text_of
from regard.data.sample import Sample
from regard.data.store import Column
from regard.data.tokenizer import Tokenizer
from regard.errors import DataError
from regard.tasks.bag_of_words import hashed_words

LABELS, TOKENIZER = "labels.json", "tokenizer.json"
SAMPLED_TEXTS = 100_000  # that the tokenizer is trained on
MAX_LABELS = 10_000


class Labeled(NamedTuple):
    """A text, its labels, and the place of its row in the file."""

    text: str
    labels: list[str]
    place: str


@final
class LabeledTexts(Preparation[Labeled]):
    """Texts as token ids, label indices, and word features for the baseline.

    Args:
        vocab_size: number of subwords of the tokenizer.
        max_tokens: maximum number of tokens of a text, special tokens included; longer texts are truncated.
        tokenizer: used instead of training one.
    """

    columns: ClassVar[Mapping[str, Column]] = {"text": Column(), "labels": Column(), "words": Column()}

    def __init__(self, *, vocab_size: int, max_tokens: int, tokenizer: Any = None) -> None:
        self.vocab_size, self.max_tokens = vocab_size, max_tokens
        self.processor, self._given = tokenizer, tokenizer is not None
        self.labels: list[str] = []
        self.multi_label = False
        self._counts: Counter[str] = Counter()
        self._sample = Sample(SAMPLED_TEXTS)

    @property
    def options(self) -> dict[str, Any]:
        tokenizer = self.processor.fingerprint if self._given else None
        return {"vocab_size": self.vocab_size, "max_tokens": self.max_tokens, "tokenizer": tokenizer}

    def key(self, record: Labeled) -> str:
        return record.text

    def survey(self, record: Labeled) -> None:
        self._sample.add(record.text, "")
        self._counts.update(record.labels)
        self.multi_label |= len(record.labels) != 1
        if len(self._counts) > MAX_LABELS:
            raise DataError(f"{record.place}: more than {MAX_LABELS:,} labels; is the label's field the right one?")

    def finish_survey(self, folder: Path, progress: Progress) -> None:
        if len(self._counts) < 2:
            raise DataError(f"the records have {len(self._counts)} label, {list(self._counts)}; expected two or more")
        self.labels = sorted(self._counts)
        if not self._given:
            texts = self._sample.texts
            progress("training the tokenizer", len(texts))
            self.processor = Tokenizer.train(texts, vocab_size=self.vocab_size)
        self.processor.save(folder / TOKENIZER)
        plain = {"labels": self.labels, "multi_label": self.multi_label}
        (folder / LABELS).write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")

    def encode(self, records: Sequence[Labeled]) -> list[Row | LeftOut]:
        encoded = self.processor.encode_batch([record.text for record in records])
        known = {label: i for i, label in enumerate(self.labels)}
        rows: list[Row | LeftOut] = []
        for labeled, bare in zip(records, encoded, strict=True):
            numbers = [known[label] for label in labeled.labels if label in known]
            if len(numbers) < len(labeled.labels):
                rows.append(LeftOut("a label that training has not"))
            else:
                rows.append(
                    (self.processor.marked(bare, max_length=self.max_tokens), numbers, hashed_words(labeled.text))
                )
        return rows

    def load(self, folder: Path) -> None:
        if not self._given:
            self.processor = Tokenizer.load(folder / TOKENIZER)
        plain = json.loads((folder / LABELS).read_text(encoding="utf-8"))
        self.labels, self.multi_label = plain["labels"], plain["multi_label"]

    def record(self, plain: Sequence[Any]) -> Labeled:
        return Labeled(*plain)


def labeled_text(record: Record) -> Labeled | BadRow:
    """The text and labels of a record; a list of labels may be empty, a single one may not."""
    text = text_of(record, "text")
    if isinstance(text, BadRow):
        return text
    value = record.values["label"]
    labels = [str(label).strip() for label in (value if isinstance(value, list | tuple) else [value])]
    if not all(labels) or (not labels and not isinstance(value, list)):
        return BadRow(record.place, "empty label", f"the text is {text!r:.80}")
    return Labeled(text, list(dict.fromkeys(labels)), record.place)
