"""Word tokenizer: whole words and punctuation, with ids for a source's out-of-vocabulary words."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from regard.data.spaces import normalized
from regard.errors import CheckpointError, DataError

MARKS = ("<pad>", "<s>", "</s>", "<unk>")
WORD = re.compile(r"\w+(?:[-'’.]\w+)*|[^\w\s]")  # noqa: RUF001 - words with hyphens, apostrophes or points inside; single signs
NO_SPACE_BEFORE, NO_SPACE_AFTER = set(".,;:!?%)]}»”’…"), set("([{«“‘")  # noqa: RUF001 - quotes


@final
class WordTokenizer:
    """A tokenizer of whole words.

    Args:
        words: of the vocabulary, by descending frequency.
    """

    kind = "words"
    pad, bos, eos, unk = range(4)

    def __init__(self, words: Sequence[str]) -> None:
        self._words = [*MARKS, *words]
        self._ids = {word: i for i, word in enumerate(self._words)}

    @staticmethod
    def train(texts: Iterable[str], *, vocab_size: int = 20_000) -> "WordTokenizer":
        """Train a tokenizer: the most frequent words of texts, up to `vocab_size` with special tokens."""
        counts = Counter(word for text in texts for word in split_words(text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return WordTokenizer(ranked[: vocab_size - len(MARKS)])

    @staticmethod
    def load(path: str | Path) -> "WordTokenizer":
        """Load a tokenizer that `save` wrote.

        Raises:
            CheckpointError: a file that is damaged, or of another kind.
        """
        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} cannot be read as a vocabulary of words: {error}") from error
        words = plain.get("words") if isinstance(plain, dict) else None
        if not isinstance(words, list):
            raise CheckpointError(f'{path} is no vocabulary of words: "words" is {words!r:.80}; expected a list')
        if wrong := [word for word in words if not isinstance(word, str)]:
            raise CheckpointError(f'{path} is no vocabulary of words: "words" has {wrong[0]!r:.80}; expected texts')
        return WordTokenizer(words)

    def save(self, path: str | Path) -> None:
        """Write the words as JSON."""
        plain = {"kind": self.kind, "words": self._words[len(MARKS) :]}
        Path(path).write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")

    @property
    def size(self) -> int:
        """The number of words in the vocabulary, special tokens included."""
        return len(self._words)

    @property
    def fingerprint(self) -> str:
        """A hash, equal for equal vocabularies."""
        return hashlib.sha256("\n".join(self._words).encode()).hexdigest()

    @property
    def roles(self) -> dict[str, str]:
        """Special tokens by role."""
        return dict(zip(("pad", "bos", "eos", "unk"), MARKS, strict=True))

    def settings(self) -> dict[str, Any]:
        """Settings that are not in the file that `save` writes, as plain data."""
        return {"kind": self.kind, "roles": self.roles}

    def use(self, settings: Mapping[str, Any]) -> None:
        """Apply what `settings` returned; there is nothing to apply."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text's words, `unk` for out-of-vocabulary words."""
        return [self._ids.get(word, self.unk) for word in split_words(text)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        return [self.encode(text) for text in texts]

    def encode_source(self, text: str, max_words: int | None = None) -> tuple[list[int], list[str]]:
        """Encode a source, with ids for its out-of-vocabulary words.

        Args:
            text: the source.
            max_words: maximum number of words; None for all.

        Returns:
            Ids, from N on for words outside of the vocabulary of N words; and these words, in the order of their ids.
        """
        others: dict[str, int] = {}
        ids = []
        for word in split_words(text)[:max_words]:
            number = self._ids.get(word)
            ids.append(self.size + others.setdefault(word, len(others)) if number is None else number)
        return ids, list(others)

    def encode_target(self, text: str, others: Sequence[str]) -> list[int]:
        """Encode a target, with the ids of its source's out-of-vocabulary words, `others`."""
        beyond = {word: self.size + i for i, word in enumerate(others)}
        return [self._ids.get(word, beyond.get(word, self.unk)) for word in split_words(text)]

    def pieces(self, ids: Sequence[int], others: Sequence[str] = ()) -> list[str]:
        """The word of each id."""
        names = [*self._words, *others]
        if wrong := [i for i in ids if not 0 <= i < len(names)]:
            raise DataError(f"ids {wrong[:8]} are beyond the {self.size:,} words and {len(others)} of the source")
        return [names[i] for i in ids]

    def decode(self, ids: Sequence[int], others: Sequence[str] = ()) -> str:
        """The text of ids with usual spacing, without special tokens except `unk`."""
        text = ""
        for word in self.pieces([i for i in ids if i not in (self.pad, self.bos, self.eos)], others):
            joined = not text or word in NO_SPACE_BEFORE or text[-1] in NO_SPACE_AFTER
            text += word if joined else f" {word}"
        return text

    def words(self, ids: Sequence[int]) -> list[tuple[str, range]]:
        """Each word with its range of ids."""
        return [(word, range(i, i + 1)) for i, word in enumerate(self.pieces(ids))]


def split_words(text: str) -> list[str]:
    """The words and punctuation of a text, after normalization."""
    return WORD.findall(normalized(text))
