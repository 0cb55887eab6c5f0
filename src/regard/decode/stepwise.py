"""Decoding with one hypothesis for each sentence: greedy search and sampling."""

from collections.abc import Callable

import torch
from torch import Tensor

from regard.decode.backpointers import START, Backpointers
from regard.decode.check import check_scores
from regard.decode.constraints import NO_TOKEN, ConstraintState
from regard.decode.search import Hypothesis
from regard.decode.top import topk_log_probs
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Seq2Seq, State, Vocabulary

# (logits (B', N), vocabulary, step, sentences (B',)) -> tokens (B',) and their log-probabilities (B',)
Choose = Callable[[Tensor, Vocabulary, int, Tensor], tuple[Tensor, Tensor]]
# (sentences (B',), tokens (B',)) -> whether each sentence stops here, (B',)
ShouldStop = Callable[[Tensor, Tensor], Tensor]
ENDED = -1  # passed to ShouldStop instead of an end token


def choose_greedy(logits: Tensor, vocabulary: Vocabulary, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable token of each sentence; arguments and result as for `Choose`."""
    values, tokens = topk_log_probs(logits, vocabulary, 1)
    return tokens[:, 0], values[:, 0]


def decode_stepwise(
    model: Seq2Seq | LanguageModel,
    state: State,
    tokens: Tensor,
    limits: Tensor,
    choose: Choose,
    constraints: ConstraintState,
    should_stop: ShouldStop | None = None,
) -> list[list[Hypothesis]]:
    """A target for each sentence, one token at a time.

    Args:
        model: in evaluation mode.
        state: after prefill, of B sentences with one hypothesis each.
        tokens: (B,), the token that each sentence starts from.
        limits: (B,), the maximum length of each target, `eos` included.
        choose: picks the next tokens and their log-probabilities, from logits (B', N), the vocabulary, the number of
            the step, and the indices (B',) of the unfinished sentences.
        constraints: which tokens are allowed.
        should_stop: called with the indices and tokens of each step, ENDED instead of an end token; returns which
            sentences stop here.

    Returns:
        A list of one hypothesis for each sentence.

    Raises:
        CheckpointError: the model's logits are NaN.
    """
    sentences = torch.arange(len(limits), device=limits.device)
    last = torch.full_like(sentences, START)
    scores = torch.zeros_like(sentences, dtype=torch.float32)
    backpointers, shortest = Backpointers(), int(limits.min())
    finished: list[tuple[Tensor, ...]] = []
    for step in range(int(limits.max())):
        logits = model.step(tokens[:, None], state)[:, 0].float()
        tokens, log_probs = _next_tokens(logits, choose, constraints, step, sentences)
        scores = scores + log_probs
        check_scores(scores, step)
        is_end = model.vocabulary.ends(tokens)
        done = is_end if step + 1 < shortest else is_end | (limits <= step + 1)
        if should_stop is not None:
            done = done | should_stop(sentences, tokens.masked_fill(is_end, ENDED))
        previous, last = last, backpointers.add(tokens, last)
        constraints.advance(tokens[:, None])
        if not bool(done.any()):
            continue
        last_tokens = torch.where(is_end, previous, last)  # without eos
        finished.append(tuple(x[done] for x in (sentences, scores / (step + 1), last_tokens, is_end)))
        rows = (~done).nonzero()[:, 0]
        if not len(rows):
            break
        state.keep(rows)
        constraints.keep(rows)
        sentences, tokens, last, scores, limits = (x[rows] for x in (sentences, tokens, last, scores, limits))
    order, final_scores, final_tokens, ended = (torch.cat(x).tolist() for x in zip(*finished, strict=True))
    hypotheses = map(Hypothesis, backpointers.read(final_tokens), final_scores, ended)
    by_sentence = dict(zip(order, hypotheses, strict=True))
    return [[by_sentence[sentence]] for sentence in range(len(by_sentence))]


def _next_tokens(
    logits: Tensor, choose: Choose, constraints: ConstraintState, step: int, sentences: Tensor
) -> tuple[Tensor, Tensor]:
    """The next tokens (B',) under the constraints and their log-probabilities, from logits (B', N)."""
    vocabulary, renormalize = constraints.vocabulary, constraints.constraints.renormalize
    constrained = logits if constraints.history is None else constraints(logits[:, None])[:, 0]
    if renormalize:
        constrained = vocabulary.allowed(constrained)
    tokens, log_probs = choose(constrained, vocabulary, step, sentences)
    if constrained is not logits and not renormalize:  # scores are the model's own log-probabilities
        log_probs = logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]
    if (forced := constraints.forced()) is None:
        return tokens, log_probs
    is_forced = forced != NO_TOKEN
    return torch.where(is_forced, forced, tokens), log_probs.masked_fill(is_forced, 0.0)
