"""Location-aware attention of a recurrent decoder: each step also sees where the previous one attended."""

import math
from dataclasses import replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from regard.attention.attend import attend
from regard.attention.check import check_integer, show
from regard.attention.location_aware import LocationAware
from regard.attention.normalizer import NormalizedSigmoid, Softmax
from regard.attention.patterns.pattern import Full, Pattern
from regard.attention.patterns.sequence_pattern import Around
from regard.attention.summary import Summary
from regard.errors import ConfigError, ShapeError
from regard.layers.attention_module import AttentionModule
from regard.layers.linear import Linear


class Attended(NamedTuple):
    """Output of one step of a location-aware attention."""

    context: Tensor  # (B, K, V)
    weights: Tensor  # (B, K, S): state for the next step


@final
class LocationAwareAttention(AttentionModule):
    """Cross-attention of one decoder step, whose score depends on the previous step's weights.

    With s the decoder's state, h_j the encoder's states and a the previous step's weights:
        e_j = w . tanh(W s + b + V h_j + U f_j),  f = F * a (convolution over j)
        weights = softmax(e), or sigmoid(e + c) / sum of sigmoid(e + c) with smoothing
    The weights are the state: a decoder starts from `initial_weights`, passes those of each step to the next, and
    reorders them with its hypotheses. Gradients go through them.

    Args:
        query_dim: size of the queries, s.
        key_dim: size of the keys, h.
        align_dim: E, size of the projected queries and keys.
        num_filters: number of filters F; 10 in the paper.
        kernel_size: taps of a filter, odd; 201 in the paper, of frames of 10 ms.
        window: keys more than this far from the median of the previous weights are hidden; None for no window.
        smoothing: whether the weights are a normalized sigmoid instead of a softmax.

    Raises:
        ConfigError: a size below 1, an even kernel size, a negative window, or smoothing that is not True or False.

    Source: Chorowski et al. 2015, arXiv 1506.07503, section 2.2, equations 8 and 9; smoothing and window: section 2.3.
    The first step's weights, all on the first key, and the learned c are those of the authors' code.

    >>> attention = LocationAwareAttention(5, 6, align_dim=7, kernel_size=3, smoothing=True)
    >>> states = torch.randn(2, 4, 6)
    >>> key, weights = attention.project_key(states), attention.initial_weights(states)[:, None]
    >>> context, weights = attention(torch.randn(2, 1, 5), key, states, weights)
    >>> context.shape, weights.shape
    (torch.Size([2, 1, 6]), torch.Size([2, 1, 4]))
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int,
        *,
        align_dim: int,
        num_filters: int = 10,
        kernel_size: int = 201,
        window: int | None = None,
        smoothing: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"query_dim": query_dim, "key_dim": key_dim, "align_dim": align_dim, "num_filters": num_filters}
        for name, size in {**sizes, "kernel_size": kernel_size}.items():
            check_integer("LocationAwareAttention", name, size, 1)
        if kernel_size % 2 == 0:
            raise ConfigError(
                f"LocationAwareAttention: kernel_size={kernel_size} must be odd, with a tap in the middle"
            )
        if window is not None:
            check_integer("LocationAwareAttention", "window", window, 0, ", or None")
        if not isinstance(smoothing, bool):
            raise ConfigError(f"LocationAwareAttention: smoothing={show(smoothing)} must be True or False")
        self.query_dim, self.align_dim, self.window = query_dim, align_dim, window
        self.query_proj = Linear(query_dim, align_dim)  # W, b
        self.key_proj = Linear(key_dim, align_dim, bias=False)  # V
        self.filters = nn.Parameter(torch.empty(num_filters, kernel_size))  # F
        self.location_proj = nn.Parameter(torch.empty(num_filters, align_dim))  # U
        self.vector = nn.Parameter(torch.empty(align_dim))  # w
        self.sigmoid_bias = nn.Parameter(torch.empty(())) if smoothing else None  # c
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the parameters: Xavier-uniform (Glorot and Bengio 2010, equation 16), biases 0.

        The filters are uniform with bound 1 / sqrt(kernel_size), as PyTorch's convolutions.
        """
        for matrix in (self.query_proj.weight, self.key_proj.weight, self.location_proj, self.vector[:, None]):
            nn.init.xavier_uniform_(matrix)
        bound = 1 / math.sqrt(self.filters.shape[1])
        nn.init.uniform_(self.filters, -bound, bound)
        nn.init.zeros_(self.query_proj.bias)
        if self.sigmoid_bias is not None:
            nn.init.zeros_(self.sigmoid_bias)

    def project_key(self, key: Tensor) -> Tensor:
        """Project the keys for `forward`, once per utterance.

        Args:
            key: (B, S, key_dim).

        Returns:
            (B, S, E).
        """
        projected: Tensor = self.key_proj(key)
        return projected

    def initial_weights(self, key: Tensor) -> Tensor:
        """Weights before the first step: all on the first key.

        Args:
            key: (B, S, any size).

        Returns:
            (B, S), at least float32; add the dimension of hypotheses second.
        """
        weights = key.new_zeros(key.shape[:2], dtype=torch.promote_types(key.dtype, torch.float32))
        weights[:, :1] = 1
        return weights

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        previous: Tensor,
        *,
        pattern: Pattern = Full(),
        summary: Summary | None = None,
    ) -> Any:
        """Attend to the values in one step of K hypotheses, which share the keys of their utterance.

        Args:
            query: (B, K, query_dim); K is 1 in training.
            key: result of `project_key`, (B, S, E).
            value: (B, S, V).
            previous: weights of the previous step, (B, K, S).
            pattern: hides the padding of utterances, such as `KeyLengths`. Previous weights must be 0 there, as those
                of a step with this pattern are.
            summary: further summaries of the weights; their heads are the hypotheses.

        Returns:
            Context (B, K, V) and weights (B, K, S); with a summary, a tuple of these and a `SummaryResult`.

        Raises:
            ShapeError: inputs of incompatible sizes.
        """
        self._check_inputs(query, key, value, previous)
        projected = self.query_proj(query)[:, :, None]  # a head for each hypothesis
        score = LocationAware.from_previous(
            previous[:, :, None], filters=self.filters, projection=self.location_proj, vector=self.vector
        )
        if self.window is not None:
            around = Around(median(previous)[..., None], left=self.window, right=self.window)
            pattern = around if isinstance(pattern, Full) else pattern & around
        output, seen = attend(
            projected,
            key[:, None].to(projected.dtype),
            value[:, None].to(projected.dtype),
            score=score,
            normalizer=Softmax() if self.sigmoid_bias is None else NormalizedSigmoid(self.sigmoid_bias),
            pattern=pattern,
            summary=Summary(weights=True) if summary is None else replace(summary, weights=True),
        )
        attended = Attended(output[:, :, 0], seen.weights[:, :, 0])  # type: ignore[index]
        return attended if summary is None else (attended, seen)

    def extra_repr(self) -> str:
        filters = f"num_filters={self.filters.shape[0]}, kernel_size={self.filters.shape[1]}"
        return f"{filters}, window={self.window}, smoothing={self.sigmoid_bias is not None}"

    def _check_inputs(self, query: Tensor, key: Tensor, value: Tensor, previous: Tensor) -> None:
        for name, x, size, shape in (
            ("query", query, self.query_dim, f"(batch, hypotheses, {self.query_dim})"),
            ("key", key, self.align_dim, f"(batch, source length, {self.align_dim}), from project_key"),
            ("value", value, None, "(batch, source length, size)"),
            ("previous", previous, None, "(batch, hypotheses, source length), weights of the previous step"),
        ):
            if not isinstance(x, Tensor) or x.dim() != 3 or size not in (None, x.shape[-1]):
                raise ShapeError(f"LocationAwareAttention: {name} is {show(x)}; expected {shape}")
        if previous.shape != (*query.shape[:2], key.shape[1]):
            raise ShapeError(
                f"LocationAwareAttention: previous has shape {tuple(previous.shape)}; expected "
                f"{(*query.shape[:2], key.shape[1])}, for queries {tuple(query.shape)} and keys {tuple(key.shape)}"
            )


def median(weights: Tensor) -> Tensor:
    """Position of the first key up to which there is half of the weight, without gradient.

    Args:
        weights: (..., S).

    Returns:
        int64 (...); 0 where all weights are 0.
    """
    sums = weights.detach().cumsum(-1)
    return (sums < sums[..., -1:] / 2).sum(-1)
