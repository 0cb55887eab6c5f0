"""Constraints on generated tokens, for greedy search, sampling and beam search.

A sequence is a language model's prompt and continuation, or an encoder-decoder's target with its start token. The
constraints and their order are those of the logits processors of Hugging Face transformers 5: beam search applies them
to log-probabilities, greedy search and sampling to logits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.check import check_integer, is_integer, is_number, show
from regard.errors import ConfigError
from regard.models.seq2seq import Vocabulary

NO_TOKEN = -1


@final
@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Constraints on the tokens of targets; none by default.

    Args:
        min_length: minimum length of a sequence, its prompt or start token included: no end token before it.
        min_new_tokens: minimum number of generated tokens: no end token before it.
        repetition_penalty: penalty > 0 on the logits of tokens that the sequence already holds: positive logits are
            divided by it, negative ones multiplied. Above 1, tokens repeat less.
        no_repeat_ngram_size: size of the n-grams that may occur only once in a sequence; 0 to allow repeats.
        bad_words: token sequences that are never generated; a single end token is ignored here.
        suppress_tokens: tokens that are never generated.
        begin_suppress_tokens: tokens that are not generated first.
        forced_bos: the token that is generated first, with probability 1, if the sequence holds one token before it.
        forced_eos: the token that is generated at the maximum length, with probability 1.
        renormalize: whether the probabilities of the allowed tokens are normalized to sum to 1, in scores and in beam
            search; sampling always does so.

    Raises:
        ConfigError: a value that is out of range, or a token id that is not an integer >= 0.

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
                f"Constraints: repetition_penalty={show(self.repetition_penalty)} must be above 0 and finite; use 1 "
                "for no penalty"
            )
        words = self.bad_words
        if not isinstance(words, tuple) or not all(isinstance(word, tuple) and word for word in words):
            raise ConfigError(f"Constraints: bad_words={show(words)} must be a tuple of non-empty tuples of token ids")
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            if not isinstance(getattr(self, name), tuple):
                raise ConfigError(f"Constraints: {name}={show(getattr(self, name))} must be a tuple of token ids")
        for token in self._tokens():
            if not is_integer(token) or token < 0:
                raise ConfigError(f"Constraints: the token id {show(token)} must be an integer >= 0")

    @property
    def max_token(self) -> int:
        """The largest token id in any field, -1 if there is none."""
        return max(self._tokens(), default=NO_TOKEN)

    @property
    def needs_history(self) -> bool:
        """Whether the allowed tokens depend on the tokens before, and not only on their number."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0 or any(len(w) > 1 for w in self.bad_words)

    def _tokens(self) -> Iterator[int]:
        """All token ids of all fields."""
        yield from (*self.suppress_tokens, *self.begin_suppress_tokens)
        yield from (token for word in self.bad_words for token in word)
        yield from (token for token in (self.forced_bos, self.forced_eos) if token is not None)


@final
class ConstraintState:
    """Constraints during the decoding of B sentences with K hypotheses each; one hypothesis at first.

    Args:
        constraints: that are applied.
        vocabulary: of the model, N tokens.
        prompts: (B, P), the tokens that each sequence starts with.
        limits: (B,), the maximum number of generated tokens of each sentence.
        rule: a further constraint, a function of scores (B, K, N) without the tokens that are never allowed, and of
            the tokens that were generated so far (B, K, T), which returns scores; None for none.
    """

    def __init__(
        self,
        constraints: Constraints,
        vocabulary: Vocabulary,
        prompts: Tensor,
        limits: Tensor,
        rule: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.constraints, self.prompt, self.limits, self.rule = constraints, prompts.shape[1], limits, rule
        needs_history = constraints.needs_history or rule is not None
        self.history = prompts[:, None] if needs_history else None  # (B, K, tokens so far)
        self.generated = 0  # tokens so far
        ends = {vocabulary.eos, *vocabulary.more_eos}
        words = [word for word in constraints.bad_words if not (len(word) == 1 and word[0] in ends)]
        single_tokens = [word[0] for word in words if len(word) == 1]
        self._allowed = _suppress(vocabulary, [*single_tokens, *constraints.suppress_tokens])
        self._sequences = [word for word in words if len(word) > 1]

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary, in which tokens that are not allowed at this step are in `never`."""
        constraints, vocabulary = self.constraints, self._allowed
        too_short = self.prompt + self.generated < constraints.min_length
        if self.generated < constraints.min_new_tokens or too_short:
            vocabulary = _suppress(vocabulary, (vocabulary.eos, *vocabulary.more_eos))
        # After a forced first token, the second one counts as the first.
        first = 1 if constraints.forced_bos is not None and self.prompt == 1 else 0
        if self.generated == first:
            vocabulary = _suppress(vocabulary, constraints.begin_suppress_tokens)
        return vocabulary

    def forced(self) -> Tensor | None:
        """The forced token of each sentence at this step, (B,): -1 where there is none; None if no sentence has one."""
        constraints, is_first = self.constraints, self.prompt + self.generated == 1
        token = constraints.forced_bos if is_first and constraints.forced_bos is not None else NO_TOKEN
        is_last = self.limits <= self.generated + 1
        if constraints.forced_eos is not None and bool(is_last.any()):
            return torch.where(is_last, constraints.forced_eos, token)
        return None if token == NO_TOKEN else torch.full_like(self.limits, token)

    def __call__(self, scores: Tensor) -> Tensor:
        """Apply the constraints that depend on the tokens so far: repetition penalty, n-grams, bad words and the rule.

        Args:
            scores: logits or log-probabilities (B, K, N).

        Returns:
            (B, K, N).
        """
        constraints, history = self.constraints, self.history
        if history is None:
            return scores
        size, penalty = scores.shape[-1], constraints.repetition_penalty
        if penalty != 1:
            previous = scores.gather(-1, history)
            scores = scores.scatter(-1, history, torch.where(previous < 0, previous * penalty, previous / penalty))
        length, n = history.shape[-1], constraints.no_repeat_ngram_size
        if 0 < n <= length:
            ngrams = history.unfold(-1, n, 1)  # (B, K, length - n + 1, n)
            same_prefix = (ngrams[..., :-1] == history[..., None, length + 1 - n :]).all(-1)
            repeated = torch.where(same_prefix, ngrams[..., -1], size)  # `size`: a padding column, dropped below
            scores = functional.pad(scores, (0, 1)).scatter(-1, repeated, -torch.inf)[..., :size]
        for *prefix, token in self._sequences:
            if len(prefix) <= length:
                matches = (history[..., length - len(prefix) :] == history.new_tensor(prefix)).all(-1)
                without = scores.index_fill(-1, history.new_tensor([token]), -torch.inf)
                scores = without.where(matches[..., None], scores)
        if self.rule is not None:
            scores = self.rule(self.vocabulary.allowed(scores), history[..., self.prompt :])
        return scores

    def advance(self, tokens: Tensor, parents: Tensor | None = None) -> None:
        """Append a token to each hypothesis.

        Args:
            tokens: (B, K').
            parents: (B, K'), the index of the hypothesis that each continues; None for itself.
        """
        self.generated += 1
        if self.history is not None:
            history = self.history
            if parents is not None:
                history = history.gather(1, parents[..., None].expand(-1, -1, history.shape[-1]))
            self.history = torch.cat((history, tokens[..., None]), -1)

    def keep(self, sentences: Tensor) -> None:
        """Keep some of the sentences, (B',) indices, and drop the others."""
        self.limits = self.limits[sentences]
        if self.history is not None:
            self.history = self.history[sentences]


def _suppress(vocabulary: Vocabulary, tokens: "list[int] | tuple[int, ...]") -> Vocabulary:
    """The vocabulary with more tokens in `never`."""
    never = tuple(dict.fromkeys((*vocabulary.never, *tokens)))
    return vocabulary if len(never) == len(vocabulary.never) else replace(vocabulary, never=never)
