"""Translation: a translator and its training task."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, final

from regard.attention.check import is_integer
from regard.checkpoints.generation import GenerationConfig, generation_config
from regard.data.rows import Pair
from regard.decode.generate import twice_as_long
from regard.decode.search import Beam, Search
from regard.errors import DataError, UnsupportedError
from regard.lens.alignment import Alignment, joined
from regard.lens.see import look_at
from regard.lens.words import words_read, words_written
from regard.models.t5 import T5
from regard.tasks.check import check_texts
from regard.tasks.evaluate import TOKENIZE, Evaluation, evaluate
from regard.tasks.runner import Runner
from regard.tasks.source import read_source
from regard.tasks.text_to_text import TextToText
from regard.tasks.translation import Candidate, Translation, gaps, translate, within_word

MAX_TOKENS = 256  # training's default maximum length
T5_TOKENS = 512  # T5's training length, unless config.json has n_positions
SUMMARY = 0.5  # ratio of target to source tokens below which a model is taken for a summarizer


@final
class Translator(Runner):
    """A model that translates, with its tokenizer.

    Args:
        module: the torch module; `module(inputs, lengths, targets)` gives named results, `logits` among them.
        tokenizer: of the model; None if its folder has none, and then only the module can be used.
        config: fields of config.json, training settings under "training".
    """

    job: ClassVar[str] = "translate"
    tokenizer_files: ClassVar[str] = "tokenizer.json, spiece.model, or source.spm, target.spm and vocab.json"

    @property
    def max_source_length(self) -> int:
        """Maximum number of tokens of a source, the end token included."""
        max_length = self._trained("max_tokens") or (self._positions() if isinstance(self.module, T5) else MAX_TOKENS)
        return max_length if self.module.max_length is None else min(max_length, self.module.max_length)

    @property
    def split_length(self) -> int:
        """Number of tokens beyond which a text is split at sentence ends: the 90th percentile of training."""
        return min(self._trained("usual_tokens") or self.max_source_length, self.max_source_length)

    @property
    def whole(self) -> bool:
        """Whether texts are never split: true of models that summarize, and of T5 except for translation."""
        training = self.config.get("training")
        ratio = training.get("length_ratio") if isinstance(training, dict) else None
        return isinstance(self.module, T5) or (isinstance(ratio, float) and ratio < SUMMARY)

    def _positions(self) -> int:
        fields = self.config.get("published")
        value = fields.get("n_positions") if isinstance(fields, dict) else None
        return value if is_integer(value) and value > 0 else T5_TOKENS

    def _length_options(self, whole: bool | None) -> dict[str, Any]:
        """Arguments of `translate` that concern the length of sources."""
        split_length = None if "published" in self.config else self.split_length
        return {
            "max_source_length": self.max_source_length,
            "split_length": split_length,
            "whole": self.whole if whole is None else whole,
        }

    def _trained(self, name: str) -> int | None:
        training = self.config.get("training")
        value = training.get(name) if isinstance(training, dict) else None
        return value if is_integer(value) and value > 0 else None

    def generation_config(self, task: str | None = None, *, search: Search | None = None) -> GenerationConfig | None:
        """Generation settings of a published checkpoint; None for a model of regard's own.

        Args:
            task: one of those that its config.json names; None for none.
            search: overrides the checkpoint's.

        Returns:
            The search, token constraints, maximum length and prefix.

        Raises:
            ConfigError: a task that it does not name.
            UnsupportedError: a setting that is not supported.
        """
        fields = self.config.get("published")
        if not isinstance(fields, dict):
            fields = None if task is None else {}
        settings = None if fields is None else generation_config(fields, task, search=search)
        if settings is not None and settings.stop:
            raise UnsupportedError(
                f"the checkpoint asks for stop_strings={list(settings.stop)!r:.60}, before which a target shall end; "
                "that is not supported of models that translate: take it out of generation_config.json"
            )
        return settings

    def translate(
        self,
        texts: Sequence[str],
        *,
        search: Search | None = None,
        prefix: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
        whole: bool | None = None,
        batch_size: int = 32,
    ) -> list[Translation]:
        """The translations of texts; `str` of one is its best text.

        Args:
            texts: any texts; long ones are split at sentence ends and joined again, if the model is no summarizer.
            search: `Beam`, `Greedy` or `Sample`; by default what a published checkpoint asks for, or `Beam()`. The
                checkpoint's rules for tokens, its lengths and its prefix hold in any case.
            prefix: what the model reads before each text, such as "translate English to German: "; by default that of
                the task.
            task: one of those that a published checkpoint's config.json names, such as "translation_en_to_de".
            max_length: tokens of a target at most, the end mark among them; where a text is split, of each of its
                pieces. By default what a published checkpoint says, or more than the targets of the training had.
            whole: whether texts are never split; by default as the property `whole` says.
            batch_size: sentences per batch.

        Returns:
            A translation for each text, in order, with `.text`, `.score`, `.finished` and all `.candidates`.

        Raises:
            DataError: texts that are not a list of strings, or a text that is too long and not to be split.
            ConfigError: a task that the checkpoint does not name.
            UnsupportedError: no `search`, and a checkpoint whose generation config is not supported.
        """
        options = self._search_options(search, prefix, task, max_length) | self._length_options(whole)
        return translate(self.module, self.tokenizer, texts, **options, batch_size=batch_size)

    def _search_options(
        self, search: Search | None, prefix: str | None, task: str | None, max_length: int | None
    ) -> dict[str, Any]:
        """Search, constraints, prefix and maximum length: the caller's, or else the checkpoint's."""
        settings = self.generation_config(task, search=search) or GenerationConfig(search=search or Beam())
        limit = settings.limit(1) if max_length is None else max_length  # after the start token
        return {
            "search": settings.search,
            "constraints": settings.constraints,
            "prefix": settings.prefix if prefix is None else prefix,
            "max_length": self._length() if limit is None else limit,
        }

    def _length(self) -> Callable[[int], int] | None:
        """Maximum target length as a function of the source's, if targets in training were long."""
        excess = self._trained("target_excess")
        return None if excess is None else lambda source: twice_as_long(source) + excess

    def see(
        self,
        text: str,
        target: str | None = None,
        *,
        search: Search | None = None,
        prefix: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
        whole: bool | None = None,
        norms: bool = False,
    ) -> Alignment:
        """Attention of each word of a translation to the source.

        Args:
            text: the source. Where `translate` splits it, its pieces attend to themselves alone.
            target: a given translation of the whole text; None to generate one.
            search: for generating one; as for `translate`.
            prefix, task, max_length, whole: as for `translate`.
            norms: norms of the weighted values instead of the weights (Kobayashi et al. 2020, arXiv 2004.10102).

        Returns:
            The weights of all layers and heads between words.

        Raises:
            DataError: a blank text, or one longer than the model's maximum length.
        """
        check_texts([text])
        if search is None and target is not None:
            search = Beam()  # not used, so the checkpoint's cannot be refused
        options = self._search_options(search, prefix, task, max_length)
        tokens = len(words_read(self.tokenizer, text, options["prefix"]).tokens)
        alignments: list[Alignment] = []  # none of a blank text
        if tokens < self.max_source_length:
            if target is None:
                [translation] = translate(self.module, self.tokenizer, [text], **options, **self._length_options(whole))
            else:
                translation = self._translated(text, target, options["prefix"])
            alignments = list(self._look(translation, norms=norms))
        if not alignments:
            raise DataError(
                f"text has {tokens} tokens; expected 1 to {self.max_source_length - 1}: see one or a few sentences"
            )
        return joined(alignments)

    def _translated(self, text: str, target: str, prefix: str) -> Translation:
        """A given target as a `Translation`."""
        check_texts([target])
        tokens = self.tokenizer.encode(target.strip(), target=True)
        source = read_source(self.tokenizer, text, max_length=self.max_source_length, prefix=prefix)
        return Translation(text, source.pieces, [Candidate(target, 0.0, [tokens], True)], source.prefix)

    def _look(self, translation: Translation, *, norms: bool = False) -> Iterator[Alignment]:
        """Alignments of the pieces of a translation, with words numbered as in the whole text."""
        pieces, [best, *_] = translation.pieces, translation.candidates
        texts = self.tokenizer.decode_batch(best.tokens)
        inside = "".join(part for piece in pieces for part in piece)
        read_before, written_before = len(translation.source.split()) - len(inside.split()), 0
        sides = zip(pieces, best.tokens, texts, gaps(pieces, texts), strict=True)
        for i, (piece, tokens, text, gap) in enumerate(sides):
            read = words_read(self.tokenizer, piece.text, translation.prefix).after(read_before)
            written = words_written(self.tokenizer, tokens).after(written_before)
            if any(number is not None for number in read.numbers):
                yield dataclasses.replace(look_at(self.module, read, written, norms=norms), finished=best.finished)
            read_before, written_before = read.count, written.count
            if i + 1 < len(pieces):  # a word that was too long goes on in the next piece
                read_before -= not piece.gap and within_word(piece.text, pieces[i + 1].text)
                written_before -= not gap and within_word(text, texts[i + 1])

    def align(self, translation: Translation) -> str:
        """Word alignment of a translation in Pharaoh format, such as "0-0 2-1": source-target, from 0.

        Words are those of `translation.source` and `translation.text`, split by `str.split`; in scripts
        without spaces, the pieces of the vocabulary.
        """
        links = (seen.pharaoh() for seen in self._look(translation))
        return " ".join(link for link in links if link)

    def evaluate(
        self,
        pairs: Iterable[Pair | tuple[str, str]],
        *,
        search: Search | None = None,
        prefix: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
        whole: bool | None = None,
        batch_size: int = 32,
        tokenize: str = TOKENIZE,
    ) -> Evaluation:
        """BLEU, chrF and speed on pairs of a source and its reference.

        Args:
            pairs: sources and references.
            search, prefix, task, max_length, whole: as for `translate`.
            batch_size: sentences per batch.
            tokenize: BLEU's tokenizer, by sacrebleu's name: "13a", "intl", "zh", "ja-mecab", "ko-mecab",
                "char", "flores101", "flores200" or "none".

        Returns:
            The scores over all and by length, and the translations.

        Raises:
            DataError: no pairs.
            UnsupportedError: as for `translate`.
            ConfigError: a task that the checkpoint does not name; an unknown tokenizer of sacrebleu, or one whose
                package or vocabulary is not installed.
        """
        options = self._search_options(search, prefix, task, max_length) | self._length_options(whole)
        return evaluate(self.module, self.tokenizer, pairs, **options, batch_size=batch_size, tokenize=tokenize)


@final
class Translate(TextToText):
    """Training a translator."""

    name = Translator.job
    fields = {"source": "source", "target": "target"}  # noqa: RUF012
    runner = Translator
