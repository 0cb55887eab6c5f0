"""What training minimizes: cross entropy with label smoothing, without the matrix of all logits.

The logits of a batch are its largest tensor by far. They are made, used and dropped a chunk of tokens at a time, while
they are in the processor's cache, and their gradient is written over them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.data.batches import IGNORED, Batch
from regard.models.seq2seq import Seq2Seq

CHUNK = 1 << 21  # logits at once: 8 MB in float32
GPU_CHUNK = 1 << 26  # likewise, where few large operations are faster


class Loss(NamedTuple):
    """Sums over the target tokens of a batch that are not padding."""

    smoothed: Tensor  # what is minimized
    plain: Tensor  # minus the log-likelihood
    tokens: int


class _SmoothedCrossEntropy(torch.autograd.Function):
    """The sums of both losses over rows of logits, which backward overwrites with their gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        log_sum = torch.logsumexp(wide, -1)
        right = wide.gather(1, target[:, None]).squeeze(1)
        plain = (log_sum - right).sum()
        smoothed = (1 - smoothing) * plain
        if smoothing:
            smoothed = smoothed + smoothing * (log_sum.sum() - wide.mean(-1).sum())
        ctx.save_for_backward(wide, log_sum, target)
        ctx.smoothing, ctx.dtype = smoothing, logits.dtype
        ctx.mark_non_differentiable(plain)
        return smoothed, plain

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        wide, log_sum, target = ctx.saved_tensors
        gradient = wide.sub_(log_sum[:, None]).exp_()  # the probabilities
        if ctx.smoothing:
            gradient.sub_(ctx.smoothing / wide.shape[-1])
        hit = torch.full_like(log_sum, ctx.smoothing - 1)
        gradient.scatter_add_(1, target[:, None], hit[:, None])
        return gradient.mul_(gradients[0]).to(ctx.dtype), None, None


def measure(module: Seq2Seq, batch: Batch, smoothing: float = 0.0) -> Loss:
    """The loss of a batch, for evaluation.

    Args:
        module: the model.
        batch: on its device.
        smoothing: the share of each target that is spread over the vocabulary.

    Returns:
        A `Loss`, without gradients.
    """
    with torch.no_grad():
        features, targets = _counted(module, batch)
        smoothed = plain = features.new_zeros((), dtype=torch.float32)
        for chunk, target in _chunks(module, features, targets):
            more, more_plain = _SmoothedCrossEntropy.apply(module.project(chunk), target, smoothing)
            smoothed, plain = smoothed + more, plain + more_plain
    return Loss(smoothed, plain, batch.tokens)


def learn(module: Seq2Seq, batch: Batch, smoothing: float, tokens: int) -> Loss:
    """The loss of a batch, whose gradients are added to those of the parameters.

    Args:
        module: the model.
        batch: on its device.
        smoothing: the share of each target that is spread over the vocabulary.
        tokens: what the sum of the losses is divided by, before its gradient is taken: the target tokens of the whole
            step, over all its batches and processes.

    Returns:
        A `Loss`.

    Source: label smoothing: Szegedy et al. 2016, arXiv 1512.00567, section 7; Vaswani et al. 2017, arXiv 1706.03762,
    section 5.4.
    """
    features, targets = _counted(module, batch)
    smoothed = plain = features.new_zeros((), dtype=torch.float32)
    gradients = []
    for chunk, target in _chunks(module, features.detach(), targets):
        chunk.requires_grad_()
        more, more_plain = _SmoothedCrossEntropy.apply(module.project(chunk), target, smoothing)
        (more / tokens).backward()
        gradients.append(chunk.grad)
        smoothed, plain = smoothed + more.detach(), plain + more_plain
    features.backward(torch.cat(gradients))
    return Loss(smoothed, plain, batch.tokens)


def _chunks(module: Seq2Seq, features: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The features and targets of tokens, some at a time: (n, F) and (n,)."""
    rows = max(1, (CHUNK if features.device.type == "cpu" else GPU_CHUNK) // module.vocabulary.size)
    return zip(features.split(rows), target.split(rows), strict=True)


def _counted(module: Seq2Seq, batch: Batch) -> tuple[Tensor, Tensor]:
    """The features and targets of the tokens that are not padding: (tokens, F) and (tokens,)."""
    features = module.decode(batch.target_in, module.encode(batch.source))
    counted = batch.target_out != IGNORED
    return features[counted], batch.target_out[counted]
