"""Added tokens: tokens beside a vocabulary, which are matched in a text before the rest is split into subwords.

A token's flags: `lstrip` and `rstrip` (it includes white space before or after it), `single_word` (it is matched only
as a whole word), `normalized` (it is matched in normalized text) and `special` (it is removed from decoded text).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, final

import tokenizers
from tokenizers import AddedToken, models

FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
REST = ""  # the only piece of the finder's vocabulary, for text that is not an added token


class Part(NamedTuple):
    """A part of a text: an added token, or the text between two of them."""

    text: str
    is_token: bool


def plain(token: AddedToken) -> dict[str, Any]:
    """A token as plain data, as in the files of the transformers package."""
    return {"content": token.content, **{flag: getattr(token, flag) for flag in FLAGS}}


def mark(content: str) -> AddedToken:
    """A special token, which is matched in unnormalized text."""
    return AddedToken(content, special=True, normalized=False)


@final
class AddedTokens:
    """Splits texts at added tokens, as the `tokenizers` package does.

    Args:
        tokens: added tokens with their flags.
        normalize: the vocabulary's normalization of a text; None if all tokens are matched in unnormalized text.
    """

    def __init__(self, tokens: Iterable[AddedToken], normalize: Callable[[str], str] | None = None) -> None:
        tokens = list(tokens)
        self._normalize = normalize
        self._early = _finder([(x.content, x) for x in tokens if normalize is None or not x.normalized])
        late = [] if normalize is None else [(normalize(x.content), x) for x in tokens if x.normalized]
        self._late = _finder(late) if late else None
        self._names = {normal: x.content for normal, x in late}

    def split(self, texts: Sequence[str]) -> list[list[Part]]:
        """The parts of each text, in order; none of them is empty.

        Args:
            texts: any texts.

        Returns:
            Parts of each text. A text in which a normalized token was matched is normalized, others are unchanged.
        """
        return [
            [inner for part in _parts(self._early, text) for inner in ([part] if part.is_token else self._again(part))]
            for text in texts
        ]

    def _again(self, part: Part) -> list[Part]:
        """Split a part between added tokens at normalized tokens."""
        if self._late is None or self._normalize is None:
            return [part]
        parts = _parts(self._late, self._normalize(part.text))
        if not any(inner.is_token for inner in parts):
            return [part]
        return [Part(self._names[inner.text], True) if inner.is_token else inner for inner in parts]


def _finder(tokens: Sequence[tuple[str, AddedToken]]) -> tokenizers.Tokenizer:
    """A tokenizer whose only tokens are these, given as pairs of text and flags."""
    finder = tokenizers.Tokenizer(models.WordLevel({REST: 0}, unk_token=REST))
    flags = ("lstrip", "rstrip", "single_word")
    finder.add_tokens(
        [AddedToken(name, normalized=False, **{flag: getattr(x, flag) for flag in flags}) for name, x in tokens]
    )
    return finder


def _parts(finder: tokenizers.Tokenizer, text: str) -> list[Part]:
    encoding = finder.encode(text, add_special_tokens=False)
    return [
        Part(finder.id_to_token(number), True) if number else Part(text[start:end], False)
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
    ]
