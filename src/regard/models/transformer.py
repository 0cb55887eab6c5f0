"""The Transformer encoder-decoder.

Source: Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from regard.attention.patterns.pattern import Full, Pattern
from regard.attention.value import short_repr
from regard.errors import ConfigError, nearest
from regard.layers.attention_config import AttentionConfig
from regard.layers.decoder_stack import DecoderEnds
from regard.layers.dropout import Dropout
from regard.layers.output_projection import OutputProjection
from regard.layers.positions import LearnedPositions, SinusoidalPositions
from regard.layers.quantized_linear import readable_weight
from regard.layers.transformer_layer import DecoderLayer, EncoderLayer, Norm
from regard.models.check import check_fields
from regard.models.decoder_state import DecoderState
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary
from regard.models.step_positions import StepPositions

# base and big: table 3 of the paper.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 128, "num_heads": 4, "ffn_dim": 512, "encoder_layers": 2, "decoder_layers": 2},
    "small": {"embed_dim": 256, "num_heads": 4, "ffn_dim": 1024, "encoder_layers": 3, "decoder_layers": 3},
    "base": {"embed_dim": 512, "num_heads": 8, "ffn_dim": 2048, "encoder_layers": 6, "decoder_layers": 6},
    "big": {
        "embed_dim": 1024, "num_heads": 16, "ffn_dim": 4096, "encoder_layers": 6, "decoder_layers": 6,
        "dropout": 0.3,
    },
}  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class TransformerConfig:
    """Configuration of a `Transformer`.

    Args:
        vocabulary: joint vocabulary of source and target.
        embed_dim: D, size of hidden states.
        num_heads: H, number of attention heads.
        ffn_dim: hidden size of the feed-forward networks.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        dropout: dropout of sublayer outputs and of embeddings (section 5.4).
        norm: position of layer norms: "post", as in the paper, or "pre".
        activation: "relu", as in the paper, "gelu" or "swish".
        positions: "sinusoidal", as in the paper, "sinusoidal-halves", as in Marian, or "learned".
        max_length: number of learned positions.
        scale_embedding: whether embeddings are multiplied by sqrt(embed_dim) (section 3.4).
        output_bias: whether logits have a bias, as in Marian.
        attention: score, normalizer and other values that replace the default attention's.

    Raises:
        ConfigError: an unknown value, or one that is out of range.
    """

    vocabulary: Vocabulary
    embed_dim: int = 256
    num_heads: int = 4
    ffn_dim: int = 1024
    encoder_layers: int = 3
    decoder_layers: int = 3
    dropout: float = 0.1
    norm: Norm = "post"
    activation: str = "relu"
    positions: Literal["sinusoidal", "sinusoidal-halves", "learned"] = "sinusoidal"
    max_length: int = 1024
    scale_embedding: bool = True
    output_bias: bool = False
    attention: AttentionConfig = AttentionConfig()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    def from_preset(name: str, vocabulary: Vocabulary, **changes: Any) -> "TransformerConfig":
        """Configuration by name.

        Args:
            name: "tiny", "small", "base" or "big".
            vocabulary: joint vocabulary of source and target.
            changes: fields that differ from it.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown name.
        """
        return TransformerConfig(vocabulary=vocabulary, **{**size_settings(name), **changes})


def size_settings(size: str) -> dict[str, Any]:
    """The fields of TransformerConfig that a named size sets; "tiny", "small", "base" or "big".

    Raises:
        ConfigError: an unknown size.
    """
    if size not in PRESETS:
        raise ConfigError(f"transformer has no size {size!r}; {nearest(size, PRESETS)}")
    return PRESETS[size]


@final
class Transformer(Seq2Seq):
    """A Transformer encoder-decoder, with one embedding for source, target and output projection (section 3.4).

    Args:
        config: sizes and options.

    Raises:
        ConfigError: inconsistent sizes.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.

    >>> import regard as rg
    >>> model = rg.Transformer(rg.TransformerConfig.from_preset("tiny", rg.Vocabulary(size=100)))
    >>> model(torch.tensor([[5, 6, 2]]), None, torch.tensor([[1, 7, 8, 9]])).logits.shape
    torch.Size([1, 4, 100])
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        size, attention = config.embed_dim, config.attention
        layer: dict[str, Any] = {"norm": config.norm, "activation": config.activation, "dropout": config.dropout}
        layer |= {name: x for name in ("score", "normalizer") if (x := getattr(attention, name)) is not None}
        pattern = Full() if attention.pattern is None else attention.pattern
        layer |= {"pattern": pattern, "position_bias": attention.position_bias}
        sizes = (size, config.num_heads, config.ffn_dim)
        self.embedding = nn.Embedding(config.vocabulary.size, size)
        self.positions: nn.Module = (
            LearnedPositions(config.max_length, size)
            if config.positions == "learned"
            else SinusoidalPositions(size, interleaved=config.positions == "sinusoidal")
        )
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes, **layer) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes, **layer) for _ in range(config.decoder_layers))
        pre_norm = config.norm == "pre"  # the last layer's output is not normalized yet
        self.encoder_norm = nn.LayerNorm(size) if pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(size) if pre_norm else nn.Identity()
        self.output_bias = nn.Parameter(torch.zeros(config.vocabulary.size)) if config.output_bias else None
        nn.init.normal_(self.embedding.weight, std=size**-0.5)

    @property
    def max_length(self) -> int | None:
        return self.config.max_length if self.config.positions == "learned" else None

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        memory = Memory(self._embed(inputs), self.source_lengths(inputs, lengths))
        attention = self.config.attention
        # Other scores, patterns and biases may depend on positions, which packing changes.
        packable = attention.score is attention.pattern is attention.position_bias is None
        return memory.apply(self._encode_layers, memory.packing(self) if packable else None)

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        x, pattern = self._embed(targets), memory.pattern
        for layer in self.decoder:
            x = layer(x, memory.states, pattern)
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(readable_weight(self.embedding), self.output_bias)

    def start(self, memory: Memory) -> DecoderState:
        ends = DecoderEnds(self.embedding, self._embedding_factor, self.dropout, self.decoder_norm, self.projection)
        return DecoderState(
            self.decoder, memory, ends, StepPositions(self.positions, self.config.embed_dim, self.max_length)
        )

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        return state.logits(tokens)

    def advance(self, tokens: Tensor, state: DecoderState) -> Tensor:
        return state.hidden(tokens)

    def _encode_layers(self, x: Tensor, pattern: Pattern) -> Tensor:
        """The encoder's hidden states of token embeddings under an attention pattern."""
        for layer in self.encoder:
            x = layer(x, pattern)
        states: Tensor = self.encoder_norm(x)
        return states

    def _embed(self, tokens: Tensor) -> Tensor:
        """Token and position embeddings of tokens (B, L), with dropout."""
        embedded: Tensor = self.dropout(self.positions(self._embed_tokens(tokens), 0))
        return embedded

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        """Token embeddings, scaled if `scale_embedding`."""
        x: Tensor = self.embedding(tokens)
        return x * self._embedding_factor if self.config.scale_embedding else x

    @property
    def _embedding_factor(self) -> float:
        return math.sqrt(self.config.embed_dim) if self.config.scale_embedding else 1.0
