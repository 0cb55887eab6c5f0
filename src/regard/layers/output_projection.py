"""Output projection: logits of a vocabulary, and their cross entropy without the matrix of all logits.

The logits of a batch are by far its largest tensor. Cross entropy makes, uses and drops them a chunk of rows at a time,
while they are in the processor's cache, and computes the gradients in the same pass: one autograd function over
(hidden, weight, bias), so that a training step has a single backward pass.

Layout: n rows of hidden vectors, F features, N tokens of the vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from regard.layers.linear import linear
from regard.layers.quantized_linear import QuantizedWeight

IGNORED = -100  # label of a position that does not count, as in PyTorch's cross entropy
CHUNK = 1 << 21  # logits in one chunk on the CPU: 8 MB in float32
GPU_CHUNK = 1 << 26  # on a GPU, where few large operations are faster


class CrossEntropy(NamedTuple):
    """Cross entropy summed over the positions that count."""

    smoothed: Tensor  # (): with label smoothing, differentiable: what training minimizes
    plain: Tensor  # (): negative log-likelihood of the labels, without gradient
    count: int  # number of positions that count


class OutputProjection(NamedTuple):
    """Linear map from hidden vectors to logits."""

    weight: Tensor | QuantizedWeight  # (N, F), often that of the token embedding
    bias: Tensor | None = None  # (N,)
    scale: float = 1.0  # factor on the hidden vectors

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., N) of hidden vectors (..., F), in the dtype of `hidden`, or in autocast's."""
        weight, bias = self.weight, self.bias
        if isinstance(weight, QuantizedWeight):
            return weight.linear(self._scaled(hidden), bias)
        if hidden.dtype != weight.dtype and not torch.is_autocast_enabled(hidden.device.type):
            weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        return linear(self._scaled(hidden), weight, bias)

    def as_called(self) -> "OutputProjection":
        """Detached copy where gradients are disabled, so that logits computed later carry no gradient either."""
        if torch.is_grad_enabled():
            return self
        bias = None if self.bias is None else self.bias.detach()
        return self._replace(weight=self.weight.detach(), bias=bias)

    def cross_entropy(self, hidden: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> CrossEntropy:
        """Cross entropy of the logits, computed in chunks.

        Args:
            hidden: (..., F).
            labels: (...), token ids; `IGNORED` where a position does not count.
            label_smoothing: probability mass spread evenly over the vocabulary, from 0 to 1.

        Returns:
            Sums in float32, or in float64 if `hidden` is.

        Source: label smoothing: Szegedy et al. 2016, arXiv 1512.00567, section 7; Vaswani et al. 2017, arXiv
        1706.03762, section 5.4.
        """
        counted = labels != IGNORED
        rows, labels = self._scaled(hidden[counted]), labels[counted]
        if isinstance(self.weight, QuantizedWeight):
            return _cross_entropy(self.weight, self.bias, rows, labels, label_smoothing)
        smoothed, plain = _ChunkedCrossEntropy.apply(rows, self.weight, self.bias, labels, label_smoothing)
        return CrossEntropy(smoothed, plain, len(labels))

    def _scaled(self, hidden: Tensor) -> Tensor:
        return hidden if self.scale == 1 else hidden * self.scale


def _cross_entropy(
    weight: QuantizedWeight, bias: Tensor | None, hidden: Tensor, labels: Tensor, smoothing: float
) -> CrossEntropy:
    """Cross entropy on int8 weights, which has no gradient."""
    smoothed, plain = hidden.new_zeros((), dtype=torch.float32), hidden.new_zeros((), dtype=torch.float32)
    chunk = max(1, CHUNK // len(weight))
    for start in range(0, len(hidden), chunk):
        log_probs = weight.linear(hidden[start : start + chunk], bias).float().log_softmax(-1)
        loss = -log_probs.gather(1, labels[start : start + chunk, None]).sum()
        plain += loss
        smoothed += (1 - smoothing) * loss - smoothing * log_probs.mean(-1).sum()
    return CrossEntropy(smoothed, plain, len(labels))


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Smoothed and plain sums; forward also computes the gradients, which backward scales."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        if hidden.dtype == torch.float64:  # autocast does not cast float64
            dtype = torch.float64
        hidden_needed, weight_needed, bias_needed = ctx.needs_input_grad[:3]
        inputs, matrix = hidden.to(dtype), weight.to(dtype)
        offset = None if bias is None else bias.to(dtype)
        sums = torch.promote_types(dtype, torch.float32)
        smoothed, plain = hidden.new_zeros((), dtype=sums), hidden.new_zeros((), dtype=sums)
        hidden_grad = torch.empty_like(inputs) if hidden_needed else None
        weight_grad = torch.zeros_like(weight) if weight_needed else None
        bias_grad = torch.zeros_like(bias) if bias is not None and bias_needed else None
        chunk = max(1, (CHUNK if device == "cpu" else GPU_CHUNK) // len(weight))
        with torch.autocast(device, enabled=False):
            for start in range(0, len(inputs), chunk):
                rows, targets = inputs[start : start + chunk], labels[start : start + chunk, None]
                logits = functional.linear(rows, matrix, offset).to(sums)
                log_sum = torch.logsumexp(logits, -1, keepdim=True)
                loss = (log_sum - logits.gather(1, targets)).sum()
                plain += loss
                smoothed += (1 - smoothing) * loss
                if smoothing:
                    smoothed += smoothing * (log_sum.sum() - logits.mean(-1).sum())
                if not any(ctx.needs_input_grad[:3]):
                    continue
                gradient = logits.sub_(log_sum).exp_()  # the probabilities
                if smoothing:
                    gradient.sub_(smoothing / len(weight))
                gradient.scatter_add_(1, targets, torch.full_like(log_sum, smoothing - 1))
                if bias_grad is not None:
                    bias_grad += gradient.sum(0)
                gradient = gradient.to(dtype)
                if hidden_grad is not None:
                    torch.mm(gradient, matrix, out=hidden_grad[start : start + chunk])
                if weight_grad is not None and weight_grad.dtype == dtype:
                    weight_grad.addmm_(gradient.t(), rows)
                elif weight_grad is not None:
                    weight_grad += gradient.t() @ rows
        ctx.gradients = hidden_grad, weight_grad, bias_grad
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(plain)
        return smoothed, plain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, bias = (None if x is None else x * scale.to(x.dtype) for x in ctx.gradients)
        return None if hidden is None else hidden.to(ctx.dtype), weight, bias, None, None
