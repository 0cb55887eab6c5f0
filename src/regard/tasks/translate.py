"""Translate: pairs of a source text and its translation."""

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

MAX_TOKENS = 256  # what training leaves out beyond, unless it was told another number
T5_TOKENS = 512  # that T5 was trained on, unless its config.json says another number
SUMMARY = 0.5  # tokens of targets for each of sources, below which a model is taken for one that summarizes


@final
class Translator(Runner):
    """A model that translates, with its tokenizer.

    Args:
        module: the torch module; `module(inputs, lengths, targets)` gives named results, `logits` among them.
        tokenizer: what it was trained with; None if its folder has none, and then only the module can be used.
        config: what else is known of it, such as how it was trained under "training".
    """

    job: ClassVar[str] = "translate"
    tokenizer_files: ClassVar[str] = "tokenizer.json, spiece.model, or source.spm, target.spm and vocab.json"

    @property
    def longest(self) -> int:
        """Tokens of the longest source that the model was trained on, the end mark included."""
        longest = self._trained("max_tokens") or (self._positions() if isinstance(self.module, T5) else MAX_TOKENS)
        return longest if self.module.longest is None else min(longest, self.module.longest)

    @property
    def usual(self) -> int:
        """Tokens beyond which a text is split at sentence ends: what most sources of the training had, or `longest`."""
        return min(self._trained("usual_tokens") or self.longest, self.longest)

    @property
    def whole(self) -> bool:
        """Whether texts are read whole however long: those to be summarized, and T5's but for translations."""
        training = self.config.get("training")
        ratio = training.get("length_ratio") if isinstance(training, dict) else None
        return isinstance(self.module, T5) or (isinstance(ratio, float) and ratio < SUMMARY)

    def _positions(self) -> int:
        fields = self.config.get("published")
        found = fields.get("n_positions") if isinstance(fields, dict) else None
        return found if is_integer(found) and found > 0 else T5_TOKENS

    def _bounds(self, whole: bool | None) -> dict[str, Any]:
        """How long the texts may be that are read at a time."""
        usual = None if "published" in self.config else self.usual
        return {"longest": self.longest, "usual": usual, "whole": self.whole if whole is None else whole}

    def _trained(self, name: str) -> int | None:
        training = self.config.get("training")
        found = training.get(name) if isinstance(training, dict) else None
        return found if is_integer(found) and found > 0 else None

    def generation_config(self, task: str | None = None, *, search: Search | None = None) -> GenerationConfig | None:
        """How a published checkpoint wants its targets looked for, None for a model of regard's own.

        Args:
            task: one of those that its config.json names; None for none.
            search: one that goes before the checkpoint's.

        Returns:
            The search, rules for the tokens, the greatest length and the prefix.

        Raises:
            ConfigError: a task that it does not name.
            UnsupportedError: a setting that cannot be honored.
        """
        fields = self.config.get("published")
        if not isinstance(fields, dict):
            fields = None if task is None else {}
        found = None if fields is None else generation_config(fields, task, search=search)
        if found is not None and found.stop:
            raise UnsupportedError(
                f"the checkpoint asks for stop_strings={list(found.stop)!r:.60}, before which a target shall end; that "
                "is not supported of models that translate: take it out of generation_config.json"
            )
        return found

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
            batch_size: sentences that run together.

        Returns:
            A translation for each text, in order, with `.text`, `.score`, `.finished` and all `.candidates`.

        Raises:
            DataError: something else than a list of texts, or a text that is too long and not to be split.
            ConfigError: a task that the checkpoint does not name.
            UnsupportedError: no search, where the checkpoint asks for what regard does not do.
        """
        how = self._how(search, prefix, task, max_length) | self._bounds(whole)
        return translate(self.module, self.tokenizer, texts, **how, batch_size=batch_size)

    def _how(
        self, search: Search | None, prefix: str | None, task: str | None, max_length: int | None
    ) -> dict[str, Any]:
        """The search, the rules, the prefix and the greatest length: what is said here, or by the checkpoint."""
        wanted = self.generation_config(task, search=search) or GenerationConfig(search=search or Beam())
        said = wanted.limit(1) if max_length is None else max_length  # after the start mark
        return {
            "search": wanted.search,
            "constraints": wanted.constraints,
            "prefix": wanted.prefix if prefix is None else prefix,
            "max_length": self._length() if said is None else said,
        }

    def _length(self) -> Callable[[int], int] | None:
        """The greatest length of targets, by that of their source, if those of the training were long."""
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
    ) -> Alignment:
        """What each word of a translation attended to.

        Args:
            text: the source. Where `translate` splits it, its pieces attend to themselves alone.
            target: a translation to look at, of the whole text; None for the model's own.
            search: how the model's own is looked for; as for `translate`.
            prefix, task, max_length, whole: as for `translate`.

        Returns:
            The weights of all layers and heads between words.

        Raises:
            DataError: a text that is blank, or longer than the model was trained on.
        """
        check_texts([text])
        search = Beam() if search is None and target is not None else search  # none is made, and none can be refused
        how = self._how(search, prefix, task, max_length)
        tokens = len(words_read(self.tokenizer, text, how["prefix"]).tokens)
        alignments: list[Alignment] = []  # none of a blank text
        if tokens < self.longest:
            if target is None:
                [translation] = translate(self.module, self.tokenizer, [text], **how, **self._bounds(whole))
            else:
                translation = self._translated(text, target, how["prefix"])
            alignments = list(self._look(translation))
        if not alignments:
            raise DataError(f"text has {tokens} tokens; expected 1 to {self.longest - 1}: see one or a few sentences")
        return joined(alignments)

    def _translated(self, text: str, target: str, prefix: str) -> Translation:
        """A translation that the model did not write."""
        check_texts([target])
        tokens = self.tokenizer.encode(target.strip(), target=True)
        source = read_source(self.tokenizer, text, longest=self.longest, prefix=prefix)
        return Translation(text, source.pieces, [Candidate(target, 0.0, [tokens], True)], source.prefix)

    def _look(self, translation: Translation) -> Iterator[Alignment]:
        """What the pieces of a translation attended to, their words numbered by those of the whole text."""
        pieces, [best, *_] = translation.pieces, translation.candidates
        texts = self.tokenizer.decode_batch(best.tokens)
        inside = "".join(part for piece in pieces for part in piece)
        read_before, written_before = len(translation.source.split()) - len(inside.split()), 0
        sides = zip(pieces, best.tokens, texts, gaps(pieces, texts), strict=True)
        for i, (piece, tokens, text, gap) in enumerate(sides):
            read = words_read(self.tokenizer, piece.text, translation.prefix).after(read_before)
            written = words_written(self.tokenizer, tokens).after(written_before)
            if any(number is not None for number in read.numbers):
                yield dataclasses.replace(look_at(self.module, read, written), finished=best.finished)
            read_before, written_before = read.count, written.count
            if i + 1 < len(pieces):  # a word that was too long goes on in the next piece
                read_before -= not piece.gap and within_word(piece.text, pieces[i + 1].text)
                written_before -= not gap and within_word(text, texts[i + 1])

    def align(self, translation: Translation) -> str:
        """Which source word each word of a translation came from, as "0-0 2-1": source, target, from 0 (Pharaoh).

        Words are those of `translation.source` and `translation.text`, as `str.split` parts them; in scripts that part
        no words, the pieces of the vocabulary.
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
            batch_size: sentences that run together.
            tokenize: how BLEU finds words, as sacrebleu names it: "13a", "intl", "zh", "ja-mecab", "ko-mecab",
                "char", "flores101", "flores200" or "none".

        Returns:
            The scores over all and by length, and the translations.

        Raises:
            DataError: no pairs.
            UnsupportedError: as for `translate`.
            ConfigError: a task that the checkpoint does not name; a tokenizer that sacrebleu has not, or whose package
                or vocabulary is not here.
        """
        how = self._how(search, prefix, task, max_length) | self._bounds(whole)
        return evaluate(self.module, self.tokenizer, pairs, **how, batch_size=batch_size, tokenize=tokenize)


@final
class Translate(TextToText):
    """Training a translator."""

    name = Translator.job
    fields = {"source": "source", "target": "target"}  # noqa: RUF012
    runner = Translator
