"""One hypothesis a sentence, which goes on with the token that is chosen at each step."""

from collections.abc import Callable

import torch
from torch import Tensor

from regard.decode.check import check_scores
from regard.decode.links import START, Links
from regard.decode.search import Hypothesis
from regard.decode.top import top
from regard.models.seq2seq import Memory, Seq2Seq

# (logits (B', N), step, sentences (B',)) -> tokens (B',)
Choose = Callable[[Tensor, int, Tensor], Tensor]


def most_probable(logits: Tensor, step: int, sentences: Tensor) -> Tensor:
    """The greedy choice."""
    return top(logits, 1)[1][:, 0]


def follow(model: Seq2Seq, memory: Memory, limits: Tensor, choose: Choose) -> list[list[Hypothesis]]:
    """A target for each sentence.

    Args:
        model: in evaluation mode.
        memory: of B sources.
        limits: (B,) tokens that a target may have at most, `eos` among them.
        choose: the next tokens, from logits (B', N), the number of the step, and which sentences (B',) are left.

    Returns:
        One hypothesis for each sentence.

    Raises:
        CheckpointError: the model gives NaN.
    """
    sentences = torch.arange(len(limits), device=limits.device)
    tokens = torch.full_like(sentences, model.vocabulary.bos)
    last = torch.full_like(sentences, START)
    scores = torch.zeros_like(sentences, dtype=torch.float32)
    state, links, shortest = model.start(memory), Links(), int(limits.min())
    ended: list[tuple[Tensor, ...]] = []
    for step in range(int(limits.max())):
        logits = model.project(model.step(tokens[:, None], state))[:, 0].float()
        tokens = choose(logits, step, sentences)
        scores = scores + logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]
        finished = tokens == model.vocabulary.eos
        done = finished if step + 1 < shortest else finished | (limits <= step + 1)
        before, last = last, links.add(tokens, last)
        if not bool(done.any()):
            continue
        check_scores(scores, step)
        ends = torch.where(finished, before, last)
        ended.append(tuple(x[done] for x in (sentences, scores / (step + 1), ends, finished)))
        going = (~done).nonzero()[:, 0]
        if not len(going):
            break
        state.keep(going)
        sentences, tokens, last, scores, limits = (x[going] for x in (sentences, tokens, last, scores, limits))
    order, values, lasts, whole = (torch.cat(x).tolist() for x in zip(*ended, strict=True))
    found = dict(zip(order, map(Hypothesis, links.read(lasts), values, whole), strict=True))
    return [[found[sentence]] for sentence in range(len(found))]
