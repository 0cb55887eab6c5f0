"""What targets must have or must not have, whichever search looks for them.

A sequence is the prompt of a language model and what it has written, or the start mark of an encoder-decoder's target
and the target. The rules and their order are those of the logits processors of Hugging Face transformers 5: beam search
applies them to log-probabilities, greedy search and sampling to logits.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.check import check_integer, is_integer, is_number, show
from regard.errors import ConfigError
from regard.models.seq2seq import Vocabulary

NOTHING = -1  # in the place of a token


@final
@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Rules for the tokens of targets. The default has none.

    Args:
        min_length: tokens of a sequence, its prompt or start mark among them, before which no end mark comes.
        min_new_tokens: the same without the prompt or start mark.
        repetition_penalty: what the logits of tokens that the sequence has are divided by where they are positive, and
            multiplied by where they are negative, > 0: above 1 to repeat less.
        no_repeat_ngram_size: tokens of the n-grams of which a sequence has none twice; 0 for no such rule.
        bad_words: sequences of tokens that don't occur; an end mark alone is none.
        suppress_tokens: tokens that don't occur.
        begin_suppress_tokens: tokens that are not written first.
        forced_bos: the token that is written first, as if certain, if the sequence has one token until then.
        forced_eos: the token that is written at the greatest length, as if certain.
        renormalize: whether the probabilities of the tokens that may come sum to 1 in scores and in beam search; in
            sampling they always do.

    Raises:
        ConfigError: a rule that is out of range, or tokens that are none.

    Source: repetition_penalty: Keskar et al. 2019, arXiv 1909.05858, section 4.1; no_repeat_ngram_size: Paulus et al.
    2017, arXiv 1705.04304, section 2.5.
    """

    min_length: int = 0
    min_new_tokens: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos: int | None = None
    forced_eos: int | None = None
    renormalize: bool = False

    def __post_init__(self) -> None:
        for name in ("min_length", "min_new_tokens", "no_repeat_ngram_size"):
            check_integer("Constraints", name, getattr(self, name), 0, " tokens")
        if not is_number(self.repetition_penalty) or not 0 < self.repetition_penalty < float("inf"):
            raise ConfigError(
                f"Constraints: repetition_penalty={show(self.repetition_penalty)} must be above 0 and finite; 1 for "
                "none"
            )
        words = self.bad_words
        if not isinstance(words, tuple) or not all(isinstance(word, tuple) and word for word in words):
            raise ConfigError(f"Constraints: bad_words={show(words)} must be a tuple of tuples of tokens, none empty")
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            if not isinstance(getattr(self, name), tuple):
                raise ConfigError(f"Constraints: {name}={show(getattr(self, name))} must be a tuple of tokens")
        for token in self._tokens():
            if not is_integer(token) or token < 0:
                raise ConfigError(f"Constraints: the token {show(token)} must be an integer >= 0")

    @property
    def highest(self) -> int:
        """The greatest token that it names, -1 if it names none."""
        return max(self._tokens(), default=NOTHING)

    @property
    def looks_back(self) -> bool:
        """Whether what may come depends on the tokens before, and not only on their number."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0 or any(len(w) > 1 for w in self.bad_words)

    def _tokens(self) -> Iterator[int]:
        """Every token that it names."""
        yield from (*self.suppress_tokens, *self.begin_suppress_tokens)
        yield from (token for word in self.bad_words for token in word)
        yield from (token for token in (self.forced_bos, self.forced_eos) if token is not None)


@final
class Rules:
    """Constraints at work on K hypotheses of each of B sentences; one at first.

    Args:
        constraints: which.
        vocabulary: of the model, N tokens.
        prompts: (B, P), the tokens that each sequence starts with.
        limits: (B,), tokens that may be written of each at most.
    """

    def __init__(self, constraints: Constraints, vocabulary: Vocabulary, prompts: Tensor, limits: Tensor) -> None:
        self.constraints, self.prompt, self.limits = constraints, prompts.shape[1], limits
        self.history = prompts[:, None] if constraints.looks_back else None
        self.written = 0
        ends = {vocabulary.eos, *vocabulary.more_eos}
        words = [word for word in constraints.bad_words if not (len(word) == 1 and word[0] in ends)]
        self._open = _never(vocabulary, [*(word[0] for word in words if len(word) == 1), *constraints.suppress_tokens])
        self._longer = [word for word in words if len(word) > 1]

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary with what may not come now, whatever was before."""
        rules, found = self.constraints, self._open
        if self.written < rules.min_new_tokens or self.prompt + self.written < rules.min_length:
            found = _never(found, (found.eos, *found.more_eos))
        # After a first token that is forced, the next one counts as the first.
        first = 1 if rules.forced_bos is not None and self.prompt == 1 else 0
        return _never(found, rules.begin_suppress_tokens) if self.written == first else found

    def forced(self) -> Tensor | None:
        """The token (B,) that certainly comes now in each sentence, -1 where none does; None if none does in any."""
        rules, first = self.constraints, self.prompt + self.written == 1
        token = rules.forced_bos if first and rules.forced_bos is not None else NOTHING
        closing = self.limits <= self.written + 1
        if rules.forced_eos is not None and bool(closing.any()):
            return torch.where(closing, rules.forced_eos, token)
        return None if token == NOTHING else torch.full_like(self.limits, token)

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores (B, K, N) as the tokens before change them."""
        rules, history = self.constraints, self.history
        if history is None:
            return scores
        size = scores.shape[-1]
        if rules.repetition_penalty != 1:
            seen = scores.gather(-1, history)
            less = torch.where(seen < 0, seen * rules.repetition_penalty, seen / rules.repetition_penalty)
            scores = scores.scatter(-1, history, less)
        length, n = history.shape[-1], rules.no_repeat_ngram_size
        if 0 < n <= length:
            windows = history.unfold(-1, n, 1)  # (B, K, W, n)
            again = (windows[..., :-1] == history[..., None, length + 1 - n :]).all(-1)
            last = torch.where(again, windows[..., -1], size)  # what does not count falls beyond the vocabulary
            scores = functional.pad(scores, (0, 1)).scatter(-1, last, -torch.inf)[..., :size]
        for *before, token in self._longer:
            if len(before) <= length:
                begun = (history[..., length - len(before) :] == history.new_tensor(before)).all(-1)
                scores = scores.index_fill(-1, history.new_tensor([token]), -torch.inf).where(begun[..., None], scores)
        return scores

    def advance(self, tokens: Tensor, parents: Tensor | None = None) -> None:
        """One more token (B, K') of each hypothesis, which goes on from another one, (B, K'), or from itself."""
        self.written += 1
        if self.history is not None:
            before = self.history
            if parents is not None:
                before = before.gather(1, parents[..., None].expand(-1, -1, before.shape[-1]))
            self.history = torch.cat((before, tokens[..., None]), -1)

    def keep(self, sentences: Tensor) -> None:
        """Go on with some of the sentences, (B',) indices."""
        self.limits = self.limits[sentences]
        if self.history is not None:
            self.history = self.history[sentences]


def _never(vocabulary: Vocabulary, tokens: "list[int] | tuple[int, ...]") -> Vocabulary:
    """The vocabulary without these tokens."""
    never = tuple(dict.fromkeys((*vocabulary.never, *tokens)))
    return vocabulary if len(never) == len(vocabulary.never) else replace(vocabulary, never=never)
