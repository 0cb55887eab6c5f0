"""Beam search over a batch of sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from regard.decode.backpointers import START, Backpointers
from regard.decode.check import check_scores
from regard.decode.constraints import NO_TOKEN, ConstraintState
from regard.decode.search import Beam, Hypothesis
from regard.decode.top import top, topk_log_probs
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Seq2Seq, State


@final
@dataclass
class FinishedHypotheses:
    """The K best finished hypotheses of each sentence, best first; a score of -inf marks an empty slot."""

    scores: Tensor  # (B, K)
    backpointers: Tensor  # (B, K): of their last tokens
    finished: Tensor  # (B, K): whether they ended with eos

    def add(self, scores: Tensor, backpointers: Tensor, *, finished: bool) -> None:
        """Insert candidates (B, K); those with a score of -inf are ignored."""
        size = self.scores.shape[1]
        self.scores, best = torch.cat((self.scores, scores), 1).topk(size, 1)
        self.backpointers = torch.cat((self.backpointers, backpointers), 1).gather(1, best)
        self.finished = torch.cat((self.finished, torch.full_like(backpointers, finished, dtype=torch.bool)), 1).gather(
            1, best
        )

    def select(self, sentences: Tensor) -> "FinishedHypotheses":
        """The hypotheses of some of the sentences, as indices or booleans."""
        return FinishedHypotheses(self.scores[sentences], self.backpointers[sentences], self.finished[sentences])


def beam_search(
    model: Seq2Seq | LanguageModel,
    state: State,
    tokens: Tensor,
    limits: Tensor,
    search: Beam,
    constraints: ConstraintState,
) -> list[list[Hypothesis]]:
    """The best targets of each sentence.

    Args:
        model: in evaluation mode.
        state: after prefill, of B sentences with one hypothesis each.
        tokens: (B,), the token that each sentence starts from.
        limits: (B,), the maximum length of each target, `eos` included.
        search: beam size, length penalty, early stopping and `n_best`.
        constraints: which tokens are allowed.

    Returns:
        For each sentence at most `search.n_best` hypotheses, best first; fewer if no more exist.

    Raises:
        CheckpointError: the model's logits are NaN.
    """
    batch, size, tokens = len(limits), search.size, tokens[:, None]
    sentences = torch.arange(batch, device=limits.device)
    last = torch.full_like(tokens, START)
    scores = torch.zeros_like(tokens, dtype=torch.float32)
    empty = last.expand(-1, size)
    finished = FinishedHypotheses(torch.full_like(empty, -torch.inf, dtype=torch.float32), empty, empty > 0)
    in_order = torch.arange(size, device=limits.device)
    backpointers, shortest = Backpointers(), int(limits.min())
    width = (2 + len(model.vocabulary.more_eos)) * size  # `size` of them remain even if all others are end marks
    done_sentences: list[Tensor] = []
    done_hypotheses: list[FinishedHypotheses] = []
    for length in range(1, int(limits.max()) + 1):
        logits = model.step(tokens, state).float()
        totals, parents, tokens = continuations(logits, scores, width, constraints)
        check_scores(totals[:, 0], length - 1)
        previous = last.gather(1, parents)
        is_end = model.vocabulary.ends(tokens)

        if bool(is_end.any()):
            end_scores = totals[:, :size].masked_fill(~is_end[:, :size], -torch.inf)
            finished.add(end_scores / _divisor(search, length), previous[:, :size], finished=True)
            scores, ranks = totals.masked_fill(is_end, -torch.inf).topk(size, 1)
            parents, tokens, previous = (x.gather(1, ranks) for x in (parents, tokens, previous))
        else:
            scores, ranks = totals[:, :size], in_order.expand(len(limits), -1)
            parents, tokens, previous = (x[:, :size] for x in (parents, tokens, previous))
        last = backpointers.add(tokens, previous)
        constraints.advance(tokens, parents)

        if search.early_stopping is True:
            done = finished.scores[:, -1] > -torch.inf
        else:
            # "never" compares the best score that is still possible, at the maximum length.
            at_limit = search.early_stopping == "never" and search.length_penalty > 0
            best = scores[:, 0] / (limits.float() ** search.length_penalty if at_limit else _divisor(search, length))
            done = ~(best > finished.scores[:, -1])
        if length >= shortest:
            truncated = limits <= length
            # As for hypotheses that end with eos, only those among the first `size` continuations count.
            cut_scores = scores.masked_fill((ranks >= search.size) | ~truncated[:, None], -torch.inf)
            finished.add(cut_scores / _divisor(search, length), last, finished=False)
            done = done | truncated
        if bool(done.any()):
            done_sentences.append(sentences[done])
            done_hypotheses.append(finished.select(done))
            rows = (~done).nonzero()[:, 0]
            if not len(rows):
                break
            state.keep(rows)
            constraints.keep(rows)
            finished = finished.select(rows)
            sentences, limits, scores, last, parents, tokens = (
                x[rows] for x in (sentences, limits, scores, last, parents, tokens)
            )
        if not torch.equal(parents, in_order.expand_as(parents)):
            state.reorder(parents)
    return _hypotheses(torch.cat(done_sentences), done_hypotheses, backpointers, search.n_best)


def _divisor(search: Beam, length: int) -> float:
    """The length normalization: what the score of a hypothesis of this length is divided by."""
    return float(length**search.length_penalty)


def _hypotheses(
    sentences: Tensor, finished: Sequence[FinishedHypotheses], backpointers: Backpointers, count: int
) -> list[list[Hypothesis]]:
    """The `count` best hypotheses of each sentence in sentence order.

    Args:
        sentences: (B,), the number of each sentence, in the order in which they were done.
        finished: their hypotheses, in that order.
        backpointers: of the search.
        count: hypotheses of each sentence.

    Returns:
        Hypotheses of each sentence, best first.
    """
    order = sentences.argsort()
    scores, last, ended = (
        torch.cat([getattr(x, name) for x in finished])[order, :count]
        for name in ("scores", "backpointers", "finished")
    )
    targets = backpointers.read(last.flatten().tolist())
    hypotheses = list(map(Hypothesis, targets, scores.flatten().tolist(), ended.flatten().tolist()))
    starts = range(0, len(hypotheses), count)
    return [[one for one in hypotheses[i : i + count] if one.score > -torch.inf] for i in starts]


def continuations(
    logits: Tensor, scores: Tensor, count: int, constraints: ConstraintState
) -> tuple[Tensor, Tensor, Tensor]:
    """The best one-token continuations over all hypotheses of each sentence.

    Args:
        logits: (B, K, N), of the next token.
        scores: (B, K), sums of log-probabilities so far.
        count: continuations of each sentence; missing ones are filled with a score of -inf.
        constraints: which tokens are allowed.

    Returns:
        Sums of log-probabilities with the new token (B, count), best first; the indices of their parents (B, count);
        and the new tokens (B, count).
    """
    vocabulary, renormalize = constraints.vocabulary, constraints.constraints.renormalize
    per_hypothesis = min(count, logits.shape[2])
    if constraints.history is None:
        allowed = vocabulary.allowed(logits) if renormalize else logits
        best_tokens = topk_log_probs(allowed.flatten(0, 1), vocabulary, per_hypothesis)
    else:
        log_probs = vocabulary.allowed(constraints(logits.log_softmax(-1)))
        best_tokens = top((log_probs.log_softmax(-1) if renormalize else log_probs).flatten(0, 1), per_hypothesis)
    log_probs, tokens = (x.view(*scores.shape, per_hypothesis) for x in best_tokens)
    totals, tokens = (log_probs + scores[:, :, None]).flatten(1), tokens.flatten(1)
    best, indices = totals.topk(min(count, totals.shape[1]), 1)
    parents, tokens = indices // per_hypothesis, tokens.gather(1, indices)
    if (missing := count - best.shape[1]) > 0:
        best = functional.pad(best, (0, missing), value=-torch.inf)
        parents, tokens = (functional.pad(x, (0, missing)) for x in (parents, tokens))
    if (forced := constraints.forced()) is None:
        return best, parents, tokens
    # A forced token has probability 1: each hypothesis has this one continuation, and its score stays.
    is_forced, missing = (forced != NO_TOKEN)[:, None], count - scores.shape[1]
    itself = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    best = torch.where(is_forced, functional.pad(scores, (0, missing), value=-torch.inf), best)
    parents = torch.where(is_forced, functional.pad(itself, (0, missing)), parents)
    return best, parents, torch.where(is_forced, forced[:, None], tokens)
