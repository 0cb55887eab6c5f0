"""Encoding and decoding of documents and summaries, as subwords or as words."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, final

from regard.data.text_tokenizer import TextTokenizer
from regard.data.word_tokenizer import WordTokenizer, split_words
from regard.lens.words import Words, words_read, words_written


class Document(NamedTuple):
    """An encoded document."""

    ids: list[int]
    unknown: list[str]  # its words outside the vocabulary; their ids follow the vocabulary's
    cut: bool  # whether it was truncated


class DocumentReader(Protocol):
    """Converts documents and summaries to token ids and back."""

    def read(self, text: str, max_tokens: int) -> Document:
        """Encode a document, truncated to `max_tokens` ids."""
        ...

    def encode(self, summary: str, document: Document) -> list[int]:
        """Encode a summary of the document."""
        ...

    def decode(self, ids: Sequence[int], document: Document) -> str:
        """Decode a summary of the document."""
        ...

    def known_words(self) -> set[str] | None:
        """Words of the vocabulary; None for subwords."""
        ...

    def words_read(self, text: str, document: Document) -> Words:
        """Map the document's words to its ids."""
        ...

    def words_written(self, ids: Sequence[int], document: Document) -> Words:
        """Map a summary's words to its ids."""
        ...


@final
class SubwordReader(DocumentReader):
    """Documents as subwords."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer

    def read(self, text: str, max_tokens: int) -> Document:
        whole = self.tokenizer.encode(text)
        return Document(whole[:max_tokens], [], len(whole) > max_tokens)

    def encode(self, summary: str, document: Document) -> list[int]:
        return self.tokenizer.encode(summary)

    def decode(self, ids: Sequence[int], document: Document) -> str:
        return self.tokenizer.decode(ids)

    def known_words(self) -> set[str] | None:
        return None

    def words_read(self, text: str, document: Document) -> Words:
        words, ids = words_read(self.tokenizer, text), document.ids
        return Words(ids, [span for span in words.spans if span[1].stop <= len(ids)], words.numbers, words.count)

    def words_written(self, ids: Sequence[int], document: Document) -> Words:
        return words_written(self.tokenizer, list(ids))


@final
class WordReader(DocumentReader):
    """Documents as words; those outside the vocabulary get ids per document, so that they can be copied."""

    def __init__(self, tokenizer: WordTokenizer) -> None:
        self.tokenizer = tokenizer

    def read(self, text: str, max_tokens: int) -> Document:
        ids, unknown = self.tokenizer.encode_source(text, max_tokens)
        return Document(ids, unknown, len(split_words(text)) > max_tokens)

    def encode(self, summary: str, document: Document) -> list[int]:
        return self.tokenizer.encode_target(summary, document.unknown)

    def decode(self, ids: Sequence[int], document: Document) -> str:
        return self.tokenizer.decode(ids, document.unknown)

    def known_words(self) -> set[str] | None:
        return set(self.tokenizer.pieces(range(self.tokenizer.size)))

    def words_read(self, text: str, document: Document) -> Words:
        return self._each_a_word(document.ids, document)

    def words_written(self, ids: Sequence[int], document: Document) -> Words:
        return self._each_a_word(ids, document)

    def _each_a_word(self, ids: Sequence[int], document: Document) -> Words:
        names = self.tokenizer.pieces(ids, document.unknown)
        spans = [(name, range(i, i + 1)) for i, name in enumerate(names)]
        return Words(list(ids), spans, list(range(len(spans))), len(spans))


def reader_of(tokenizer: Any) -> DocumentReader:
    """The reader for a tokenizer."""
    return WordReader(tokenizer) if isinstance(tokenizer, WordTokenizer) else SubwordReader(tokenizer)
