"""Source of a model: the pieces of a text, and the prefix that is read before each of them.

A text may begin with the target language or the task: ">>fra<<" for multilingual Marian, "<2fr>", or T5's "translate
English to German:". If the text is split, this prefix is read before each piece.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from regard.data.spaces import readable, unknown_of
from regard.errors import DataError
from regard.tasks.split import Piece, split

LANGUAGE = re.compile(r"\s*(?:>>[^\s<>]{1,40}<<|<2[A-Za-z][\w-]{1,15}>)\s*")
TRANSLATION = re.compile(r"\s*translate \w+ to \w+:\s*")
LONGEST_WHOLE = 4096  # tokens of an unsplit text for a model without a limit: attention is quadratic in them


class Source(NamedTuple):
    """Prefix and pieces of a text."""

    prefix: str
    pieces: list[Piece]


def read_source(
    tokenizer: Any,
    text: str,
    *,
    max_length: int,
    split_length: int | None = None,
    whole: bool = False,
    model_max_length: int | None = None,
    prefix: str = "",
    number: int = 1,
) -> Source:
    """Split a text into the pieces that a model reads.

    Args:
        tokenizer: tokenizer of the model.
        text: any text.
        max_length: maximum tokens of a piece, the end mark included.
        split_length: maximum tokens of a piece of several sentences, the end mark included; as for `split`.
        whole: whether not to split the text, unless its prefix asks for a translation.
        model_max_length: maximum tokens that the model can read, the end mark included; None for no limit.
        prefix: text to read before each piece; a prefix of the text itself comes after it.
        number: number of the text, for errors.

    Returns:
        The prefix and the pieces, which together are the text.

    Raises:
        DataError: a text that cannot be split and is too long, or a prefix that leaves no room for a text.
    """
    begins = LANGUAGE.match(text) or TRANSLATION.match(text)
    if begins and begins.end() < len(text):
        prefix, text = prefix + begins[0], text[begins.end() :]
    prefix_tokens = 1 + (len(tokenizer.encode(prefix.strip())) if prefix.strip() else 0)
    if whole and not TRANSLATION.match(prefix):
        tokens, limit = prefix_tokens + count(tokenizer, [text])[0], model_max_length or LONGEST_WHOLE
        if tokens > limit:
            raise DataError(
                f"text {number} has {tokens} tokens and is read whole, since outputs for its parts could not be "
                f"joined; expected at most {limit}: shorten it"
            )
        return Source(prefix, [Piece(text)])
    if prefix_tokens >= max_length:
        raise DataError(
            f"prefix={prefix.strip()!r:.80} has {prefix_tokens - 1} tokens, and the model reads at most "
            f"{max_length - 1} with the text after it; shorten it"
        )
    split_text_length = None if split_length is None else max(1, split_length - prefix_tokens)
    return Source(
        prefix, split(text, max_length - prefix_tokens, lambda some: count(tokenizer, some), split_text_length)
    )


def count(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Numbers of tokens of texts."""
    return [len(ids) for ids in encode(tokenizer, texts)]


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, without surrounding spaces and unusual characters that the tokenizer does not know."""
    clean: Callable[[str], str] = lambda text: readable(text.strip(), tokenizer.encode, unknown_of(tokenizer))  # noqa: E731
    ids: list[list[int]] = tokenizer.encode_batch([clean(text) for text in texts])
    return ids
