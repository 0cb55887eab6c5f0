"""The vocabularies that published checkpoints come with, as one kind of tokenizer.

They stand in a `tokenizer.json`, in the `vocab.txt` of WordPiece, or in the `vocab.json` and `merges.txt` of byte-level
byte-pair encoding. What a token is for (padding, start, end, class, separator, mask) is said beside them: its role.
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
from regard.data.text_tokenizer import ROLES, TextTokenizer, cleaned
from regard.data.tokenizer import UNSPACED, grouped, is_text
from regard.errors import CheckpointError, ConfigError, DataError, nearest

CONTINUES = "##"  # what a piece of WordPiece starts with that goes on with a word
SPACES = ("\u2581", "\u0120")  # what a piece starts with that has a space before it: SentencePiece's sign, byte-level's
PROBE = "a"  # a text, to see which marks are put around it
# tokenizers raises this, and nothing narrower, for what it cannot read.
UNREADABLE: type[Exception] = Exception


@final
class PublishedTokenizer(TextTokenizer):
    """A tokenizer of a published checkpoint, and the roles of its tokens.

    Args:
        subwords: what turns text into ids; its post-processor adds the marks.
        roles: tokens by role, of `ROLES`, such as {"mask": "[MASK]"}.

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
        add(subwords, [], [mark(token) for token in roles.values()])
        self._subwords, self.roles = subwords, dict(roles)
        self._added = set(subwords.get_added_tokens_decoder())
        self._marks = {i for i, token in subwords.get_added_tokens_decoder().items() if token.special}
        self._marks |= {subwords.token_to_id(token) for token in roles.values()}
        vocabulary = subwords.get_vocab(with_added_tokens=True)
        self._pieces = {i: piece for piece, i in vocabulary.items()}
        self._before, self._after = _marks_around(subwords)
        self._byte_level = isinstance(subwords.decoder, decoders.ByteLevel)
        self._word_piece = isinstance(subwords.model, models.WordPiece)
        self._bpe = isinstance(subwords.model, models.BPE)  # whose text the transformers package never cleans up

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self._pieces, default=-1) + 1

    @property
    def fingerprint(self) -> str:
        """A hash that is the same for tokenizers that do the same."""
        return hashlib.sha256((self._subwords.to_str() + json.dumps(self.roles, sort_keys=True)).encode()).hexdigest()

    @property
    def before(self) -> list[int]:
        """The marks that the model was trained to read before a text."""
        return self._before

    @property
    def after(self) -> list[int]:
        """The marks that the model was trained to read after a text."""
        return self._after

    def id_of(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        found: int | None = self._subwords.token_to_id(token)
        return found

    def token_of(self, number: int) -> str:
        """The token of an id as the vocabulary has it, empty if there is none."""
        return self._pieces.get(number, "")

    def encode_batch(self, texts: Sequence[str], *, marks: bool = False, target: bool = False) -> list[list[int]]:
        """The ids of each text; see `TextTokenizer`. Targets are cut as sources are."""
        try:
            found = self._subwords.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            wrong = next((text for text in texts if not is_text(text)), texts)
            raise DataError(f"{wrong!r:.100} is not text that can be encoded in UTF-8; expected a string") from error
        ids = [self.marked(encoding.ids) if marks else encoding.ids for encoding in found]
        self.check_rows(ids)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; marks are left out."""
        text: str = self._subwords.decode([i for i in ids if i not in self._marks], skip_special_tokens=False)
        return cleaned(text) if self.clean_up and not self._bpe else text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each id as text to look at, without the sign of a space before it."""
        return [self._piece(i) for i in ids]

    def words(self, ids: Sequence[int]) -> list[tuple[str, range]]:
        """Subwords put together: each word, and which of the ids it is made of; marks stand alone."""
        return grouped(ids, self._starts_word, self._word)

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
        """Read texts in lower case from now on, before all else that is done with them."""
        before = self._subwords.normalizer
        parts = [normalizers.Lowercase(), *([] if before is None else [before])]
        self._subwords.normalizer = normalizers.Sequence(parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json`, without the roles; the file appears when it is complete."""
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
            roles: tokens by role; those that the vocabulary lacks are left out.
            described: tokens whose flags go before those of the file.
            named: tokens that are added where the file has none of the same name.
            changes: what is changed in it first.

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

        return built(path, build, roles, described, named)


def add(subwords: tokenizers.Tokenizer, described: Sequence[AddedToken], named: Sequence[AddedToken]) -> None:
    """Give a tokenizer tokens that stand beside its pieces.

    Args:
        subwords: the tokenizer.
        described: tokens whose flags go before those that it has for them.
        named: tokens that are added only where it has none of the same name.
    """
    subwords.add_tokens(list(described))
    known = {token.content for token in subwords.get_added_tokens_decoder().values()}
    subwords.add_tokens(list({token.content: token for token in named if token.content not in known}.values()))


def _marks_around(subwords: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The marks before a text, and those after it."""
    marks: list[int] = subwords.encode("").ids
    content: list[int] = subwords.encode(PROBE, add_special_tokens=False).ids
    whole: list[int] = subwords.encode(PROBE).ids
    before = next(i for i in range(len(whole)) if whole[i : i + len(content)] == content) if content else len(marks)
    return whole[:before], whole[before + len(content) :]


def built(
    path: str | os.PathLike[str],
    build: Callable[[], tokenizers.Tokenizer],
    roles: Mapping[str, str],
    described: Sequence[AddedToken] = (),
    named: Sequence[AddedToken] = (),
) -> PublishedTokenizer:
    """A tokenizer with those roles that its vocabulary has tokens for.

    Args:
        path: of the file that it comes from, for messages.
        build: makes the tokenizer of the `tokenizers` package.
        roles: tokens by role.
        described: as for `add`.
        named: as for `add`.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: whatever goes wrong.
    """
    try:
        subwords = build()
        if isinstance(subwords.model, models.BPE):
            subwords.model.dropout = None  # which is for training
        add(subwords, described, named)
        kept = {role: token for role, token in roles.items() if subwords.token_to_id(token) is not None}
        return PublishedTokenizer(subwords, kept)
    except OSError as error:
        raise CheckpointError(f"{path}: no tokenizer can be read ({error.strerror})") from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path} is damaged, or no tokenizer that is known here: {error}") from error
