"""regard's own subword tokenizer: byte-pair encoding with byte fallback.

Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) with a joint vocabulary of source and target. The space
before a word is part of it, as U+2581; an unknown character is encoded as its UTF-8 bytes. Encoding is lossless up to
the normalization of `regard.data.spaces`. Each digit is a piece, and letters are not merged with other characters.

Ids: 0 padding, 1 start, 2 end, 3 to 258 bytes, then characters, then merges in the order in which they were learned.
"""

import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import final

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from regard.data.spaces import normalized, normalizer
from regard.data.text_tokenizer import TextTokenizer
from regard.errors import CheckpointError, ConfigError, DataError

SPACE = "\u2581"
MARKS = ("<pad>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
RESERVED = (*MARKS, *BYTES)
LONGEST_PIECE = 16  # characters; longer pieces are mostly rulers and ornaments
RAREST = 1e-6  # share of the text, below which a character is encoded as bytes
# Letters with combining marks; a digit; other characters; each with the space before it. The bound of 64 keeps the time
# linear in the length of text without spaces.
PIECE_OF_WORD = (
    rf"{SPACE}?\p{{L}}[\p{{L}}\p{{M}}]{{0,63}}|{SPACE}?\p{{N}}|{SPACE}?[^\p{{L}}\p{{N}}{SPACE}]{{1,64}}|{SPACE}"
)
# Scripts without spaces between words: each piece counts as a word.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")


@final
class Tokenizer(TextTokenizer):
    """A byte-pair encoding tokenizer, trained on the model's texts.

    Args:
        vocabulary: id of each piece.
        merges: pairs of pieces that are merged, in the order in which they were learned.
    """

    kind = "own"
    pad, bos, eos = range(3)

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self._subwords = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
        self._pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        self.roles = dict(zip(("pad", "bos", "eos"), MARKS, strict=True))
        _set_pipeline(self._subwords)

    @staticmethod
    def train(texts: Iterable[str], *, vocab_size: int = 8000) -> "Tokenizer":
        """Train a tokenizer.

        Args:
            texts: sources and targets.
            vocab_size: maximum number of pieces; there are fewer if the texts are too small.

        Returns:
            The tokenizer.

        Raises:
            ConfigError: a vocab_size that is too small for special tokens and bytes.
        """
        if vocab_size <= len(RESERVED):
            raise ConfigError(
                f"vocab_size={vocab_size} must be above {len(RESERVED)}, the number of special tokens and bytes; 8000 "
                "is usual"
            )
        texts = list(texts)
        alphabet = _alphabet(texts, (vocab_size - len(RESERVED) + 1) // 2)
        bpe = tokenizers.Tokenizer(models.BPE(byte_fallback=True))
        _set_pipeline(bpe)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=list(RESERVED),
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            max_token_length=LONGEST_PIECE,
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        model = json.loads(bpe.to_str())["model"]
        # Merges that would form a special token, learned from texts with many "<s>", are left out.
        known = {piece: None for piece in model["vocab"] if len(piece) == 1}
        merges = []
        for left, right in map(tuple, model["merges"]):
            if left in known and right in known and left + right not in RESERVED:
                known[left + right] = None
                merges.append((left, right))
        return Tokenizer({piece: i for i, piece in enumerate([*RESERVED, *known])}, merges)

    @staticmethod
    def of_characters(texts: Iterable[str]) -> "Tokenizer":
        """Make a tokenizer whose pieces are the characters of some texts, the frequent ones first.

        Args:
            texts: sources and targets.

        Returns:
            The tokenizer. Rare characters are encoded as bytes, as those that the texts don't have.
        """
        pieces = [*RESERVED, *_alphabet(list(texts), None)]
        return Tokenizer({piece: i for i, piece in enumerate(pieces)}, [])

    @property
    def size(self) -> int:
        """The number of pieces, special tokens and bytes included."""
        return len(self._pieces)

    @property
    def fingerprint(self) -> str:
        """A hash, equal for equivalent tokenizers."""
        return hashlib.sha256(self._subwords.to_str().encode()).hexdigest()

    @property
    def before(self) -> tuple[int, ...]:
        """Ids of the special tokens before a text."""
        return (self.bos,)

    @property
    def after(self) -> tuple[int, ...]:
        """Ids of the special tokens after a text."""
        return (self.eos,)

    def id_of(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        number: int | None = self._subwords.token_to_id(token)
        return number

    def token_of(self, number: int) -> str:
        """The token of an id as the vocabulary has it, empty if there is none."""
        return self._pieces[number] if 0 <= number < self.size else ""

    def encode_batch(self, texts: Sequence[str], *, marks: bool = False, target: bool = False) -> list[list[int]]:
        """The ids of each text; see `TextTokenizer`. Special tokens in a text are encoded as plain text."""
        try:
            encodings = self._subwords.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            wrong = next((text for text in texts if not is_text(text)), texts)
            raise DataError(f"{wrong!r:.100} is not text that can be encoded in UTF-8; expected a string") from error
        return [self.marked(encoding.ids) if marks else encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens; invalid UTF-8 becomes U+FFFD."""
        text: str = self._subwords.decode([i for i in ids if i >= len(MARKS)], skip_special_tokens=False)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id, without the prefix that stands for a space."""
        return [self._pieces[i].removeprefix(SPACE) or " " for i in ids]

    def words(self, ids: Sequence[int]) -> list[tuple[str, range]]:
        """Group ids into words: the text of each word, and its range of ids.

        A word starts after a space; a special token is a word, as is each piece of a script without spaces.
        """
        return group_words(ids, self._starts_word, self._word)

    def _starts_word(self, ids: Sequence[int], i: int) -> bool:
        piece = self._pieces[ids[i]]
        if i == 0 or ids[i] < len(MARKS) or ids[i - 1] < len(MARKS) or piece.startswith(SPACE):
            return True
        return bool(UNSPACED.match(piece)) and self._pieces[ids[i - 1]] != SPACE

    def _word(self, ids: list[int]) -> str:
        return MARKS[ids[0]] if ids[0] < len(MARKS) else self.decode(ids).strip() or " "

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer as a `tokenizer.json` of the `tokenizers` package, atomically."""
        partial = Path(path).with_name(Path(path).name + ".partial")
        partial.write_text(self._subwords.to_str(), encoding="utf-8")
        partial.replace(path)

    def files(self, *, max_length: int | None = None) -> dict[str, bytes]:
        """No files: the hub has no layout for a tokenizer that regard trained."""
        return {}

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Tokenizer":
        """Load a tokenizer that `save` wrote.

        Args:
            path: of the file.

        Returns:
            The tokenizer.

        Raises:
            CheckpointError: a file that is missing, damaged, or another tool's.
        """
        try:
            model = json.loads(Path(path).read_bytes())["model"]
            vocabulary, merges = model["vocab"], [tuple(merge) for merge in model["merges"]]
            problem = _problem(vocabulary, merges)
        except OSError as error:
            raise CheckpointError(f"{path}: no tokenizer can be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged, or not a tokenizer of regard: {error!r}") from error
        if problem:
            raise CheckpointError(f"{path} is damaged, or not a tokenizer of regard: {problem}")
        return Tokenizer(vocabulary, merges)


def _alphabet(texts: list[str], max_characters: int | None) -> list[str]:
    """The characters that become pieces, by descending frequency, then by code point."""
    counts = Counter({SPACE: sum(map(len, texts))})
    for text in texts:
        counts.update(normalized(text))
    rarest = RAREST * counts[SPACE]
    frequent = [character for character, count in counts.items() if count >= rarest and character != " "]
    return sorted(frequent, key=lambda character: (-counts[character], character))[:max_characters]


def group_words(
    ids: Sequence[int], starts_word: Callable[[Sequence[int], int], bool], word: Callable[[list[int]], str]
) -> list[tuple[str, range]]:
    """Group ids into words: the text of each word, and its range of ids."""
    starts = [i for i in range(len(ids)) if starts_word(ids, i)]
    spans = [range(start, end) for start, end in itertools.pairwise([*starts, len(ids)])]
    return [(word([ids[i] for i in span]), span) for span in spans]


def is_text(text: object) -> bool:
    """Whether it is a string that can be encoded in UTF-8."""
    return isinstance(text, str) and not re.search("[\ud800-\udfff]", text)


def _problem(vocabulary: dict[str, int], merges: list[tuple[str, ...]]) -> str | None:
    """Error message, or None: a piece must be a special token, a byte, a character or a merge."""
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[piece] for piece in pieces] != list(range(len(pieces))):
        return "ids are not 0, 1, 2 and so on"
    if tuple(pieces[: len(RESERVED)]) != RESERVED:
        return f"the first pieces are {pieces[:4]}; expected {list(RESERVED[:4])} and the other bytes"
    merged = [left + right for left, right in merges]
    expected = {*RESERVED, *merged, *(piece for piece in pieces if len(piece) == 1)}
    if expected != set(pieces):
        return f"pieces and merges differ in {sorted(expected ^ set(pieces))[:4]}"
    lost = [part for merge in merges for part in merge if part not in vocabulary]
    return f"merges of unknown pieces {lost[:4]}" if lost else None


def _set_pipeline(subwords: tokenizers.Tokenizer) -> None:
    """Set the normalizer, pre-tokenizer and decoder."""
    subwords.normalizer = normalizers.Sequence([normalizer(), normalizers.Prepend(" ")])
    subwords.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=False),
            pre_tokenizers.Split(Regex(PIECE_OF_WORD), behavior="isolated"),
        ]
    )
    subwords.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
