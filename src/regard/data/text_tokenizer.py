"""Interface of subword tokenizers.

There are three: regard's own (`data.tokenizer`), those of a published `tokenizer.json` or vocabulary files
(`data.published_tokenizer`), and those of a SentencePiece model (`data.sentencepiece_tokenizer`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from regard.errors import DataError

# Roles of special tokens, in the order in which the transformers package adds those that a vocabulary lacks.
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Replacements of the transformers package in decoded text with `clean_up_tokenization_spaces`.
CLEANED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class TextTokenizer(Protocol):
    """A subword tokenizer.

    Attributes:
        kind: "own", "published" or "sentencepiece": the class that reads the file that `save` writes.
        roles: special tokens by role, a value of `ROLES`, such as {"mask": "[MASK]"}.
        rows: number of the model's embeddings, if known; texts with ids beyond it are refused.
        truncation_side: "right" or "left": which end of a long text is cut.
        clean_up: whether spaces before punctuation are removed from decoded text.
    """

    kind: str
    roles: dict[str, str]
    rows: int | None = None
    truncation_side: str = "right"
    clean_up: bool = False

    @property
    def size(self) -> int:
        """One more than the largest id."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash, equal for equivalent tokenizers."""
        ...

    @property
    def before(self) -> Sequence[int]:
        """Ids of the special tokens before a text."""
        ...

    @property
    def after(self) -> Sequence[int]:
        """Ids of the special tokens after a text."""
        ...

    def id_of(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        ...

    def token_of(self, number: int) -> str:
        """The token of an id as the vocabulary has it, empty if there is none."""
        ...

    def encode_batch(self, texts: Sequence[str], *, marks: bool = False, target: bool = False) -> list[list[int]]:
        """Encode texts.

        Args:
            texts: any texts.
            marks: whether the special tokens `before` and `after` are put around each text.
            target: whether the texts are targets, for tokenizers that encode targets and sources differently.

        Returns:
            Token ids of each text.

        Raises:
            DataError: not a string, a lone surrogate, or a token id beyond `rows`.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id, without the prefix that stands for a space."""
        ...

    def words(self, ids: Sequence[int]) -> list[tuple[str, range]]:
        """Group ids into words: the text of each word, and its range of ids; a special token is a word."""
        ...

    def save(self, path: Any) -> None:
        """Write a file that the class's `load` reads, atomically."""
        ...

    def files(self, *, max_length: int | None = None) -> dict[str, bytes]:
        """The tokenizer's files in the layout of the transformers package; none for regard's own.

        Args:
            max_length: maximum number of tokens, special tokens included; None if unlimited.

        Returns:
            Contents by file name.
        """
        ...

    # Methods that are derived from the above:

    def encode(self, text: str, *, marks: bool = False, target: bool = False) -> list[int]:
        """The ids of one text; see `encode_batch`."""
        return self.encode_batch([text], marks=marks, target=target)[0]

    def marked(self, ids: Sequence[int], *, max_length: int | None = None) -> list[int]:
        """Put special tokens around the ids of a text.

        Args:
            ids: without special tokens.
            max_length: maximum number of ids with special tokens; a longer text is cut at its `truncation_side`.

        Returns:
            The ids.
        """
        room = len(ids) if max_length is None else max(max_length - len(self.before) - len(self.after), 0)
        start = max(len(ids) - room, 0) if self.truncation_side == "left" else 0
        return [*self.before, *ids[start : start + room], *self.after]

    def settings(self) -> dict[str, Any]:
        """Settings that are not in the file that `save` writes, as plain data; see `use`."""
        plain: dict[str, Any] = {"kind": self.kind, "roles": self.roles}
        plain |= {} if self.truncation_side == "right" else {"truncation_side": self.truncation_side}
        return plain | ({"clean_up": True} if self.clean_up else {})

    def described(self, **fields: Any) -> dict[str, bytes]:
        """The tokenizer_config.json of the transformers package, with the common fields and `fields`."""
        config = {f"{role}_token": self.roles.get(role) for role in ROLES}
        config |= {"clean_up_tokenization_spaces": self.clean_up, "truncation_side": self.truncation_side, **fields}
        return {"tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode()}

    def use(self, settings: Mapping[str, Any]) -> None:
        """Apply what `settings` returned; other entries are ignored."""
        self.truncation_side = "left" if settings.get("truncation_side") == "left" else "right"
        self.clean_up = settings.get("clean_up") is True

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids."""
        return [self.decode(each) for each in ids]

    def role(self, name: str) -> int | None:
        """The id of the special token of a role, None if there is none."""
        token = self.roles.get(name)
        return None if token is None else self.id_of(token)

    @property
    def pad(self) -> int | None:
        """The id of the padding token; None if there is none, or if the model has no embedding for it."""
        number = self.role("pad")
        return None if number is None or (self.rows is not None and number >= self.rows) else number

    @property
    def bos(self) -> int | None:
        """The id of the start token."""
        return self.role("bos")

    @property
    def eos(self) -> int | None:
        """The id of the end token."""
        return self.role("eos")

    @property
    def mask(self) -> int | None:
        """The id of the mask token."""
        return self.role("mask")

    @property
    def cls(self) -> int | None:
        """The id of the classification token."""
        return self.role("cls")

    @property
    def sep(self) -> int | None:
        """The id of the separator token."""
        return self.role("sep")

    def check_rows(self, ids: Sequence[Sequence[int]]) -> None:
        """Raise DataError if a text has a token that the model has no embedding for."""
        if self.rows is None or self.size <= self.rows:
            return
        for number, some in enumerate(ids, start=1):
            beyond = next((i for i in some if i >= self.rows), None)
            if beyond is not None:
                raise DataError(
                    f"text {number} has the token {self.token_of(beyond)!r} with id {beyond}, and the model has "
                    f"embeddings for {self.rows} tokens, ids 0 to {self.rows - 1}: the tokenizer has {self.size} "
                    "tokens, some of which were added without resizing the embedding; leave the token out of the text"
                )


def clean_up_spaces(text: str) -> str:
    """Remove spaces before punctuation, as `clean_up_tokenization_spaces` of the transformers package."""
    for spaced, close in CLEANED:
        text = text.replace(spaced, close)
    return text
