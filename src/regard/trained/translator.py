"""A trained translator as one object: what `regard.load` gives."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from regard.attention.check import is_integer
from regard.data.rows import Pair
from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer
from regard.decode.search import Beam, Search
from regard.errors import CheckpointError, DataError, UnsupportedError
from regard.lens.alignment import Alignment
from regard.lens.see import look
from regard.models.seq2seq import Seq2Seq
from regard.tasks.evaluate import Evaluation, evaluate
from regard.tasks.translate import Translation, check_texts, translate
from regard.trained import folder as folders
from regard.trained.generation import Wish, wish

SHIPPED = Path(__file__).parents[1] / "shipped" / "en-it"
MAX_TOKENS = 256  # what training leaves out beyond, unless it was told another number


@final
class Translator:
    """A model with its tokenizer, and what the two can do.

    Args:
        module: the torch module; `module(source, target)` gives named results, `logits` among them.
        tokenizer: what it was trained with; None if its folder has none, and then only the module can be used.
        config: what else is known of it, such as how it was trained under "training".
    """

    def __init__(self, module: Seq2Seq, tokenizer: Any, config: Mapping[str, Any] | None = None) -> None:
        self.module, self._tokenizer, self.config = module, tokenizer, dict(config or {})

    @property
    def tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            CheckpointError: the model's folder has none.
        """
        if self._tokenizer is None:
            raise CheckpointError(
                "the model's folder has no tokenizer that regard knows, which turns text into ids; expected "
                "tokenizer.json, spiece.model, or source.spm, target.spm and vocab.json in it. Token ids can be given "
                "to rg.generate(model.module, ...)"
            )
        return self._tokenizer

    @property
    def longest(self) -> int:
        """Tokens of the longest source that the model was trained on, the end mark included."""
        longest = self._trained("max_tokens") or MAX_TOKENS
        return longest if self.module.longest is None else min(longest, self.module.longest)

    @property
    def usual(self) -> int:
        """Tokens beyond which a text is split at sentence ends: what most sources of the training had, or `longest`."""
        return min(self._trained("usual_tokens") or self.longest, self.longest)

    def _trained(self, name: str) -> int | None:
        training = self.config.get("training")
        found = training.get(name) if isinstance(training, dict) else None
        return found if is_integer(found) and found > 0 else None

    def wish(self, task: str | None = None, *, search: Search | None = None) -> Wish | None:
        """How a published checkpoint wants its targets looked for, None for a model of regard's own.

        Args:
            task: one of those that its config.json names; None for none.
            search: one that goes before the checkpoint's.

        Returns:
            The search, rules for the tokens, the greatest length and the prefix.

        Raises:
            ConfigError: a task that it does not name.
            UnsupportedError: a wish that cannot be met.
        """
        fields = self.config.get("published")
        if not isinstance(fields, dict):
            fields = None if task is None else {}
        found = None if fields is None else wish(fields, task, search=search)
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
        batch_size: int = 32,
    ) -> list[Translation]:
        """The translations of texts; `str` of one is its best text.

        Args:
            texts: any texts; long ones are split at sentence ends and joined again.
            search: `Beam`, `Greedy` or `Sample`; by default what a published checkpoint asks for, or `Beam()`. The
                checkpoint's rules for tokens, its lengths and its prefix hold in any case.
            prefix: what the model reads before each text, such as "translate English to German: "; by default that of
                the task.
            task: one of those that a published checkpoint's config.json names, such as "translation_en_to_de".
            batch_size: sentences that run together.

        Returns:
            A translation for each text, in order, with `.text`, `.score` and all `.candidates`.

        Raises:
            DataError: something else than a list of texts.
            ConfigError: a task that the checkpoint does not name.
            UnsupportedError: no search, where the checkpoint asks for what regard does not do.
        """
        how = self._how(search, prefix, task) | {"longest": self.longest, "usual": self.usual}
        return translate(self.module, self.tokenizer, texts, **how, batch_size=batch_size)

    def _how(self, search: Search | None, prefix: str | None, task: str | None) -> dict[str, Any]:
        """The search, the rules, the prefix and the greatest length: what is said here, or by the checkpoint."""
        wished = self.wish(task, search=search)
        if wished is None:
            return {"search": search or Beam(), "prefix": prefix or ""}
        return {
            "search": wished.search,
            "constraints": wished.constraints,
            "prefix": wished.prefix if prefix is None else prefix,
            "max_length": wished.limit(1),  # after the start mark
        }

    def see(
        self,
        text: str,
        target: str | None = None,
        *,
        search: Search | None = None,
        prefix: str | None = None,
        task: str | None = None,
    ) -> Alignment:
        """What each word of a translation attended to.

        Args:
            text: the source.
            target: a translation to look at; None for the model's own.
            search: how the model's own is looked for; as for `translate`.
            prefix, task: as for `translate`.

        Returns:
            The weights of all layers and heads between words.

        Raises:
            DataError: a text that is blank, or longer than the model was trained on.
        """
        check_texts([text])
        search = Beam() if search is None and target is not None else search  # none is made, and none can be refused
        text, plain = str(self._how(search, prefix, task)["prefix"]) + text.strip(), text
        tokens = len(self.tokenizer.encode(text))
        if not plain.strip() or tokens >= self.longest:
            raise DataError(f"text has {tokens} tokens; expected 1 to {self.longest - 1}: see one or a few sentences")
        if target is None:
            how = self._how(search, prefix, task) | {"longest": self.longest}
            [chosen] = translate(self.module, self.tokenizer, [plain], **how)[0].candidates[0].tokens
        else:
            check_texts([target])
            of_targets = {"target": True} if isinstance(self.tokenizer, SentencePieceTokenizer) else {}
            chosen = self.tokenizer.encode(target.strip(), **of_targets)
        return look(self.module, self.tokenizer, text.strip(), chosen)

    def align(self, translation: Translation) -> str:
        """Which source word each word of a translation came from, as "0-0 2-1": source, target, from 0 (Pharaoh)."""
        links, read, written = [], 0, 0
        for piece, tokens in zip(translation.pieces, translation.candidates[0].tokens, strict=True):
            if not piece.text.strip():
                continue
            seen = look(self.module, self.tokenizer, piece.text.strip(), tokens)
            for link in seen.pharaoh().split():
                source, target = map(int, link.split("-"))
                links.append(f"{read + source}-{written + target}")
            read, written = read + len(seen.source) - 1, written + len(seen.target) - 1  # without the end marks
        return " ".join(links)

    def evaluate(
        self,
        pairs: Iterable[Pair | tuple[str, str]],
        *,
        search: Search | None = None,
        prefix: str | None = None,
        task: str | None = None,
        batch_size: int = 32,
    ) -> Evaluation:
        """BLEU, chrF and speed on pairs of a source and its reference.

        Args:
            pairs: sources and references.
            search: as for `translate`.
            prefix, task: as for `translate`.
            batch_size: sentences that run together.

        Returns:
            The scores over all and by length, and the translations.

        Raises:
            DataError: no pairs.
            ConfigError, UnsupportedError: as for `translate`.
        """
        how = self._how(search, prefix, task) | {"longest": self.longest, "usual": self.usual}
        return evaluate(self.module, self.tokenizer, pairs, **how, batch_size=batch_size)

    def save(self, folder: str | Path, *, dtype: str = "float32") -> None:
        """Write it as a folder that `regard.load` reads.

        Args:
            folder: made if missing.
            dtype: of the weights on disk: float32, float16 or bfloat16.

        Raises:
            ConfigError: an unknown dtype.
            CheckpointError: weights that cannot be written so.
        """
        folders.save(folder, self.module, self._tokenizer, self.config, dtype=dtype)
