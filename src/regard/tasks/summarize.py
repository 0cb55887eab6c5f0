"""Summarization: a summarizer, its training task and its evaluation."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

from torch import nn

from regard.data.prepare import LeftOut, Preparation, Row
from regard.data.rows import Pair
from regard.data.store import Column
from regard.data.word_tokenizer import WordTokenizer
from regard.decode.generate import generate
from regard.decode.search import Beam, Hypothesis, Search
from regard.errors import DataError
from regard.lens.alignment import Alignment
from regard.lens.see import look_at
from regard.models.pointer_generator import PointerGenerator
from regard.models.registry import build
from regard.tasks.check import check_texts
from regard.tasks.document_reader import reader_of
from regard.tasks.encoder_decoder import vocabulary_of
from regard.tasks.rouge import SummaryEvaluation, copied_share, first_sentence, first_words, mean_words, rouge
from regard.tasks.runner import Runner
from regard.tasks.text_pairs import SAMPLED_PAIRS, TOKENIZER, TOO_LONG, TextPairs
from regard.tasks.text_to_text import TextToText

MAX_TOKENS = 256  # of a document that are read, unless the model was trained with another limit
WORDS = 20_000  # default size of a word vocabulary
NOTHING = Hypothesis(tokens=[], score=0.0, finished=True)  # of a blank document


class Summary(NamedTuple):
    """A document and its summary."""

    document: str
    text: str
    score: float  # of the search: the normalized log-probability
    tokens: list[int]
    finished: bool  # whether it ends with the end token
    cut: bool  # whether the document was truncated

    def __str__(self) -> str:
        return self.text


@final
class Summarizer(Runner):
    """A model that summarizes, with its tokenizer.

    Args:
        module: the torch module; `module(inputs, lengths, targets)` gives named results, `logits` among them.
        tokenizer: of the model: subwords, or words for a pointer-generator.
        config: fields of config.json, training settings under "training".
    """

    job: ClassVar[str] = "summarize"

    def summarize(
        self,
        texts: Sequence[str],
        *,
        search: Search = Beam(),
        max_length: int | None = None,
        batch_size: int = 32,
    ) -> list[Summary]:
        """The summaries of documents; `str` of one is its text.

        Args:
            texts: documents; those beyond the maximum length are truncated, which `cut` says.
            search: `Beam`, `Greedy` or `Sample`.
            max_length: maximum number of tokens of a summary; by default 16 more than the longest in training.
            batch_size: documents per batch.

        Returns:
            A summary for each document, in order.

        Raises:
            DataError: texts that are not a list of strings.
        """
        check_texts(texts)
        reader = reader_of(self.tokenizer)
        documents = [reader.read(text, self._max_tokens) for text in texts]
        hypotheses = iter(
            generate(
                self.module,
                [document.ids for document in documents if document.ids],
                search=search,
                max_length=max_length or self._max_summary,
                batch_size=batch_size,
            )
        )
        summaries = []
        for text, document in zip(texts, documents, strict=True):
            best = next(hypotheses)[0] if document.ids else NOTHING
            written = reader.decode(best.tokens, document)
            summaries.append(Summary(text, written, best.score, best.tokens, best.finished, document.cut))
        return summaries

    def evaluate(
        self,
        records: Iterable[Pair | tuple[str, str]],
        *,
        search: Search = Beam(),
        max_length: int | None = None,
        batch_size: int = 32,
    ) -> SummaryEvaluation:
        """ROUGE of summaries, beside two baselines: the first sentence, and the first words.

        Args:
            records: documents and reference summaries.
            search, max_length, batch_size: as for `summarize`.

        Returns:
            The scores.

        Raises:
            DataError: no records.
        """
        rows = [(record[0], record[1]) for record in records]
        if not rows:
            raise DataError("no records to evaluate; give a file with at least one row")
        documents, references = [row[0] for row in rows], [row[1] for row in rows]
        start = time.perf_counter()
        summaries = self.summarize(documents, search=search, max_length=max_length, batch_size=batch_size)
        seconds = time.perf_counter() - start
        texts, count = [summary.text for summary in summaries], mean_words(references)
        known = reader_of(self.tokenizer).known_words()
        return SummaryEvaluation(
            scores=rouge(texts, references),
            first_sentence=rouge([first_sentence(document) for document in documents], references),
            first_words=rouge([first_words(document, count) for document in documents], references),
            count=count,
            copied=None if known is None else copied_share(texts, references, known),
            documents=len(rows),
            cut=sum(summary.cut for summary in summaries),
            unfinished=sum(not summary.finished for summary in summaries),
            seconds=seconds,
        )

    def see(self, text: str, target: str | None = None, *, search: Search = Beam()) -> Alignment:
        """Attention of each word of a summary to the document.

        Args:
            text: the document.
            target: a given summary; None to generate one.
            search: for generating one.

        Returns:
            The weights of all layers and heads between words.

        Raises:
            DataError: a blank document.
        """
        check_texts([text] if target is None else [text, target])
        reader = reader_of(self.tokenizer)
        document = reader.read(text, self._max_tokens)
        if not document.ids:
            raise DataError(f"text has no words: {text!r:.80}; expected a document")
        summary = self.summarize([text], search=search)[0].tokens if target is None else reader.encode(target, document)
        return look_at(self.module, reader.words_read(text, document), reader.words_written(summary, document))

    @property
    def _max_tokens(self) -> int:
        return self._trained("max_tokens", MAX_TOKENS)

    @property
    def _max_summary(self) -> int:
        return self._trained("max_summary", 48) + 16

    def _trained(self, name: str, default: int) -> int:
        value = self.config.get("training", {}).get(name, default)
        return int(value)


@final
class WordPairs(Preparation[Pair]):
    """Documents and summaries as words, with ids for words outside the vocabulary.

    Args:
        vocab_size: number of words of the vocabulary.
        max_tokens: maximum number of words of a document, which is truncated, and of a summary.
        tokenizer: used instead of making one.
    """

    columns: ClassVar[Mapping[str, Column]] = TextPairs.columns

    def __init__(self, *, vocab_size: int, max_tokens: int, tokenizer: WordTokenizer | None = None) -> None:
        self.vocab_size, self.max_tokens = vocab_size, max_tokens
        self.processor, self._has_tokenizer = tokenizer, tokenizer is not None
        self._texts: list[str] = []

    @property
    def options(self) -> dict[str, Any]:
        tokenizer = self.processor.fingerprint if self._has_tokenizer and self.processor else None
        return {"words": self.vocab_size, "max_tokens": self.max_tokens, "tokenizer": tokenizer}

    def key(self, record: Pair) -> str:
        return record.source

    def survey(self, record: Pair) -> None:
        if len(self._texts) < 2 * SAMPLED_PAIRS:
            self._texts += record.source, record.target

    def finish_survey(self, folder: Path, progress: Any) -> None:
        if not self._has_tokenizer:
            progress("counting words", len(self._texts))
            self.processor = WordTokenizer.train(self._texts, vocab_size=self.vocab_size)
        self.processor.save(folder / TOKENIZER)  # type: ignore[union-attr]

    def encode(self, records: Sequence[Pair]) -> list[Row | LeftOut]:
        rows: list[Row | LeftOut] = []
        for record in records:
            source, others = self.processor.encode_source(record.source, self.max_tokens)  # type: ignore[union-attr]
            target = self.processor.encode_target(record.target, others)  # type: ignore[union-attr]
            rows.append((source, target) if len(target) <= self.max_tokens else LeftOut(TOO_LONG))
        return rows

    def load(self, folder: Path) -> None:
        if not self._has_tokenizer:
            self.processor = WordTokenizer.load(folder / TOKENIZER)

    def record(self, plain: Sequence[Any]) -> Pair:
        return Pair(*plain)


@final
class Summarize(TextToText):
    """Training a summarizer: a pointer-generator on words, or another encoder-decoder on subwords."""

    name = Summarizer.job
    runner = Summarizer
    fields = {"document": "document", "summary": "summary"}  # noqa: RUF012
    models = ("pointer-generator", *TextToText.models)
    cuts_sources = True

    @property
    def copies(self) -> bool:
        """Whether the model copies words from the document."""
        if self.start is not None:
            return isinstance(self.start.module, PointerGenerator)
        return (self.options.model or self.models[0]) == "pointer-generator"

    def check_options(self) -> None:
        self.refuse(parallel=self.options.parallel)
        super().check_options()
        if self.copies:
            self.refuse(attention=self.options.attention)

    def make_preparation(self) -> Any:
        if not self.copies:
            return super().make_preparation()
        self.check_start()
        tokenizer = None if self.start is None else self.start.tokenizer
        size = self.options.vocab_size or WORDS
        return WordPairs(vocab_size=size, max_tokens=self.options.max_tokens, tokenizer=tokenizer)

    def build(self) -> nn.Module:
        if self.start is not None or not self.copies:
            return super().build()
        config = self.model_config(vocabulary_of(self.tokenizer))
        module: nn.Module = build(config)
        return module

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        pair = self.data.valid_records[number % len(self.data.valid_records)]
        runner = Summarizer(module, self.tokenizer, {"training": self.sizes_of_training()})  # type: ignore[arg-type]
        [summary] = runner.summarize([pair.source], search=Beam(1))
        return [("document", f"{pair.source:.300}"), ("summary", pair.target), ("output", summary.text)]

    def sizes_of_training(self) -> dict[str, Any]:
        max_summary = int(self.data.train.lengths("target").max())
        return {"max_tokens": self.options.max_tokens, "max_summary": max_summary}
