"""Beam search: the best few hypotheses of each sentence go on together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from regard.decode.check import check_scores
from regard.decode.links import START, Links
from regard.decode.search import Beam, Hypothesis
from regard.decode.top import top
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Seq2Seq, State


@final
@dataclass
class Ended:
    """The best hypotheses that are over, of each sentence, best first; a score of -inf where there is none yet."""

    scores: Tensor  # (B, K)
    links: Tensor  # (B, K)
    finished: Tensor  # (B, K): with eos

    def add(self, scores: Tensor, links: Tensor, *, finished: bool) -> None:
        """Take in others (B, K), of which those with a score of -inf don't count."""
        size = self.scores.shape[1]
        self.scores, best = torch.cat((self.scores, scores), 1).topk(size, 1)
        self.links = torch.cat((self.links, links), 1).gather(1, best)
        self.finished = torch.cat((self.finished, torch.full_like(links, finished, dtype=torch.bool)), 1).gather(
            1, best
        )

    def take(self, sentences: Tensor) -> "Ended":
        """Those of some of the sentences: indices or booleans."""
        return Ended(self.scores[sentences], self.links[sentences], self.finished[sentences])


def beam(
    model: Seq2Seq | LanguageModel, state: State, tokens: Tensor, limits: Tensor, search: Beam
) -> list[list[Hypothesis]]:
    """The best targets of each sentence.

    Args:
        model: in evaluation mode.
        state: of B sentences with one hypothesis each.
        tokens: (B,) what each goes on from.
        limits: (B,) tokens that a target may have at most, `eos` among them.
        search: how many hypotheses, and how they are scored.

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
    over = Ended(torch.full_like(nothing, -torch.inf, dtype=torch.float32), nothing, nothing > 0)
    same = torch.arange(size, device=limits.device)
    links, shortest = Links(), int(limits.min())
    done_sentences: list[Tensor] = []
    done_over: list[Ended] = []
    for length in range(1, int(limits.max()) + 1):
        divisor = float(length**search.length_penalty)
        logits = model.project(model.step(tokens, state)).float()
        totals, parents, tokens = continuations(logits, scores, 2 * size, never=model.vocabulary.never)
        check_scores(totals[:, 0], length - 1)
        behind = last.gather(1, parents)
        ends = model.vocabulary.ends(tokens)

        if bool(ends.any()):
            ended = totals[:, :size].masked_fill(~ends[:, :size], -torch.inf)
            over.add(ended / divisor, behind[:, :size], finished=True)
            scores, going = totals.masked_fill(ends, -torch.inf).topk(size, 1)
            parents, tokens, behind = (x.gather(1, going) for x in (parents, tokens, behind))
        else:
            scores, going = totals[:, :size], same.expand(len(limits), -1)
            parents, tokens, behind = (x[:, :size] for x in (parents, tokens, behind))
        last = links.add(tokens, behind)

        if search.early_stopping:
            done = over.scores[:, -1] > -torch.inf
        else:
            done = ~(scores[:, 0] / divisor > over.scores[:, -1])
        if search.forced_eos and length >= shortest - 1:
            # A step further each of them would be followed by `eos`, at no cost.
            closed = limits - 1 <= length
            certain = scores.masked_fill((done | ~closed)[:, None], -torch.inf)
            over.add(certain / float((length + 1) ** search.length_penalty), last, finished=True)
            done = done | closed
        elif length >= shortest:
            closed = limits <= length
            # As those that end with eos: only what is among the first `size` continuations.
            cut = scores.masked_fill((going >= size) | ~closed[:, None], -torch.inf)
            over.add(cut / divisor, last, finished=False)
            done = done | closed
        if bool(done.any()):
            done_sentences.append(sentences[done])
            done_over.append(over.take(done))
            rows = (~done).nonzero()[:, 0]
            if not len(rows):
                break
            state.keep(rows)
            over = over.take(rows)
            sentences, limits, scores, last, parents, tokens = (
                x[rows] for x in (sentences, limits, scores, last, parents, tokens)
            )
        if not torch.equal(parents, same.expand_as(parents)):
            state.reorder(parents)

    order = torch.cat(done_sentences).argsort()
    scores, last, finished = (
        torch.cat([getattr(x, name) for x in done_over])[order, : search.n_best]
        for name in ("scores", "links", "finished")
    )
    targets = links.read(last.flatten().tolist())
    found = list(map(Hypothesis, targets, scores.flatten().tolist(), finished.flatten().tolist()))
    each = range(0, len(found), search.n_best)
    return [[one for one in found[i : i + search.n_best] if one.score > -torch.inf] for i in each]


def continuations(
    logits: Tensor, scores: Tensor, count: int, never: Sequence[int] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    """The best next tokens of all hypotheses of a sentence.

    Args:
        logits: (B, K, N).
        scores: (B, K), sums of log-probabilities so far.
        count: how many to find. Where there are fewer, the others have a score of -inf.
        never: tokens that are not looked at.

    Returns:
        Sums (B, count) that include the token, best first; the hypotheses (B, count) that they go on from; and the
        tokens (B, count).
    """
    totals = logits.log_softmax(2).add_(scores[:, :, None])
    if never:
        totals[..., list(never)] = -torch.inf
    totals = totals.flatten(1)
    size, there = logits.shape[2], totals.shape[1]
    best, found = top(totals, min(count, there))
    if there < count:
        best = functional.pad(best, (0, count - there), value=-torch.inf)
        found = functional.pad(found, (0, count - there))
    return best, found // size, found % size
