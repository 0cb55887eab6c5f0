"""The words of a source and a target as their reader counts them, and the tokens that each is made of.

Words are what white space parts, of any kind and length, as `str.split` has it. In scripts that part no words, each
piece of the vocabulary is one.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from regard.data.spaces import ODD, readable, unknown_of
from regard.data.tokenizer import UNSPACED

Spans = list[tuple[str, range]]  # words and their tokens, one after the other


class Words(NamedTuple):
    """A text as tokens and words, one after the other, all tokens in them."""

    tokens: list[int]
    spans: Spans
    numbers: list[int | None]  # of each word, counted from 0; None of one that does not count, as those of a prefix
    count: int  # of the words of the text, those among them of which the model reads nothing

    def after(self, count: int) -> "Words":
        """The same words, where `count` words stand before them."""
        numbers = [None if number is None else number + count for number in self.numbers]
        return self._replace(numbers=numbers, count=self.count + count)


def words_read(tokenizer: Any, text: str, prefix: str = "") -> Words:
    """The tokens and words that a model reads.

    Args:
        tokenizer: of the model.
        text: what is translated.
        prefix: what is read before it, whose words do not count.

    Returns:
        The tokens and words of both.
    """
    unknown, whole = unknown_of(tokenizer), (prefix + text.strip()).strip()
    plain = [readable(part, tokenizer.encode, unknown) for part in (whole, *whole.split(), prefix.strip())]
    tokens, *parts, head = map(tokenizer.encode, plain)
    first = len(parts) - len(text.split())  # the number of the first word that counts
    spans: Spans = []
    numbers: list[int | None] = []
    if list(itertools.chain(*parts)) != tokens:  # pieces with spaces in them, or a language within the text
        spans = _seen(tokenizer, tokens, tokenizer.words(tokens))
        first = sum(span.stop <= len(head) for _, span in spans) if first else 0
        numbers = [None if i < first else i - first for i in range(len(spans))]
        return Words(list(tokens), spans, numbers, len(spans) - first)
    number = 0
    for i, (word, part) in enumerate(zip(whole.split(), parts, strict=True)):
        start = spans[-1][1].stop if spans else 0
        inside = _divided(tokenizer, tokens, ODD.sub("", word), range(start, start + len(part)))
        spans += inside
        numbers += [number + k for k in range(len(inside))] if i >= first else [None] * len(inside)
        number += max(len(inside), 1) if i >= first else 0
    return Words(list(tokens), spans, numbers, number)


def words_written(tokenizer: Any, tokens: Sequence[int]) -> Words:
    """The words of a target: those of the text that its tokens decode to.

    Args:
        tokenizer: of the model.
        tokens: of the target, without bos and eos.

    Returns:
        Its words.
    """
    tokens = list(tokens)
    texts = tokenizer.decode_batch([tokens[:end] for end in range(1, len(tokens) + 1)])
    # how many words there are once a token is written, unless a later byte makes one of two
    counts = list(itertools.accumulate(reversed([len(text.split()) for text in texts]), min))[::-1]
    starts, silent = [], 0  # silent: tokens just before that add nothing to be seen
    for i, (before, after) in enumerate(itertools.pairwise([0, *counts])):
        if after > before:
            starts.append(i - silent)
        silent = silent + 1 if texts[i].strip() == (texts[i - 1].strip() if i else "") else 0
    spans: Spans = []
    for span in itertools.starmap(range, itertools.pairwise([0, *starts[1:], len(tokens)])):
        word = tokenizer.decode(tokens[span.start : span.stop]).strip() or " "
        spans += _divided(tokenizer, tokens, word, span)
    if not starts:
        return Words(tokens, spans, [None] * len(spans), 0)
    return Words(tokens, spans, list(range(len(spans))), len(spans))


def _divided(tokenizer: Any, tokens: Sequence[int], word: str, span: range) -> Spans:
    """The word, or its pieces where its script parts no words; nothing of what has no tokens."""
    if not UNSPACED.search(word):
        return [(word, span)] if span else []
    inside = tokens[span.start : span.stop]
    pieces = _seen(tokenizer, inside, tokenizer.words(inside))
    return [(piece, range(span.start + r.start, span.start + r.stop)) for piece, r in pieces]


def _seen(tokenizer: Any, tokens: Sequence[int], spans: Spans) -> Spans:
    """The words, where one that cannot be seen is put to the next, and the last one to that before it."""
    ends = [span.stop for _, span in spans if tokenizer.decode(tokens[span.start : span.stop]).strip()]
    if len(ends) in (0, len(spans)):
        return spans
    joined = itertools.starmap(range, itertools.pairwise([0, *ends[:-1], len(tokens)]))
    return [(tokenizer.decode(tokens[span.start : span.stop]).strip(), span) for span in joined]
