"""The interface of every tokenizer: texts as ids of subwords and back, and what single tokens are for.

There are three: regard's own (`data.tokenizer`), that of a published `tokenizer.json` and its kin
(`data.published_tokenizer`), and that of a SentencePiece model (`data.sentencepiece_tokenizer`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from regard.errors import DataError

# What a token may be for, in the order in which the transformers package adds those that a vocabulary lacks.
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# What the transformers package replaces in decoded text where `clean_up_tokenization_spaces` says so.
CLEANED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class TextTokenizer(Protocol):
    """A vocabulary of subwords, and how texts become ids of it.

    Attributes:
        kind: "own", "published" or "sentencepiece": which class reads the file that `save` writes.
        roles: tokens by role, of `ROLES`, such as {"mask": "[MASK]"}.
        rows: how many tokens the model has embeddings for, where that is known: a text with a token beyond is refused.
        truncation_side: "right" or "left": which end of a text that is too long is cut.
        clean_up: whether decoded text loses the spaces before its punctuation.
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
        """A hash that is the same for tokenizers that do the same."""
        ...

    @property
    def before(self) -> Sequence[int]:
        """The marks that the model was trained to read before a text."""
        ...

    @property
    def after(self) -> Sequence[int]:
        """The marks that the model was trained to read after a text."""
        ...

    def id_of(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        ...

    def token_of(self, number: int) -> str:
        """The token of an id as the vocabulary has it, empty if there is none."""
        ...

    def encode_batch(self, texts: Sequence[str], *, marks: bool = False, target: bool = False) -> list[list[int]]:
        """The ids of each text; faster than one by one.

        Args:
            texts: any texts.
            marks: whether `before` and `after` are put around each.
            target: whether the texts are targets, where those are cut by another vocabulary than sources.

        Returns:
            Ids for each text.

        Raises:
            DataError: something that is no text, has half a pair of surrogates, or has a token beyond `rows`.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; marks are left out."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each id as text to look at, without the sign of a space before it."""
        ...

    def words(self, ids: Sequence[int]) -> list[tuple[str, range]]:
        """Subwords put together: each word, and which of the ids it is made of; marks stand alone."""
        ...

    def save(self, path: Any) -> None:
        """Write one file that the class's `load` reads; it appears when it is complete."""
        ...

    def files(self, *, max_length: int | None = None) -> dict[str, bytes]:
        """The files that the transformers package reads such a tokenizer from, by name; none for regard's own.

        Args:
            max_length: tokens that the model reads at most, marks counted; None for no bound.

        Returns:
            The content of each file.
        """
        ...

    # What follows from these:

    def encode(self, text: str, *, marks: bool = False, target: bool = False) -> list[int]:
        """The ids of one text; see `encode_batch`."""
        return self.encode_batch([text], marks=marks, target=target)[0]

    def marked(self, ids: Sequence[int], *, longest: int | None = None) -> list[int]:
        """The ids of a text with the marks around it.

        Args:
            ids: without marks.
            longest: how many there may be, marks counted; a longer text is cut at its `truncation_side`.

        Returns:
            The ids.
        """
        room = len(ids) if longest is None else max(longest - len(self.before) - len(self.after), 0)
        start = max(len(ids) - room, 0) if self.truncation_side == "left" else 0
        return [*self.before, *ids[start : start + room], *self.after]

    def settings(self) -> dict[str, Any]:
        """What is to be said of it beside the file that `save` writes, as plain data; see `use`."""
        plain: dict[str, Any] = {"kind": self.kind, "roles": self.roles}
        plain |= {} if self.truncation_side == "right" else {"truncation_side": self.truncation_side}
        return plain | ({"clean_up": True} if self.clean_up else {})

    def described(self, **fields: Any) -> dict[str, bytes]:
        """The tokenizer_config.json of the transformers package, with the fields that every tokenizer has."""
        config = {f"{role}_token": self.roles.get(role) for role in ROLES}
        config |= {"clean_up_tokenization_spaces": self.clean_up, "truncation_side": self.truncation_side, **fields}
        return {"tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode()}

    def use(self, settings: Mapping[str, Any]) -> None:
        """Take over what `settings` gave; what is no such setting is left alone."""
        self.truncation_side = "left" if settings.get("truncation_side") == "left" else "right"
        self.clean_up = settings.get("clean_up") is True

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids."""
        return [self.decode(each) for each in ids]

    def role(self, name: str) -> int | None:
        """The id of the token of a role, None if no token has it."""
        token = self.roles.get(name)
        return None if token is None else self.id_of(token)

    @property
    def pad(self) -> int | None:
        """What fills the places after the end; None where the model has no embedding for it."""
        number = self.role("pad")
        return None if number is None or (self.rows is not None and number >= self.rows) else number

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
        """What stands for a word to be predicted."""
        return self.role("mask")

    @property
    def cls(self) -> int | None:
        """What stands for a whole text."""
        return self.role("cls")

    @property
    def sep(self) -> int | None:
        """What stands between texts, and after the last."""
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


def cleaned(text: str) -> str:
    """A text without the spaces before its punctuation, as `clean_up_tokenization_spaces` means it."""
    for spaced, close in CLEANED:
        text = text.replace(spaced, close)
    return text
