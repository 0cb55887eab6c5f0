"""Tokens that stand beside the pieces of a vocabulary, and are found in a text before the rest of it is cut.

The flags of a token say how it is found: `lstrip` and `rstrip` (white space before or after it belongs to it),
`single_word` (not within a word), `normalized` (it is looked for in the normalized text); and `special`: it is a mark,
which is left out of decoded text.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, final

import tokenizers
from tokenizers import AddedToken, models

FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
REST = ""  # the one piece of the finder's vocabulary: whatever is no token


class Part(NamedTuple):
    """A part of a text: an added token, or what stands between two of them."""

    text: str
    is_token: bool


def plain(token: AddedToken) -> dict[str, Any]:
    """A token as the files of the transformers package describe it."""
    return {"content": token.content, **{flag: getattr(token, flag) for flag in FLAGS}}


def mark(content: str) -> AddedToken:
    """A token that is a mark, and found in a text as it stands."""
    return AddedToken(content, special=True, normalized=False)


@final
class AddedTokens:
    """Finds added tokens in texts, as the `tokenizers` package does before its own models.

    Args:
        tokens: with their flags.
        normalize: how the vocabulary normalizes a text; None for a vocabulary that finds all tokens in the text as it
            stands.
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
            Parts of each text. Text in which a normalized token was found is normalized, other text is as it was.
        """
        return [
            [inner for part in _parts(self._early, text) for inner in ([part] if part.is_token else self._again(part))]
            for text in texts
        ]

    def _again(self, part: Part) -> list[Part]:
        """The parts of a text between tokens, in which tokens are looked for after it is normalized."""
        if self._late is None or self._normalize is None:
            return [part]
        found = _parts(self._late, self._normalize(part.text))
        if not any(inner.is_token for inner in found):
            return [part]
        return [Part(self._names[inner.text], True) if inner.is_token else inner for inner in found]


def _finder(tokens: Sequence[tuple[str, AddedToken]]) -> tokenizers.Tokenizer:
    """A tokenizer that knows nothing but these tokens, each under the name given."""
    finder = tokenizers.Tokenizer(models.WordLevel({REST: 0}, unk_token=REST))
    how = ("lstrip", "rstrip", "single_word")
    finder.add_tokens(
        [AddedToken(name, normalized=False, **{flag: getattr(x, flag) for flag in how}) for name, x in tokens]
    )
    return finder


def _parts(finder: tokenizers.Tokenizer, text: str) -> list[Part]:
    encoding = finder.encode(text, add_special_tokens=False)
    return [
        Part(finder.id_to_token(number), True) if number else Part(text[start:end], False)
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
    ]
