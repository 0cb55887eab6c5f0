"""Beam search: the best few hypotheses of each sentence go on together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from regard.decode.backpointers import START, Backpointers
from regard.decode.check import check_scores
from regard.decode.constraints import NOTHING, Rules
from regard.decode.search import Beam, Hypothesis
from regard.decode.top import top, topk_log_probs
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Seq2Seq, State


@final
@dataclass
class FinishedHypotheses:
    """The best hypotheses that are over, of each sentence, best first; a score of -inf where there is none yet."""

    scores: Tensor  # (B, K)
    backpointers: Tensor  # (B, K)
    finished: Tensor  # (B, K): with eos

    def add(self, scores: Tensor, backpointers: Tensor, *, finished: bool) -> None:
        """Take in others (B, K), of which those with a score of -inf don't count."""
        size = self.scores.shape[1]
        self.scores, best = torch.cat((self.scores, scores), 1).topk(size, 1)
        self.backpointers = torch.cat((self.backpointers, backpointers), 1).gather(1, best)
        self.finished = torch.cat((self.finished, torch.full_like(backpointers, finished, dtype=torch.bool)), 1).gather(
            1, best
        )

    def take(self, sentences: Tensor) -> "FinishedHypotheses":
        """Those of some of the sentences: indices or booleans."""
        return FinishedHypotheses(self.scores[sentences], self.backpointers[sentences], self.finished[sentences])


def beam(
    model: Seq2Seq | LanguageModel, state: State, tokens: Tensor, limits: Tensor, search: Beam, rules: Rules
) -> list[list[Hypothesis]]:
    """The best targets of each sentence.

    Args:
        model: in evaluation mode.
        state: of B sentences with one hypothesis each.
        tokens: (B,) what each goes on from.
        limits: (B,) tokens that a target may have at most, `eos` among them.
        search: how many hypotheses, and how they are scored.
        rules: which tokens may come.

    Returns:
        At most `search.n_best` hypotheses for each sentence, best first: fewer only where there are no more.

    Raises:
        CheckpointError: the model gives NaN.
    """
    batch, size, tokens = len(limits), search.size, tokens[:, None]
    sentences = torch.arange(batch, device=limits.device)
    last = torch.full_like(tokens, START)
    scores = torch.zeros_like(tokens, dtype=torch.float32)
    nothing = last.expand(-1, size)
    over = FinishedHypotheses(torch.full_like(nothing, -torch.inf, dtype=torch.float32), nothing, nothing > 0)
    same = torch.arange(size, device=limits.device)
    backpointers, shortest = Backpointers(), int(limits.min())
    width = (2 + len(model.vocabulary.more_eos)) * size  # so many that `size` of them go on, whatever ends
    done_sentences: list[Tensor] = []
    done_over: list[FinishedHypotheses] = []
    for length in range(1, int(limits.max()) + 1):
        logits = model.step(tokens, state).float()
        totals, parents, tokens = continuations(logits, scores, width, rules)
        check_scores(totals[:, 0], length - 1)
        behind = last.gather(1, parents)
        ends = model.vocabulary.ends(tokens)

        if bool(ends.any()):
            ended = totals[:, :size].masked_fill(~ends[:, :size], -torch.inf)
            over.add(ended / _divisor(search, length), behind[:, :size], finished=True)
            scores, going = totals.masked_fill(ends, -torch.inf).topk(size, 1)
            parents, tokens, behind = (x.gather(1, going) for x in (parents, tokens, behind))
        else:
            scores, going = totals[:, :size], same.expand(len(limits), -1)
            parents, tokens, behind = (x[:, :size] for x in (parents, tokens, behind))
        last = backpointers.add(tokens, behind)
        rules.advance(tokens, parents)

        if search.early_stopping is True:
            done = over.scores[:, -1] > -torch.inf
        else:
            patient = search.early_stopping == "never" and search.length_penalty > 0
            best = scores[:, 0] / (limits.float() ** search.length_penalty if patient else _divisor(search, length))
            done = ~(best > over.scores[:, -1])
        if length >= shortest:
            closed = limits <= length
            # As those that end with eos: only what is among the first `size` continuations.
            cut = scores.masked_fill((going >= search.size) | ~closed[:, None], -torch.inf)
            over.add(cut / _divisor(search, length), last, finished=False)
            done = done | closed
        if bool(done.any()):
            done_sentences.append(sentences[done])
            done_over.append(over.take(done))
            rows = (~done).nonzero()[:, 0]
            if not len(rows):
                break
            state.keep(rows)
            rules.keep(rows)
            over = over.take(rows)
            sentences, limits, scores, last, parents, tokens = (
                x[rows] for x in (sentences, limits, scores, last, parents, tokens)
            )
        if not torch.equal(parents, same.expand_as(parents)):
            state.reorder(parents)
    return _hypotheses(torch.cat(done_sentences), done_over, backpointers, search.n_best)


def _divisor(search: Beam, length: int) -> float:
    """What the sum of a hypothesis of so many tokens is divided by."""
    return float(length**search.length_penalty)


def _hypotheses(
    sentences: Tensor, ended: Sequence[FinishedHypotheses], backpointers: Backpointers, count: int
) -> list[list[Hypothesis]]:
    """The best of each sentence, in the order of the sentences, of what ended in the order of `sentences`."""
    order = sentences.argsort()
    scores, last, finished = (
        torch.cat([getattr(x, name) for x in ended])[order, :count] for name in ("scores", "backpointers", "finished")
    )
    targets = backpointers.read(last.flatten().tolist())
    found = list(map(Hypothesis, targets, scores.flatten().tolist(), finished.flatten().tolist()))
    each = range(0, len(found), count)
    return [[one for one in found[i : i + count] if one.score > -torch.inf] for i in each]


def continuations(logits: Tensor, scores: Tensor, count: int, rules: Rules) -> tuple[Tensor, Tensor, Tensor]:
    """The best next tokens of all hypotheses of a sentence.

    Args:
        logits: (B, K, N), of the next token.
        scores: (B, K), sums of log-probabilities so far.
        count: how many to find. Where there are fewer, the others have a score of -inf.
        rules: which tokens may come.

    Returns:
        Sums (B, count) that include the token, best first; the hypotheses (B, count) that they go on from; and the
        tokens (B, count).
    """
    each, vocabulary, renormalize = min(count, logits.shape[2]), rules.vocabulary, rules.constraints.renormalize
    if rules.history is None:
        allowed = vocabulary.allowed(logits) if renormalize else logits
        found = topk_log_probs(allowed.flatten(0, 1), vocabulary, each)
    else:
        likelihoods = vocabulary.allowed(rules(logits.log_softmax(-1)))
        found = top((likelihoods.log_softmax(-1) if renormalize else likelihoods).flatten(0, 1), each)
    likelihoods, tokens = (x.view(*scores.shape, each) for x in found)
    totals, tokens = (likelihoods + scores[:, :, None]).flatten(1), tokens.flatten(1)
    best, places = totals.topk(min(count, totals.shape[1]), 1)
    parents, tokens = places // each, tokens.gather(1, places)
    if (missing := count - best.shape[1]) > 0:
        best = functional.pad(best, (0, missing), value=-torch.inf)
        parents, tokens = (functional.pad(x, (0, missing)) for x in (parents, tokens))
    if (forced := rules.forced()) is None:
        return best, parents, tokens
    # Each hypothesis goes on with one token alone, at no cost.
    certain, missing = (forced != NOTHING)[:, None], count - scores.shape[1]
    same = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    best = torch.where(certain, functional.pad(scores, (0, missing), value=-torch.inf), best)
    parents = torch.where(certain, functional.pad(same, (0, missing)), parents)
    return best, parents, torch.where(certain, forced[:, None], tokens)
