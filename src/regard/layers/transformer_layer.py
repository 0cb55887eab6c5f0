"""The Transformer's encoder and decoder layers, and the feed-forward networks between their attentions."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.attention.bias import Bias
from regard.attention.cache import KeyValueCache
from regard.attention.patterns.pattern import Causal, Full, Pattern
from regard.errors import ConfigError, nearest
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.multi_head_attention import MultiHeadAttention

Norm = Literal["post", "pre"]
MakeNorm = Callable[[], nn.Module]
NORM_EPS = 1e-5  # PyTorch's: what is added to the variance under the root
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,  # in place: another tensor of that size takes longer to get than to fill
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
    """The same two linear maps at every position: W_2 activation(W_1 x + b_1) + b_2.

    Args:
        embed_dim: D.
        ffn_dim: the size between the maps.
        activation: "relu", "gelu", "swish", or another of `ACTIVATIONS`.
        bias: whether the maps add b_1 and b_2.
        dropout: of what is between the maps, as T5 has it.

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
            _start_linear(linear)

    def forward(self, x: Tensor) -> Tensor:
        """The network at each position.

        Args:
            x: (B, L, D).

        Returns:
            (B, L, D).
        """
        hidden: Tensor = self.contract(self.dropout(ACTIVATIONS[self.activation](self.expand(x))))
        return hidden


@final
class GatedFeedForward(nn.Module):
    """Linear maps at every position, one of which gates another: W_2 (activation(W x + b) * (V x + c)) + b_2.

    Args:
        embed_dim: D.
        ffn_dim: the size between the maps.
        activation: of the gate: "swish" for SwiGLU, "gelu" for GEGLU; or another that `FeedForward` has.
        bias: whether the maps add b, c and b_2.
        dropout: of what the last map reads, as T5 has it.

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
            _start_linear(linear)

    def forward(self, x: Tensor) -> Tensor:
        """The network at each position.

        Args:
            x: (B, L, D).

        Returns:
            (B, L, D).
        """
        hidden: Tensor = self.contract(self.dropout(ACTIVATIONS[self.activation](self.gate(x)) * self.expand(x)))
        return hidden


def _known_activation(owner: str, activation: str) -> str:
    """The name itself; ConfigError for one that is not in `ACTIVATIONS`."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"{owner}: unknown activation {activation!r}; {nearest(activation, ACTIVATIONS)}")
    return activation


def _start_linear(linear: nn.Linear) -> None:
    nn.init.xavier_uniform_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


@final
class Residual(nn.Module):
    """What surrounds each part of a layer: dropout, the sum with its input, and the norm.

    norm(x + dropout(part(x))) as published ("post"), or x + dropout(part(norm(x))) ("pre").

    Args:
        embed_dim: D.
        norm: "post" or "pre".
        dropout: the probability that an entry of the part's output is dropped.
        norm_eps: of the norm.
        make_norm: makes another norm of D features; None for layer normalization.
        layer_scale: initial value of a learned factor of each feature of the part's output; None for no factor.

    Raises:
        ConfigError: another place for the norm.

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
        """The part with its surroundings.

        Args:
            x: (B, L, D).
            part: gives (B, L, D) for (B, L, D).

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
    """Self-attention over the source, then the feed-forward network.

    Args:
        embed_dim: D.
        num_heads: H.
        ffn_dim: of the feed-forward network.
        norm: "post" or "pre".
        activation: of the feed-forward network.
        dropout: of the output of both parts.
        attention_dropout: of the attention's weights.
        norm_eps: of both norms.
        make_norm: makes another norm of D features; None for layer normalization.
        feed_forward: another feed-forward network; None for that of the source.
        layer_scale: initial value of learned factors of both parts' outputs; None for no factors.
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

    def forward(self, x: Tensor, pattern: Pattern, bias: Bias | None = None) -> Tensor:
        """One layer of the encoder.

        Args:
            x: (B, S, D).
            pattern: which positions are not padding.
            bias: what is added to the scores, where the layers share it.

        Returns:
            (B, S, D).
        """
        x = self.around_self(x, lambda x: self.self_attention(x, pattern=pattern, bias=bias))
        return self.around_feed_forward(x, self.feed_forward)


@final
class DecoderLayer(nn.Module):
    """Causal self-attention over the target, attention to the source, then the feed-forward network.

    Args:
        embed_dim: D.
        num_heads: H.
        ffn_dim: of the feed-forward network.
        norm: "post" or "pre".
        activation: of the feed-forward network.
        dropout: of the output of the three parts.
        attention_dropout: of the attentions' weights.
        make_norm: makes another norm of D features; None for layer normalization.
        feed_forward: another feed-forward network; None for that of the source.
        pattern: which earlier positions self-attention may see, if not all.
        position_bias: of self-attention.
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
        """One layer of the decoder, over whole targets.

        Args:
            x: (B, T, D).
            memory: the encoder's states, (B, S, D).
            pattern: which of them are not padding.
            bias: what is added to the scores of self-attention, where the layers share it.

        Returns:
            (B, T, D).
        """
        x = self.around_self(x, lambda x: self.self_attention(x, bias=bias))
        x = self.around_cross(x, lambda x: self.cross_attention(x, memory, pattern=pattern))
        return self.around_feed_forward(x, self.feed_forward)

    def step(
        self, x: Tensor, past: KeyValueCache, memory: KeyValueCache, pattern: Pattern, bias: Bias | None = None
    ) -> Tensor:
        """One layer of the decoder, for one more token of each hypothesis.

        Args:
            x: (B, K, D), K hypotheses of each of B sentences.
            past: what self-attention keeps of their earlier tokens, B K sequences.
            memory: what cross-attention keeps of the source, B sequences: hypotheses share it.
            pattern: which source positions are not padding.
            bias: as for whole targets.

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

    def remember(self, memory: Tensor, taken: Tensor | None = None) -> KeyValueCache:
        """The keys and values of the source for cross-attention.

        Args:
            memory: the encoder's states, (B, S, D); those that are not padding, (1, N, D), if `taken` is given.
            taken: (B, S), which places are not padding.

        Returns:
            A cache that holds them.
        """
        cache = KeyValueCache(capacity=(memory if taken is None else taken).shape[1])
        with torch.no_grad():
            new = self.cross_attention.keys_and_values(memory)
            if taken is None:
                cache.append(*new)
                return cache
            of_key, of_value = ((len(taken), x.shape[1], taken.shape[1], x.shape[3]) for x in new)
            *kept, _ = cache.room(of_key, of_value, new[0])
            for to, x in zip(kept, new, strict=True):
                to.transpose(1, 2)[taken] = x[0].transpose(0, 1)
        return cache
