"""The vocabularies that published checkpoints come with, as one kind of tokenizer.

They stand in a `tokenizer.json`, in the `vocab.txt` of WordPiece, or in the `vocab.json` and `merges.txt` of byte-level
byte-pair encoding. What a token is for (padding, start, end, class, separator, mask) is said beside them: its role.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from regard.data.tokenizer import UNSPACED, grouped, is_text
from regard.errors import CheckpointError, ConfigError, DataError, nearest

ROLES = ("pad", "bos", "eos", "unk", "cls", "sep", "mask")
WORD_PIECE_ROLES = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}  # BERT's
CONTINUES = "##"  # what a piece of WordPiece starts with that goes on with a word
SPACES = ("\u2581", "\u0120")  # what a piece starts with that has a space before it: SentencePiece's sign, byte-level's
PROBE = "a"  # a text, to see which marks are put around it
# tokenizers raises this, and nothing narrower, for what it cannot read.
UNREADABLE: type[Exception] = Exception


@final
class PublishedTokenizer:
    """A tokenizer of a published checkpoint, and the roles of its tokens.

    Args:
        subwords: what turns text into ids; its post-processor adds the marks.
        roles: tokens by role, of `ROLES`, such as {"mask": "[MASK]"}.

    Raises:
        ConfigError: an unknown role, or a token that the vocabulary lacks.
    """

    def __init__(self, subwords: tokenizers.Tokenizer, roles: Mapping[str, str]) -> None:
        for role, token in roles.items():
            if role not in ROLES:
                raise ConfigError(f"tokenizer: unknown role {role!r}; {nearest(role, ROLES)}")
            if subwords.token_to_id(token) is None:
                raise ConfigError(f"tokenizer: {token!r}, the token for {role}, is not in the vocabulary")
        subwords.no_truncation()
        subwords.no_padding()
        found = {token.content for token in subwords.get_added_tokens_decoder().values()}
        subwords.add_special_tokens([token for token in dict.fromkeys(roles.values()) if token not in found])
        self._subwords, self.roles = subwords, dict(roles)
        self._marks = {i for i, token in subwords.get_added_tokens_decoder().items() if token.special}
        self._marks |= {subwords.token_to_id(token) for token in roles.values()}
        vocabulary = subwords.get_vocab(with_added_tokens=True)
        self._pieces = {i: piece for piece, i in vocabulary.items()}
        self._before, self._after = _marks_around(subwords)
        self._byte_level = isinstance(subwords.decoder, decoders.ByteLevel)
        self._word_piece = isinstance(subwords.model, models.WordPiece)

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self._pieces, default=-1) + 1

    @property
    def fingerprint(self) -> str:
        """What tells this tokenizer from others."""
        return hashlib.sha256((self._subwords.to_str() + json.dumps(self.roles, sort_keys=True)).encode()).hexdigest()

    def id_of(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        found: int | None = self._subwords.token_to_id(token)
        return found

    def role(self, name: str) -> int | None:
        """The id of the token of a role, None if no token has it."""
        token = self.roles.get(name)
        return None if token is None else self.id_of(token)

    @property
    def pad(self) -> int | None:
        """What fills the places after the end."""
        return self.role("pad")

    @property
    def bos(self) -> int | None:
        """What texts start with."""
        return self.role("bos")

    @property
    def eos(self) -> int | None:
        """What texts end with."""
        return self.role("eos")

    @property
    def mask(self) -> int | None:
        """What stands for a word to be found."""
        return self.role("mask")

    @property
    def cls(self) -> int | None:
        """What stands for a whole text."""
        return self.role("cls")

    @property
    def sep(self) -> int | None:
        """What stands between texts, and after the last."""
        return self.role("sep")

    def encode(self, text: str, *, marks: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            text: any text.
            marks: whether the marks are added that the checkpoint was trained with, such as [CLS] and [SEP].

        Returns:
            The ids.
        """
        return self.encode_batch([text], marks=marks)[0]

    def encode_batch(self, texts: Sequence[str], *, marks: bool = False) -> list[list[int]]:
        """The ids of each text; faster than one by one.

        Args:
            texts: any texts.
            marks: as for `encode`.

        Returns:
            Ids for each text.

        Raises:
            DataError: something that is no text, or has half a pair of surrogates.
        """
        try:
            found = self._subwords.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            wrong = next((text for text in texts if not is_text(text)), texts)
            raise DataError(f"{wrong!r:.100} is not text that can be encoded in UTF-8; expected a string") from error
        return [self.marked(encoding.ids) if marks else encoding.ids for encoding in found]

    def marked(self, ids: Sequence[int], *, longest: int | None = None) -> list[int]:
        """The ids of a text with the marks that the checkpoint was trained with.

        Args:
            ids: without marks.
            longest: how many there may be, marks counted; the end of a longer text is cut.

        Returns:
            The ids.
        """
        room = None if longest is None else max(longest - len(self._before) - len(self._after), 0)
        return [*self._before, *ids[:room], *self._after]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; marks are left out."""
        text: str = self._subwords.decode([i for i in ids if i not in self._marks], skip_special_tokens=False)
        return text

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids."""
        return [self.decode(each) for each in ids]

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
        if i == 0 or ids[i] in self._marks or ids[i - 1] in self._marks:
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

    @staticmethod
    def load(
        path: str | os.PathLike[str], roles: Mapping[str, str], added: Iterable[AddedToken] = ()
    ) -> "PublishedTokenizer":
        """The tokenizer of a `tokenizer.json`.

        Args:
            path: of the file.
            roles: tokens by role.
            added: tokens that it shall know besides; those that it knows stay as they are.

        Returns:
            The tokenizer.

        Raises:
            CheckpointError: a file that is missing, damaged, or of another kind, or roles without tokens.
        """

        def make() -> tokenizers.Tokenizer:
            made = tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
            made.add_tokens([token for token in added if made.token_to_id(token.content) is None])
            return made

        return _made(path, roles, make)


def read_word_piece(
    path: str | os.PathLike[str],
    roles: Mapping[str, str],
    added: Iterable[AddedToken] = (),
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    chinese: bool = True,
) -> PublishedTokenizer:
    """The tokenizer of a `vocab.txt`, a piece a line, as BERT's.

    Args:
        path: of the file.
        roles: tokens by role; "unk", "cls" and "sep" must be among them.
        added: how tokens are found in text, and tokens that the file lacks.
        lowercase: whether text is read in lower case.
        strip_accents: whether letters lose their accents; None for "if lowercase".
        chinese: whether Chinese characters stand alone.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: a file that is missing or damaged, or roles without tokens.

    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.
    """

    def make() -> tokenizers.Tokenizer:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        pieces = [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
        ids = {piece: i for i, piece in enumerate(pieces)}
        made = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=roles["unk"]))
        made.normalizer = normalizers.BertNormalizer(
            lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
        )
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        made.add_tokens([*added, *_special(roles, ids)])
        cls, sep = roles["cls"], roles["sep"]
        made.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(token, made.token_to_id(token)) for token in (cls, sep)],
        )
        return made

    return _made(path, roles, make)


def read_byte_level(
    vocabulary: str | os.PathLike[str],
    merges: str | os.PathLike[str],
    roles: Mapping[str, str],
    added: Iterable[AddedToken] = (),
    *,
    prefix_space: bool = False,
) -> PublishedTokenizer:
    """The tokenizer of a `vocab.json` and a `merges.txt`, as GPT-2's and RoBERTa's.

    Args:
        vocabulary: the file of the ids of pieces.
        merges: the file of merges, one a line.
        roles: tokens by role; where "cls" and "sep" are among them, they surround a text, as RoBERTa's do.
        added: how tokens are found in text, and tokens that the file lacks.
        prefix_space: whether a text is read with a space before it.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: a file that is missing or damaged, or roles without tokens.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
    """

    def make() -> tokenizers.Tokenizer:
        ids = json.loads(Path(vocabulary).read_text(encoding="utf-8"))
        lines = Path(merges).read_text(encoding="utf-8").split("\n")
        pairs = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
        made = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=pairs))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
        made.decoder = decoders.ByteLevel()
        made.add_tokens([*added, *_special(roles, ids)])
        if {"cls", "sep"} <= set(roles):
            surround = [(roles[role], made.token_to_id(roles[role])) for role in ("sep", "cls")]
            made.post_processor = processors.RobertaProcessing(*surround, add_prefix_space=prefix_space)
        return made

    return _made(vocabulary, roles, make)


def _marks_around(subwords: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The marks before a text, and those after it."""
    marks: list[int] = subwords.encode("").ids
    content: list[int] = subwords.encode(PROBE, add_special_tokens=False).ids
    whole: list[int] = subwords.encode(PROBE).ids
    before = next(i for i in range(len(whole)) if whole[i : i + len(content)] == content) if content else len(marks)
    return whole[:before], whole[before + len(content) :]


def _special(roles: Mapping[str, str], ids: Mapping[str, int]) -> list[AddedToken]:
    """The tokens of the roles as marks, which no other token is part of."""
    return [
        AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(roles.values()) if token in ids
    ]


def _made(
    path: str | os.PathLike[str], roles: Mapping[str, str], make: Callable[[], tokenizers.Tokenizer]
) -> PublishedTokenizer:
    """A tokenizer with those roles that its vocabulary has tokens for, or one error that says what is wrong."""
    try:
        made = make()
        return PublishedTokenizer(made, {role: x for role, x in roles.items() if made.token_to_id(x) is not None})
    except OSError as error:
        raise CheckpointError(f"{path}: no tokenizer can be read ({error.strerror})") from error
    except UNREADABLE as error:
        raise CheckpointError(f"{path} is damaged, or no tokenizer that is known here: {error}") from error
