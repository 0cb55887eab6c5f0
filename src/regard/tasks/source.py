"""What a model reads of a text: its pieces, and what stands before each of them.

A text may begin with the language or the task that is wanted: ">>fra<<" as multilingual Marian has it, "<2fr>", or T5's
"translate English to German:". Where it is split, each piece is read with that.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from regard.data.spaces import readable, unknown_of
from regard.errors import DataError
from regard.tasks.split import Piece, split

LANGUAGE = re.compile(r"\s*(?:>>[^\s<>]{1,40}<<|<2[A-Za-z][\w-]{1,15}>)\s*")
TRANSLATION = re.compile(r"\s*translate \w+ to \w+:\s*")
LONGEST_WHOLE = 4096  # tokens of a text that is not split, where the model has no bound: attention takes their square


class Source(NamedTuple):
    """A text as it is read: the prefix before each of the pieces."""

    prefix: str
    pieces: list[Piece]


def read_source(
    tokenizer: Any,
    text: str,
    *,
    longest: int,
    usual: int | None = None,
    whole: bool = False,
    most: int | None = None,
    prefix: str = "",
    number: int = 1,
) -> Source:
    """The pieces in which a text is read.

    Args:
        tokenizer: of the model.
        text: any text.
        longest: tokens that the model reads well, the end mark included.
        usual: tokens of several sentences that are read together, the end mark included; as for `split`.
        whole: whether a text is not split, unless it is to be translated by its prefix.
        most: tokens that the model can read at all, the end mark included; None for no bound.
        prefix: what is read before each piece; what the text itself begins with comes after it.
        number: of the text, for errors.

    Returns:
        The prefix and the pieces, which together are the text.

    Raises:
        DataError: a text that cannot be split and is too long, or a prefix that leaves no room for a text.
    """
    begins = LANGUAGE.match(text) or TRANSLATION.match(text)
    if begins and begins.end() < len(text):
        prefix, text = prefix + begins[0], text[begins.end() :]
    taken = 1 + (len(tokenizer.encode(prefix.strip())) if prefix.strip() else 0)
    if whole and not TRANSLATION.match(prefix):
        tokens, bound = taken + count(tokenizer, [text])[0], most or LONGEST_WHOLE
        if tokens > bound:
            raise DataError(
                f"text {number} has {tokens} tokens and is read whole, since what the model writes of its parts cannot "
                f"be put together; expected at most {bound}: shorten it"
            )
        return Source(prefix, [Piece(text)])
    if taken >= longest:
        raise DataError(
            f"prefix={prefix.strip()!r:.80} has {taken - 1} tokens, and the model reads at most {longest - 1} with the "
            "text after it; shorten it"
        )
    few = None if usual is None else max(1, usual - taken)
    return Source(prefix, split(text, longest - taken, lambda some: count(tokenizer, some), few))


def count(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """The numbers of tokens."""
    return [len(ids) for ids in encode(tokenizer, texts)]


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of texts without spaces around them, and without odd characters that the tokenizer does not know."""
    clean: Callable[[str], str] = lambda text: readable(text.strip(), tokenizer.encode, unknown_of(tokenizer))  # noqa: E731
    ids: list[list[int]] = tokenizer.encode_batch([clean(text) for text in texts])
    return ids
