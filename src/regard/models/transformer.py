"""The Transformer: attention between a source and a target, and nothing recurrent.

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
from regard.layers.dropout import Dropout
from regard.layers.output_projection import OutputProjection
from regard.layers.positions import LearnedPositions, SinusoidalPositions
from regard.layers.transformer_layer import DecoderLayer, EncoderLayer, Norm
from regard.models.check import check_fields
from regard.models.decoder_state import DecoderState
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary

# base and big: table 3 of the source.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 128, "num_heads": 4, "ffn_dim": 512, "encoder_layers": 2, "decoder_layers": 2},
    "small": {"embed_dim": 256, "num_heads": 4, "ffn_dim": 1024, "encoder_layers": 3, "decoder_layers": 3},
    "base": {"embed_dim": 512, "num_heads": 8, "ffn_dim": 2048, "encoder_layers": 6, "decoder_layers": 6},
    "big": {
        "embed_dim": 1024, "num_heads": 16, "ffn_dim": 4096, "encoder_layers": 6, "decoder_layers": 6,
        "dropout": 0.3,
    },
}  # fmt: skip

AHEAD = 64  # steps whose positions are computed at once


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class TransformerConfig:
    """The sizes and choices of a Transformer.

    Args:
        vocabulary: of source and target together.
        embed_dim: D, the size of a token's state.
        num_heads: H, of every attention.
        ffn_dim: of the feed-forward networks.
        encoder_layers: of the encoder.
        decoder_layers: of the decoder.
        dropout: of each part's output and of the embedded tokens (section 5.4).
        norm: "post" as published, or "pre".
        activation: "relu" as published, "gelu" or "swish".
        positions: "sinusoidal" as published, "sinusoidal-halves" as in Marian, or "learned".
        max_length: positions that are learned, if they are.
        scale_embedding: whether embeddings are multiplied by the root of embed_dim (section 3.4).
        output_bias: whether a bias is added to the logits, as Marian does.
        attention: other values for its attention.

    Raises:
        ConfigError: a choice that is unknown.
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
    def of_size(size: str, vocabulary: Vocabulary, **changes: Any) -> "TransformerConfig":
        """A size by name.

        Args:
            size: "tiny", "small", "base" or "big".
            vocabulary: of source and target together.
            changes: other fields.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown size.
        """
        return TransformerConfig(vocabulary=vocabulary, **{**size_settings(size), **changes})


def size_settings(size: str) -> dict[str, Any]:
    """The fields of a size, "tiny", "small", "base" or "big".

    Raises:
        ConfigError: an unknown size.
    """
    if size not in SIZES:
        raise ConfigError(f"transformer has no size {size!r}; {nearest(size, SIZES)}")
    return SIZES[size]


@final
class Transformer(Seq2Seq):
    """The Transformer of encoder and decoder, with one embedding for source, target and output (section 3.4).

    Args:
        config: its sizes and choices.

    Raises:
        ConfigError: sizes that don't go together.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.

    >>> import regard as rg
    >>> model = rg.Transformer(rg.TransformerConfig.of_size("tiny", rg.Vocabulary(size=100)))
    >>> model(torch.tensor([[5, 6, 2]]), None, torch.tensor([[1, 7, 8, 9]])).logits.shape
    torch.Size([1, 4, 100])
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        size, choice = config.embed_dim, config.attention
        layer: dict[str, Any] = {"norm": config.norm, "activation": config.activation, "dropout": config.dropout}
        layer |= {name: x for name in ("score", "normalizer") if (x := getattr(choice, name)) is not None}
        pattern = Full() if choice.pattern is None else choice.pattern
        layer |= {"pattern": pattern, "position_bias": choice.position_bias}
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
        pre = config.norm == "pre"  # then nothing has normalized the last layer's sum
        self.encoder_norm = nn.LayerNorm(size) if pre else nn.Identity()
        self.decoder_norm = nn.LayerNorm(size) if pre else nn.Identity()
        self.output_bias = nn.Parameter(torch.zeros(config.vocabulary.size)) if config.output_bias else None
        nn.init.normal_(self.embedding.weight, std=size**-0.5)

    @property
    def longest(self) -> int | None:
        return self.config.max_length if self.config.positions == "learned" else None

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        memory = Memory(self._embed(inputs), self.source_lengths(inputs, lengths))
        choice = self.config.attention
        plain = choice.score is choice.pattern is choice.position_bias is None  # others may ask where a token stands
        return memory.through(self._encoded, memory.packing(self) if plain else None)

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        x, pattern = self._embed(targets), memory.pattern
        for layer in self.decoder:
            x = layer(x, memory.states, pattern)
        features: Tensor = self.decoder_norm(x)
        return features

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(self.embedding.weight, self.output_bias)

    def start(self, memory: Memory) -> DecoderState:
        return DecoderState(self.decoder, memory)

    def advance(self, tokens: Tensor, state: DecoderState) -> Tensor:
        x = self._scaled(state.places.inward(tokens))
        x = self.dropout(x + self._position(state, x))
        for step, past, memory in zip(state.steps, state.past, state.memory, strict=True):
            x = step(x, past, memory, state.pattern)
        state.length += 1
        features: Tensor = self.decoder_norm(state.places.outward(x))
        return features

    def _encoded(self, x: Tensor, pattern: Pattern) -> Tensor:
        """The encoder's states of embedded tokens, of which each sees those of the pattern."""
        for layer in self.encoder:
            x = layer(x, pattern)
        states: Tensor = self.encoder_norm(x)
        return states

    def _embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L) with their positions."""
        embedded: Tensor = self.dropout(self.positions(self._scaled(tokens), 0))
        return embedded

    def _scaled(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens."""
        x: Tensor = self.embedding(tokens)
        return x * math.sqrt(self.config.embed_dim) if self.config.scale_embedding else x

    def _position(self, state: DecoderState, x: Tensor) -> Tensor:
        """What is added to the tokens (B, K, D) of a step, (D,): found for many steps at once."""
        at = state.length % AHEAD
        if at == 0:
            count = AHEAD if self.longest is None else max(1, min(AHEAD, self.longest - state.length))
            state.positions = self.positions(x.new_zeros(1, count, x.shape[2]), state.length)[0]
        return state.positions[at]
