"""One hypothesis a sentence, which goes on with the token that is chosen at each step."""

from collections.abc import Callable

import torch
from torch import Tensor

from regard.decode.backpointers import START, Backpointers
from regard.decode.check import check_scores
from regard.decode.constraints import NOTHING, Rules
from regard.decode.search import Hypothesis
from regard.decode.top import topk_log_probs
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Seq2Seq, State, Vocabulary

# (logits (B', N), vocabulary, step, sentences (B',)) -> tokens (B',) and their log-probabilities (B',)
Choose = Callable[[Tensor, Vocabulary, int, Tensor], tuple[Tensor, Tensor]]
# (sentences (B',), tokens (B',)) -> which of them end here, (B',)
Watch = Callable[[Tensor, Tensor], Tensor]
OVER = -1  # what a watch is told of a sentence that has ended by itself


def most_probable(logits: Tensor, vocabulary: Vocabulary, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
    """The greedy choice."""
    values, tokens = topk_log_probs(logits, vocabulary, 1)
    return tokens[:, 0], values[:, 0]


def follow(
    model: Seq2Seq | LanguageModel,
    state: State,
    tokens: Tensor,
    limits: Tensor,
    choose: Choose,
    rules: Rules,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """A target for each sentence.

    Args:
        model: in evaluation mode.
        state: of B sentences with one hypothesis each.
        tokens: (B,) what each goes on from.
        limits: (B,) tokens that a target may have at most, `eos` among them.
        choose: the next tokens and their log-probabilities, from logits (B', N), the vocabulary, the number of the
            step, and which sentences (B',) are left.
        rules: which tokens may come.
        watch: is told each step's tokens, OVER where a sentence ended with `eos`, and says which are the last.

    Returns:
        One hypothesis for each sentence.

    Raises:
        CheckpointError: the model gives NaN.
    """
    sentences = torch.arange(len(limits), device=limits.device)
    last = torch.full_like(sentences, START)
    scores = torch.zeros_like(sentences, dtype=torch.float32)
    backpointers, shortest = Backpointers(), int(limits.min())
    ended: list[tuple[Tensor, ...]] = []
    for step in range(int(limits.max())):
        logits = model.step(tokens[:, None], state)[:, 0].float()
        tokens, likelihoods = _chosen(logits, choose, rules, step, sentences)
        scores = scores + likelihoods
        check_scores(scores, step)
        finished = model.vocabulary.ends(tokens)
        done = finished if step + 1 < shortest else finished | (limits <= step + 1)
        if watch is not None:
            done = done | watch(sentences, tokens.masked_fill(finished, OVER))
        before, last = last, backpointers.add(tokens, last)
        rules.advance(tokens[:, None])
        if not bool(done.any()):
            continue
        ends = torch.where(finished, before, last)
        ended.append(tuple(x[done] for x in (sentences, scores / (step + 1), ends, finished)))
        going = (~done).nonzero()[:, 0]
        if not len(going):
            break
        state.keep(going)
        rules.keep(going)
        sentences, tokens, last, scores, limits = (x[going] for x in (sentences, tokens, last, scores, limits))
    order, values, lasts, whole = (torch.cat(x).tolist() for x in zip(*ended, strict=True))
    found = dict(zip(order, map(Hypothesis, backpointers.read(lasts), values, whole), strict=True))
    return [[found[sentence]] for sentence in range(len(found))]


def _chosen(logits: Tensor, choose: Choose, rules: Rules, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
    """The next tokens (B',) and their log-probabilities, from logits (B', N)."""
    vocabulary, renormalize = rules.vocabulary, rules.constraints.renormalize
    changed = logits if rules.history is None else rules(logits[:, None])[:, 0]
    if renormalize:
        changed = vocabulary.allowed(changed)
    tokens, likelihoods = choose(changed, vocabulary, step, sentences)
    if changed is not logits and not renormalize:  # the model's own probabilities
        likelihoods = logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]
    if (forced := rules.forced()) is None:
        return tokens, likelihoods
    certain = forced != NOTHING
    return torch.where(certain, forced, tokens), likelihoods.masked_fill(certain, 0.0)
