"""What one token, such as a class token, gathers from all tokens through all layers, in memory linear in the length.

A row of a product of matrices is a row times matrices: the rollout and the relevance of one token need a block of rows
of each layer's weights at a time, from the last layer to the first, rather than all weights of all layers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from regard.errors import ConfigError
from regard.lens.capture.call import AttentionCall, detached, wide
from regard.lens.capture.functions import Caller
from regard.lens.record import intercept
from regard.lens.relevance import Attended, weight_gradient, weighted_gradient
from regard.lens.rollout import RESIDUAL
from regard.lens.summaries import weights_of

ROWS = 256  # of the weights at a time


@dataclass
class TracedCall:
    """A call of self-attention, and the gradient of its output once a backward pass has run."""

    call: AttentionCall
    gradient: Tensor | None = field(default=None)

    def weights(self, rows: Tensor) -> Tensor:
        """Weights (B, H, rows, S) of some queries."""
        return wide(weights_of(self.call, rows))

    def take_gradient(self, gradient: Tensor) -> None:
        """Keep the gradient of the output."""
        output = self.call.output
        self.gradient = gradient.detach() if output is None else gradient.detach().reshape(output.shape)


@contextmanager
def trace(model: nn.Module, *, gradients: bool = False) -> Iterator[list[TracedCall]]:
    """Keep the calls of attention inside the block: their inputs, without weights.

    Args:
        model: an encoder.
        gradients: whether a backward pass fills in the gradients of outputs.

    Yields:
        The calls, in the order in which they run.

    Raises:
        ConfigError: a call that cannot be captured.
    """
    calls: list[TracedCall] = []

    def handle(caller: Caller, call: AttentionCall) -> None:
        traced = TracedCall(detached(call))
        if gradients and call.result is not None and call.result.requires_grad:
            call.result.register_hook(traced.take_gradient)
        calls.append(traced)

    def refuse(path: str, reason: str) -> None:
        raise ConfigError(f"{path or 'the model'}: its attention cannot be captured: {reason}")

    with intercept(model, handle, refuse):
        yield calls


def token_rollout(calls: Sequence[TracedCall], token: int = 0, *, residual: float = RESIDUAL) -> Tensor:
    """The row of one token in the attention rollout; see `rollout`.

    Args:
        calls: of each self-attention, first layer first.
        token: index of the token.
        residual: share of the residual connection.

    Returns:
        (B, L), rows that sum to 1.

    Raises:
        ConfigError: no calls.

    Source: Abnar and Zuidema 2020, arXiv 2005.00928, section 3.
    """

    def mixed(call: TracedCall, rows: Tensor, row: Tensor) -> Tensor:
        mean = call.weights(rows).mean(1)  # (B, rows, L)
        scaled = row / (residual + (1 - residual) * mean.sum(-1))
        result = (1 - residual) * (scaled[:, None] @ mean)[:, 0]
        result[:, rows] += residual * scaled
        return result

    return _through(calls, token, mixed)


def token_relevance(calls: Sequence[TracedCall], token: int = 0) -> Tensor:
    """The row of one token in the relevance of weights times gradients; see `relevance`.

    Args:
        calls: of each self-attention, first layer first, with gradients.
        token: index of the token that the output is read from.

    Returns:
        (B, L).

    Raises:
        ConfigError: no calls, or one without a gradient or values.

    Source: Chefer et al. 2021, arXiv 2103.15679, equations 5 and 6.
    """

    def mixed(call: TracedCall, rows: Tensor, row: Tensor) -> Tensor:
        if call.gradient is None or call.call.value is None:
            raise ConfigError("token_relevance: a call has no gradient or no values; run a backward pass before")
        gradient = weight_gradient(call.gradient[:, :, rows].to(call.call.value.dtype), call.call.value)
        result = (row[:, None] @ weighted_gradient(Attended(call.weights(rows), gradient)).float())[:, 0]
        result[:, rows] += row
        return result

    return _through(calls, token, mixed)


def token_attention(calls: Sequence[TracedCall], token: int = 0) -> Tensor:
    """Weights of one token's query in each layer and head, (B, layers, H, L)."""
    return torch.stack([call.weights(torch.tensor([token]))[:, :, 0] for call in calls], 1)


def _through(calls: Sequence[TracedCall], token: int, mixed: Callable[[TracedCall, Tensor, Tensor], Tensor]) -> Tensor:
    """A one-hot row times the matrices of all layers, last layer first."""
    if not calls:
        raise ConfigError("no attention was traced; expected the calls of at least one layer")
    batch, _, length, keys = calls[0].call.shape
    if any(call.call.shape[2:] != (length, keys) for call in calls) or length != keys:
        raise ConfigError("the calls are not self-attention of one length; expected those of an encoder")
    row = torch.zeros(batch, length)
    row[:, token] = 1
    for call in reversed(calls):
        needed = torch.arange(length).split(ROWS)
        row = torch.stack([mixed(call, rows, row[:, rows]) for rows in needed if bool((row[:, rows] != 0).any())]).sum(
            0
        )
    return row
