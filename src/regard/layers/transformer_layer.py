"""Encoder and decoder layers of the Transformer, and their feed-forward networks."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.attention.bias import Bias
from regard.attention.cache import KeyValueCache
from regard.attention.patterns.pattern import Causal, Full, Pattern
from regard.attention.summary import Summary, SummaryResult
from regard.errors import ConfigError, nearest
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.multi_head_attention import AnyBias, MultiHeadAttention

Norm = Literal["post", "pre"]
MakeNorm = Callable[[], nn.Module]
NORM_EPS = 1e-5  # added to the variance, as in PyTorch
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,  # in place: allocating another tensor would take longer than the activation
    "gelu": functional.gelu,
    "gelu-tanh": partial(functional.gelu, approximate="tanh"),  # as BERT's and GPT's own code compute it
    "swish": functional.silu,
    "quick-gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu-squared": lambda x: functional.relu(x).square(),
    "mish": functional.mish,
    "tanh": torch.tanh,
}


@final
class FeedForward(nn.Module):
    """Position-wise feed-forward network: W_2 activation(W_1 x + b_1) + b_2.

    Args:
        embed_dim: D.
        ffn_dim: size of the hidden layer.
        activation: "relu", "gelu", "swish", or another of `ACTIVATIONS`.
        bias: whether to use b_1 and b_2.
        dropout: dropout of the hidden layer, as in T5.

    Raises:
        ConfigError: an unknown activation.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.3, equation 2; "gelu" and its form by tanh: Hendrycks and
    Gimpel 2016, arXiv 1606.08415, section 2.
    """

    def __init__(
        self, embed_dim: int, ffn_dim: int, activation: str = "relu", *, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.activation = _known_activation("FeedForward", activation)
        self.expand = Linear(embed_dim, ffn_dim, bias)
        self.contract = Linear(ffn_dim, embed_dim, bias)
        for linear in (self.expand, self.contract):
            _init_linear(linear)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network at each position.

        Args:
            x: (B, L, D).

        Returns:
            (B, L, D).
        """
        hidden: Tensor = self.contract(self.dropout(ACTIVATIONS[self.activation](self.expand(x))))
        return hidden


@final
class GatedFeedForward(nn.Module):
    """Gated position-wise feed-forward network: W_2 (activation(W x + b) * (V x + c)) + b_2.

    Args:
        embed_dim: D.
        ffn_dim: size of the hidden layer.
        activation: activation of the gate: "swish" for SwiGLU, "gelu" for GEGLU; or another that `FeedForward` has.
        bias: whether to use b, c and b_2.
        dropout: dropout of the hidden layer, as in T5.

    Raises:
        ConfigError: an unknown activation.

    Source: Shazeer 2020, "GLU Variants Improve Transformer", arXiv 2002.05202, section 2, equation 6.
    """

    def __init__(
        self, embed_dim: int, ffn_dim: int, activation: str = "swish", *, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.activation = _known_activation("GatedFeedForward", activation)
        self.gate = Linear(embed_dim, ffn_dim, bias)
        self.expand = Linear(embed_dim, ffn_dim, bias)
        self.contract = Linear(ffn_dim, embed_dim, bias)
        for linear in (self.gate, self.expand, self.contract):
            _init_linear(linear)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network at each position.

        Args:
            x: (B, L, D).

        Returns:
            (B, L, D).
        """
        hidden: Tensor = self.contract(self.dropout(ACTIVATIONS[self.activation](self.gate(x)) * self.expand(x)))
        return hidden


def _known_activation(owner: str, activation: str) -> str:
    """Return the name; raise ConfigError if it is not in `ACTIVATIONS`."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"{owner}: unknown activation {activation!r}; {nearest(activation, ACTIVATIONS)}")
    return activation


def _init_linear(linear: nn.Linear) -> None:
    nn.init.xavier_uniform_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


@final
class Residual(nn.Module):
    """Residual connection around a sublayer, with dropout and norm.

    norm(x + dropout(sublayer(x))) as published ("post"), or x + dropout(sublayer(norm(x))) ("pre").

    Args:
        embed_dim: D.
        norm: "post" or "pre".
        dropout: probability that an entry of the output of the sublayer is dropped.
        norm_eps: epsilon of the norm.
        make_norm: factory of another norm over D features; None for layer normalization.
        layer_scale: initial value of a learned factor of each output feature; None for no factor.

    Raises:
        ConfigError: a `norm` that is neither "post" nor "pre".

    Source: Vaswani et al. 2017, arXiv 1706.03762, sections 3.1 and 5.4; "pre": Xiong et al. 2020, arXiv 2002.04745,
    section 3.2; the factor: Touvron et al. 2021, "Going deeper with Image Transformers", arXiv 2103.17239, section 2.
    """

    def __init__(
        self,
        embed_dim: int,
        norm: Norm,
        dropout: float,
        norm_eps: float = NORM_EPS,
        make_norm: MakeNorm | None = None,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        if norm not in ("post", "pre"):
            raise ConfigError(f'Residual: norm={norm!r}; expected "post", as published, or "pre"')
        self.first = norm == "pre"
        self.norm = nn.LayerNorm(embed_dim, norm_eps) if make_norm is None else make_norm()
        self.dropout = Dropout(dropout)
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((embed_dim,), float(layer_scale)))

    def forward(self, x: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply the sublayer with its residual connection.

        Args:
            x: (B, L, D).
            part: the sublayer, from (B, L, D) to (B, L, D).

        Returns:
            (B, L, D).
        """
        y = part(self.norm(x) if self.first else x)
        if self.scale is not None:
            y = y * self.scale
        if self.first:
            return x + self.dropout(y)
        normed: Tensor = self.norm(x + self.dropout(y))
        return normed


@final
class EncoderLayer(nn.Module):
    """Encoder layer: self-attention, then the feed-forward network.

    Args:
        embed_dim: D.
        num_heads: H.
        ffn_dim: hidden size of the feed-forward network.
        norm: "post" or "pre".
        activation: activation of the feed-forward network.
        dropout: dropout of the outputs of both sublayers.
        attention_dropout: dropout of the attention weights.
        norm_eps: epsilon of both norms.
        make_norm: factory of another norm over D features; None for layer normalization.
        feed_forward: another feed-forward network; None for `FeedForward`.
        layer_scale: initial value of learned factors of the outputs of both sublayers; None for no factors.
        attention: options of `MultiHeadAttention`: score, normalizer, pattern, position_bias.

    Raises:
        ConfigError: sizes or names that don't go together.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.1.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        ffn_dim: int,
        *,
        norm: Norm = "post",
        activation: str = "relu",
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        norm_eps: float = NORM_EPS,
        make_norm: MakeNorm | None = None,
        feed_forward: nn.Module | None = None,
        layer_scale: float | None = None,
        **attention: Any,
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(embed_dim, num_heads, dropout=attention_dropout, **attention)
        self.feed_forward = FeedForward(embed_dim, ffn_dim, activation) if feed_forward is None else feed_forward
        self.around_self = Residual(embed_dim, norm, dropout, norm_eps, make_norm, layer_scale)
        self.around_feed_forward = Residual(embed_dim, norm, dropout, norm_eps, make_norm, layer_scale)

    def forward(self, x: Tensor, pattern: Pattern, bias: AnyBias | None = None) -> Tensor:
        """Apply the layer.

        Args:
            x: (B, S, D).
            pattern: padding pattern of the source.
            bias: bias of the scores, as `MultiHeadAttention` takes it.

        Returns:
            (B, S, D).
        """
        x = self.around_self(x, lambda x: self.self_attention(x, pattern=pattern, bias=bias))
        return self.around_feed_forward(x, self.feed_forward)


@final
class DecoderLayer(nn.Module):
    """Decoder layer: causal self-attention, cross-attention, then the feed-forward network.

    Args:
        embed_dim: D.
        num_heads: H.
        ffn_dim: hidden size of the feed-forward network.
        norm: "post" or "pre".
        activation: activation of the feed-forward network.
        dropout: dropout of the outputs of the three sublayers.
        attention_dropout: dropout of the attention weights.
        make_norm: factory of another norm over D features; None for layer normalization.
        feed_forward: another feed-forward network; None for `FeedForward`.
        pattern: combined by & with the causal pattern of self-attention.
        position_bias: position bias of self-attention.
        attention: options of both attentions: score, normalizer.

    Raises:
        ConfigError: sizes or names that don't go together.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.1.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        ffn_dim: int,
        *,
        norm: Norm = "post",
        activation: str = "relu",
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        make_norm: MakeNorm | None = None,
        feed_forward: nn.Module | None = None,
        pattern: Pattern = Full(),
        position_bias: Any = None,
        **attention: Any,
    ) -> None:
        super().__init__()
        attention["dropout"] = attention_dropout
        causal = Causal() if isinstance(pattern, Full) else Causal() & pattern
        self.self_attention = MultiHeadAttention(
            embed_dim, num_heads, pattern=causal, position_bias=position_bias, **attention
        )
        self.cross_attention = MultiHeadAttention(embed_dim, num_heads, **attention)
        self.feed_forward = FeedForward(embed_dim, ffn_dim, activation) if feed_forward is None else feed_forward
        self.around_self, self.around_cross, self.around_feed_forward = (
            Residual(embed_dim, norm, dropout, make_norm=make_norm) for _ in range(3)
        )

    def forward(self, x: Tensor, memory: Tensor, pattern: Pattern, bias: Bias | None = None) -> Tensor:
        """Apply the layer to whole targets.

        Args:
            x: (B, T, D).
            memory: hidden states of the encoder, (B, S, D).
            pattern: padding pattern of the source.
            bias: bias of the scores of self-attention, for models whose layers share it.

        Returns:
            (B, T, D).
        """
        x = self.around_self(x, lambda x: self.self_attention(x, bias=bias))
        x = self.around_cross(x, lambda x: self.cross_attention(x, memory, pattern=pattern))
        return self.around_feed_forward(x, self.feed_forward)

    def step(
        self, x: Tensor, past: KeyValueCache, memory: KeyValueCache, pattern: Pattern, bias: Bias | None = None
    ) -> Tensor:
        """Apply the layer to the next token of each hypothesis.

        Args:
            x: (B, K, D), K hypotheses of each of B sentences.
            past: KV cache of self-attention, B K sequences.
            memory: KV cache of cross-attention, B sequences, shared by the hypotheses.
            pattern: padding pattern of the source.
            bias: as in `forward`.

        Returns:
            (B, K, D).
        """
        batch, hypotheses, size = x.shape
        nothing = x.new_empty(batch, 0, size)

        def see_past(x: Tensor) -> Tensor:
            rows = x.reshape(batch * hypotheses, 1, size)
            return self.self_attention(rows, cache=past, bias=bias).view(batch, hypotheses, size)

        x = self.around_self(x, see_past)
        x = self.around_cross(x, lambda x: self.cross_attention(x, nothing, cache=memory, pattern=pattern))
        return self.around_feed_forward(x, self.feed_forward)

    def summarized(self, x: Tensor, memory: Tensor, summary: Summary | None) -> tuple[Tensor, SummaryResult | None]:
        """Apply the layer to whole targets, with a summary of the cross-attention weights.

        Args:
            x: (B, T, D).
            memory: hidden states of the encoder, (B, S, D), without padding.
            summary: summaries of the cross-attention weights to compute; None for none.

        Returns:
            (B, T, D), and the summary or None.
        """
        summaries: list[SummaryResult] = []

        def look(x: Tensor) -> Tensor:
            if summary is None:
                return self.cross_attention(x, memory)
            output, weights = self.cross_attention(x, memory, summary=summary)
            summaries.append(weights)
            return output

        x = self.around_cross(self.around_self(x, self.self_attention), look)
        return self.around_feed_forward(x, self.feed_forward), summaries[0] if summaries else None

    def extend(self, x: Tensor, past: KeyValueCache, memory: KeyValueCache, pattern: Pattern) -> Tensor:
        """Apply the layer to the next tokens of each sequence, several at once.

        Args:
            x: (B, T, D), T tokens of each of B sequences with one hypothesis each.
            past: KV cache of self-attention, B sequences.
            memory: KV cache of cross-attention, B sequences.
            pattern: padding pattern of the source.

        Returns:
            (B, T, D).
        """
        nothing = x.new_empty(len(x), 0, x.shape[2])
        x = self.around_self(x, lambda x: self.self_attention(x, cache=past))
        x = self.around_cross(x, lambda x: self.cross_attention(x, nothing, cache=memory, pattern=pattern))
        return self.around_feed_forward(x, self.feed_forward)

    def remember(self, memory: Tensor, taken: Tensor | None = None) -> KeyValueCache:
        """Make the KV cache of cross-attention from the encoder's output.

        Args:
            memory: hidden states of the encoder, (B, S, D); with `taken`, those of the N tokens only, (1, N, D).
            taken: (B, S), True for positions that are not padding.

        Returns:
            The cache.
        """
        cache = KeyValueCache(capacity=(memory if taken is None else taken).shape[1])
        with torch.no_grad():
            new = self.cross_attention.keys_and_values(memory)
            if taken is None:
                cache.append(*new)
                return cache
            key_sizes, value_sizes = ((len(taken), x.shape[1], taken.shape[1], x.shape[3]) for x in new)
            *buffers, _ = cache.room(key_sizes, value_sizes, new[0])
            for to, x in zip(buffers, new, strict=True):
                to.transpose(1, 2)[taken] = x[0].transpose(0, 1)
        return cache
