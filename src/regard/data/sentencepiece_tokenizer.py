"""The SentencePiece vocabularies of published encoder-decoders as tokenizers: T5's, and Marian's pair of them.

T5 counts its pieces as its one model file does, and puts the marks <extra_id_0>, <extra_id_1>, ... behind them in
reverse order. Marian cuts sources by one model file and targets by another, and counts the pieces of both in a
`vocab.json`; a source may start with the language that is wanted, such as ">>fr<<", which is one token.

What looks like a mark in a text is text, except T5's marks and Marian's language: so no text ends before its end.
"""

import base64
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from regard.data.sentencepiece import SPACE, SentencePiece
from regard.data.sentencepiece_model import CONTROL, UNKNOWN, parse_sentencepiece
from regard.data.tokenizer import UNSPACED, grouped, is_text
from regard.errors import CheckpointError, DataError

LANGUAGE = re.compile(r">>.*?<<", re.DOTALL)
KIND = "sentencepiece"  # of the file that `save` writes


@final
class SentencePieceTokenizer:
    """Texts as ids of a published SentencePiece vocabulary.

    Args:
        source: the bytes of the model file that cuts sources.
        target: of the one that cuts targets; None for the same.
        ids: the id of each token, where they are counted apart from the model file; None for its own.
        extra: tokens that are found in texts as they stand, and their ids, such as T5's <extra_id_0>.
        roles: tokens by role: "pad", "bos", "eos", "unk".

    Raises:
        CheckpointError: model files that are damaged, ids that are no numbers, or a role without a token.
        UnsupportedError: a model file that needs what there is not; see `parse_sentencepiece`.
    """

    def __init__(
        self,
        source: bytes,
        target: bytes | None = None,
        *,
        ids: Mapping[str, int] | None = None,
        extra: Mapping[str, int] | None = None,
        roles: Mapping[str, str],
    ) -> None:
        self._files = {"source": source, "target": target}
        self._source = SentencePiece(parse_sentencepiece(source, "source"))
        self._target = self._source if target is None else SentencePiece(parse_sentencepiece(target, "target"))
        pieces = self._source.model.pieces
        self._counted = ids is not None
        self._ids = {piece.text: i for i, piece in enumerate(pieces)} if ids is None else dict(ids)
        self.extra, self.roles = dict(extra or {}), dict(roles)
        self._all = {**self._ids, **self.extra}
        _check_ids(self._all, self.roles)
        self._pieces = {i: token for token, i in self._all.items()}
        names = set(self.roles.values()) | {piece.text for piece in pieces if piece.kind in (CONTROL, UNKNOWN)}
        self._marks = {self._all[name] for name in names if name in self._all}
        self._unknown = self._all[self.roles["unk"]]
        found = sorted(self.extra, key=len, reverse=True)
        self._extra = re.compile(f"({'|'.join(map(re.escape, found))})") if found else None

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self._pieces) + 1

    @property
    def fingerprint(self) -> str:
        """What tells this tokenizer from others."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def id_of(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        return self._all.get(token)

    def role(self, name: str) -> int | None:
        """The id of the token of a role, None if no token has it."""
        return self._all.get(self.roles.get(name, ""))

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

    def encode(self, text: str, *, marks: bool = False, target: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            text: any text.
            marks: whether the end mark is added.
            target: whether it is cut as a target, where that differs.

        Returns:
            The ids.

        Raises:
            DataError: something that is no text, or has half a pair of surrogates.
        """
        if not is_text(text):
            raise DataError(f"{text!r:.100} is not text that can be encoded in UTF-8; expected a string")
        cutter = self._target if target else self._source
        ids: list[int] = []
        if self._counted and (language := LANGUAGE.match(text)):
            ids.append(self._all.get(language[0], self._unknown))
            text = text[language.end() :]
        for part in [text] if self._extra is None else self._extra.split(text):
            ids += [self.extra[part]] if part in self.extra else self._cut(cutter, part)
        return ids + ([self._all[self.roles["eos"]]] if marks else [])

    def encode_batch(self, texts: Sequence[str], *, marks: bool = False) -> list[list[int]]:
        """The ids of each text, as `encode` gives them."""
        return [self.encode(text, marks=marks) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; the marks of padding, start, end and of what is unknown are left out."""
        parts: list[str] = []
        tokens = [self._pieces.get(i, "") for i in ids if i not in self._marks]
        for extra, some in itertools.groupby(tokens, self.extra.__contains__):
            together = list(some)
            parts += together if extra else [self._target.decode_pieces(together).strip()]
        return " ".join(part for part in parts if part)

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids."""
        return [self.decode(each) for each in ids]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each id as text to look at, without the sign of a space before it."""
        return [self._pieces.get(i, "").removeprefix(SPACE) or " " for i in ids]

    def words(self, ids: Sequence[int]) -> list[tuple[str, range]]:
        """Pieces put together: each word, and which of the ids it is made of; marks stand alone."""
        return grouped(ids, self._starts_word, self._word)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `load` reads; it appears when it is complete."""
        partial = Path(path).with_name(Path(path).name + ".partial")
        partial.write_text(json.dumps(self._plain(), ensure_ascii=False), encoding="utf-8")
        partial.replace(path)

    def files(self) -> dict[str, bytes]:
        """The files that the hub's layout has for such a vocabulary, by name."""
        if not self._counted:
            return {"spiece.model": self._files["source"] or b""}
        target = self._files["target"] or self._files["source"]
        vocabulary = json.dumps(self._ids, ensure_ascii=False, indent=2).encode()
        return {"source.spm": self._files["source"] or b"", "target.spm": target or b"", "vocab.json": vocabulary}

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "SentencePieceTokenizer":
        """The tokenizer that was saved in a file.

        Args:
            path: of the file.

        Returns:
            The tokenizer.

        Raises:
            CheckpointError: a file that is missing or damaged.
        """
        try:
            plain = json.loads(Path(path).read_bytes())
            files = [None if (x := plain[name]) is None else base64.b64decode(x) for name in ("source", "target")]
            tables = {name: plain[name] for name in ("ids", "extra", "roles")}
            if plain["kind"] == KIND and all(x is None or isinstance(x, dict) for x in tables.values()):
                return SentencePieceTokenizer(files[0] or b"", files[1], **tables)
            problem = f"kind={plain['kind']!r}"
        except OSError as error:
            raise CheckpointError(f"{path}: no tokenizer can be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problem = repr(error)
        raise CheckpointError(f"{path} is damaged, or no SentencePiece tokenizer of regard's: {problem}")

    def _plain(self) -> dict[str, Any]:
        files = {name: None if x is None else base64.b64encode(x).decode() for name, x in self._files.items()}
        ids = self._ids if self._counted else None
        return {"kind": KIND, **files, "ids": ids, "extra": self.extra, "roles": self.roles}

    def _cut(self, cutter: SentencePiece, text: str) -> list[int]:
        if not self._counted:
            return cutter.encode(text)
        found = [self._all.get(piece, self._unknown) for piece, _ in cutter.pieces(text)]
        return [self._unknown if i in self._marks else i for i in found]

    def _starts_word(self, ids: Sequence[int], i: int) -> bool:
        alone = self._marks | set(self.extra.values())
        if i == 0 or ids[i] in alone or ids[i - 1] in alone:
            return True
        piece = self._pieces.get(ids[i], "")
        return piece.startswith(SPACE) or bool(UNSPACED.match(piece))

    def _word(self, ids: list[int]) -> str:
        token = self._pieces.get(ids[0], "")
        return token if ids[0] in self._marks else self.decode(ids) or " "


def t5_tokenizer(model: bytes, *, extra_ids: int = 100) -> SentencePieceTokenizer:
    """T5's tokenizer.

    Args:
        model: the bytes of `spiece.model`.
        extra_ids: how many marks <extra_id_0>, <extra_id_1>, ... stand behind its pieces, the last one first.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError, UnsupportedError: as for `SentencePieceTokenizer`.

    Source: Raffel et al. 2019, arXiv 1910.10683, section 3.1.4.
    """
    size = len(parse_sentencepiece(model, "spiece.model").pieces)
    extra = {f"<extra_id_{i}>": size + extra_ids - 1 - i for i in range(extra_ids)}
    return SentencePieceTokenizer(model, extra=extra, roles={"pad": "<pad>", "eos": "</s>", "unk": "<unk>"})


def marian_tokenizer(source: bytes, target: bytes, ids: Mapping[str, int]) -> SentencePieceTokenizer:
    """Marian's tokenizer, with one vocabulary for source and target.

    Args:
        source: the bytes of `source.spm`.
        target: of `target.spm`.
        ids: what `vocab.json` says.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError, UnsupportedError: as for `SentencePieceTokenizer`.
    """
    return SentencePieceTokenizer(source, target, ids=ids, roles={"pad": "<pad>", "eos": "</s>", "unk": "<unk>"})


def _check_ids(ids: Mapping[str, int], roles: Mapping[str, str]) -> None:
    """Raise CheckpointError unless each token has a number of its own, and each role a token."""
    numbers: Iterable[object] = ids.values()
    wrong = [token for token, i in ids.items() if type(i) is not int or not 0 <= i < 2**31]
    lacking = [f"{role}={token!r}" for role, token in roles.items() if token not in ids]
    if wrong or lacking or len(set(numbers)) != len(ids) or not {"unk", "eos"} <= set(roles):
        raise CheckpointError(
            f"the vocabulary of {len(ids)} tokens has {len(wrong)} without a number, such as {wrong[:1]}, numbers "
            f"{'twice' if not wrong and len(set(numbers)) != len(ids) else 'of their own'}, and lacks {lacking}; "
            "expected an id for each token, and tokens for unk and eos"
        )
