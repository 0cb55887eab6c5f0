"""Tokenizers of published checkpoints, based on the `tokenizers` package.

They are loaded from a `tokenizer.json`, from the `vocab.txt` of WordPiece, or from the `vocab.json` and `merges.txt` of
byte-level BPE. Special tokens have roles: padding, start, end, unknown, class, separator or mask.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from regard.data.added_tokens import mark
from regard.data.text_tokenizer import ROLES, TextTokenizer, clean_up_spaces
from regard.data.tokenizer import UNSPACED, group_words, is_text
from regard.errors import CheckpointError, ConfigError, DataError, nearest

CONTINUES = "##"  # prefix of a WordPiece token inside a word
SPACES = ("\u2581", "\u0120")  # prefix of a piece after a space: in SentencePiece, in byte-level BPE
PROBE = "a"  # encoded to find the special tokens around a text
# The tokenizers package raises no narrower exception for unreadable files.
UNREADABLE: type[Exception] = Exception


@final
class PublishedTokenizer(TextTokenizer):
    """A tokenizer of a published checkpoint, with the roles of its special tokens.

    Args:
        subwords: tokenizer of the `tokenizers` package, whose post-processor adds special tokens.
        roles: special tokens by role, a key of `ROLES`, such as {"mask": "[MASK]"}.

    Raises:
        ConfigError: an unknown role, or a token that the vocabulary lacks.
    """

    kind = "published"

    def __init__(self, subwords: tokenizers.Tokenizer, roles: Mapping[str, str]) -> None:
        for role, token in roles.items():
            if role not in ROLES:
                raise ConfigError(f"tokenizer: unknown role {role!r}; {nearest(role, ROLES)}")
            if subwords.token_to_id(token) is None:
                raise ConfigError(f"tokenizer: {token!r}, the token for {role}, is not in the vocabulary")
        subwords.no_truncation()
        subwords.no_padding()
        add_tokens(subwords, [], [mark(token) for token in roles.values()])
        self._subwords, self.roles = subwords, dict(roles)
        self._added = set(subwords.get_added_tokens_decoder())
        self._marks = {i for i, token in subwords.get_added_tokens_decoder().items() if token.special}
        self._marks |= {subwords.token_to_id(token) for token in roles.values()}
        vocabulary = subwords.get_vocab(with_added_tokens=True)
        self._pieces = {i: piece for piece, i in vocabulary.items()}
        self._before, self._after = _marks_around(subwords)
        self._byte_level = isinstance(subwords.decoder, decoders.ByteLevel)
        self._word_piece = isinstance(subwords.model, models.WordPiece)
        self._bpe = isinstance(subwords.model, models.BPE)  # the transformers package does not clean up BPE's text

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self._pieces, default=-1) + 1

    @property
    def fingerprint(self) -> str:
        """A hash, equal for equivalent tokenizers."""
        return hashlib.sha256((self._subwords.to_str() + json.dumps(self.roles, sort_keys=True)).encode()).hexdigest()

    @property
    def before(self) -> list[int]:
        """Ids of the special tokens before a text."""
        return self._before

    @property
    def after(self) -> list[int]:
        """Ids of the special tokens after a text."""
        return self._after

    def id_of(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        number: int | None = self._subwords.token_to_id(token)
        return number

    def token_of(self, number: int) -> str:
        """The token of an id as the vocabulary has it, empty if there is none."""
        return self._pieces.get(number, "")

    def encode_batch(self, texts: Sequence[str], *, marks: bool = False, target: bool = False) -> list[list[int]]:
        """The ids of each text; see `TextTokenizer`. Targets are encoded as sources are."""
        try:
            encodings = self._subwords.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            wrong = next((text for text in texts if not is_text(text)), texts)
            raise DataError(f"{wrong!r:.100} is not text that can be encoded in UTF-8; expected a string") from error
        ids = [self.marked(encoding.ids) if marks else encoding.ids for encoding in encodings]
        self.check_rows(ids)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        text: str = self._subwords.decode([i for i in ids if i not in self._marks], skip_special_tokens=False)
        return clean_up_spaces(text) if self.clean_up and not self._bpe else text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id, without the prefix that stands for a space."""
        return [self._piece(i) for i in ids]

    def words(self, ids: Sequence[int]) -> list[tuple[str, range]]:
        """Group ids into words: the text of each word, and its range of ids; a special token is a word."""
        return group_words(ids, self._starts_word, self._word)

    def _piece(self, i: int) -> str:
        piece = self._pieces.get(i, "")
        if i in self._marks:
            return piece
        if self._byte_level:
            return self._subwords.decode([i], skip_special_tokens=False).removeprefix(" ") or " "
        if self._word_piece:
            return piece.removeprefix(CONTINUES)
        return piece.removeprefix(SPACES[0]) or " "

    def _starts_word(self, ids: Sequence[int], i: int) -> bool:
        if i == 0 or ids[i] in self._added or ids[i - 1] in self._added:
            return True
        piece = self._pieces.get(ids[i], "")
        if self._word_piece:
            return not piece.startswith(CONTINUES)
        return piece.startswith(SPACES) or bool(UNSPACED.match(self._piece(ids[i])))

    def _word(self, ids: list[int]) -> str:
        return self._pieces[ids[0]] if ids[0] in self._marks else self.decode(ids).strip() or " "

    def lowercase(self) -> None:
        """Convert texts to lower case from now on, before any other normalization."""
        before = self._subwords.normalizer
        parts = [normalizers.Lowercase(), *([] if before is None else [before])]
        self._subwords.normalizer = normalizers.Sequence(parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json`, without the roles, atomically."""
        partial = Path(path).with_name(Path(path).name + ".partial")
        partial.write_text(self._subwords.to_str(), encoding="utf-8")
        partial.replace(path)

    def files(self, *, max_length: int | None = None) -> dict[str, bytes]:
        """The files that the transformers package reads such a vocabulary from; see `TextTokenizer`."""
        bound = {} if max_length is None else {"model_max_length": max_length}
        described = self.described(tokenizer_class="PreTrainedTokenizerFast", **bound)
        return {"tokenizer.json": self._subwords.to_str().encode(), **described}

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        roles: Mapping[str, str],
        described: Sequence[AddedToken] = (),
        named: Sequence[AddedToken] = (),
        changes: Sequence[Callable[[tokenizers.Tokenizer], object]] = (),
    ) -> "PublishedTokenizer":
        """The tokenizer of a `tokenizer.json`.

        Args:
            path: of the file.
            roles: special tokens by role; those that the vocabulary lacks are left out.
            described: added tokens, whose flags override those of the file.
            named: tokens that are added if the file lacks them.
            changes: functions that modify the tokenizer first.

        Returns:
            The tokenizer.

        Raises:
            CheckpointError: a file that is missing, damaged, or of another kind.
        """

        def build() -> tokenizers.Tokenizer:
            subwords = tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
            for change in changes:
                change(subwords)
            return subwords

        return build_tokenizer(path, build, roles, described, named)


def add_tokens(subwords: tokenizers.Tokenizer, described: Sequence[AddedToken], named: Sequence[AddedToken]) -> None:
    """Add tokens to a tokenizer.

    Args:
        subwords: the tokenizer.
        described: tokens, whose flags override existing ones.
        named: tokens that are added only if the tokenizer lacks them.
    """
    subwords.add_tokens(list(described))
    known = {token.content for token in subwords.get_added_tokens_decoder().values()}
    subwords.add_tokens(list({token.content: token for token in named if token.content not in known}.values()))


def _marks_around(subwords: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The ids of the special tokens before a text, and after it."""
    marks: list[int] = subwords.encode("").ids
    content: list[int] = subwords.encode(PROBE, add_special_tokens=False).ids
    whole: list[int] = subwords.encode(PROBE).ids
    before = next(i for i in range(len(whole)) if whole[i : i + len(content)] == content) if content else len(marks)
    return whole[:before], whole[before + len(content) :]


def build_tokenizer(
    path: str | os.PathLike[str],
    build: Callable[[], tokenizers.Tokenizer],
    roles: Mapping[str, str],
    described: Sequence[AddedToken] = (),
    named: Sequence[AddedToken] = (),
) -> PublishedTokenizer:
    """Build a tokenizer, with the roles whose tokens are in its vocabulary.

    Args:
        path: of the file, for messages.
        build: builds the tokenizer of the `tokenizers` package.
        roles: special tokens by role.
        described: as for `add_tokens`.
        named: as for `add_tokens`.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: a file that is missing, damaged, or of another type.
    """
    try:
        subwords = build()
        if isinstance(subwords.model, models.BPE):
            subwords.model.dropout = None  # a regularization for training
        add_tokens(subwords, described, named)
        known = {role: token for role, token in roles.items() if subwords.token_to_id(token) is not None}
        return PublishedTokenizer(subwords, known)
    except OSError as error:
        raise CheckpointError(f"{path}: no tokenizer can be read ({error.strerror})") from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path} is damaged, or no tokenizer that is known here: {error}") from error
