"""A Transformer that writes a text about a picture, such as a caption or the line of text in it.

Sources: Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762, sections 3.1 to 3.4, on the features of a
convolutional network, as in Cornia et al. 2020, "Meshed-Memory Transformer for Image Captioning", arXiv 1912.08226,
without its memory.

Layout: B pictures, S = h w grid cells, T target tokens, D features, H heads.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from regard.attention.patterns.pattern import Full
from regard.attention.summary import Summary
from regard.attention.value import short_repr
from regard.layers.decoder_stack import DecoderEnds
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.output_projection import OutputProjection
from regard.layers.positions import LearnedPositions
from regard.layers.quantized_linear import readable_weight
from regard.layers.transformer_layer import DecoderLayer, EncoderLayer
from regard.models.decoder_state import DecoderState
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary
from regard.models.show_attend_tell import GridConfig, check_pictures, features_of, residual_network
from regard.models.step_positions import StepPositions

INITIAL = 0.02  # deviation of first embeddings and positions


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class PictureTransformerConfig(GridConfig):
    """Configuration of a `PictureTransformer`.

    Args:
        vocabulary: of the texts.
        image_size: height of the pictures in pixels, a multiple of 4: the grid has a cell for each 4 x 4 of them.
        image_width: width, a multiple of 4; None for square pictures.
        channels: features of the first of three stages of the convolutional network; each further one doubles them.
        embed_dim: D, size of hidden states.
        num_heads: H, of each attention.
        ffn_dim: hidden size of the feed-forward networks.
        encoder_layers: number of encoder layers on the grid.
        decoder_layers: number of decoder layers.
        max_length: number of learned target positions.
        dropout: of the outputs of all parts, and of the embeddings.

    Raises:
        ConfigError: a value that is out of range.
    """

    vocabulary: Vocabulary
    image_size: int = 64
    image_width: int | None = None
    channels: int = 32
    embed_dim: int = 128
    num_heads: int = 4
    ffn_dim: int = 512
    encoder_layers: int = 2
    decoder_layers: int = 2
    max_length: int = 128
    dropout: float = 0.1

    __repr__ = short_repr


@final
class PictureTransformer(Seq2Seq):
    """A residual convolutional network, a pre-norm Transformer on its grid, and an output tied to the embedding.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: sizes that don't go together.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3; the grid's positions are learned.

    >>> config = PictureTransformerConfig(vocabulary=Vocabulary(size=50), image_size=8, image_width=32, channels=4)
    >>> PictureTransformer(config)(torch.zeros(1, 3, 8, 32), None, torch.tensor([[1, 7, 8]])).logits.shape
    torch.Size([1, 3, 50])
    """

    def __init__(self, config: PictureTransformerConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        size = config.embed_dim
        sizes = (size, config.num_heads, config.ffn_dim)
        layers: dict[str, Any] = {"norm": "pre", "dropout": config.dropout}
        self.stem, self.blocks = residual_network(config.channels)
        self.norm = nn.LayerNorm(features_of(config.channels))
        self.feature_proj = Linear(features_of(config.channels), size)
        self.places = nn.Parameter(INITIAL * torch.randn(math.prod(config.grid), size))
        self.encoder = nn.ModuleList(EncoderLayer(*sizes, **layers) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(size)
        self.embedding = nn.Embedding(config.vocabulary.size, size)
        self.positions = LearnedPositions(config.max_length, size)
        self.decoder = nn.ModuleList(DecoderLayer(*sizes, **layers) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(size)
        self.dropout = Dropout(config.dropout)
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=INITIAL)

    @property
    def max_length(self) -> int | None:
        return self.config.max_length

    def check_inputs(self, inputs: Tensor, lengths: Tensor | None) -> None:
        """Raise ShapeError unless these are pictures (B, 3, H, W) of the configured size, and lengths None."""
        check_pictures("PictureTransformer", inputs, lengths, self.config.sides)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        features = self.blocks(self.stem(inputs)).flatten(2).transpose(1, 2)  # (B, S, F)
        x = self.dropout(self.feature_proj(torch.relu(self.norm(features))) + self.places)
        for layer in self.encoder:
            x = layer(x, Full())
        states = self.encoder_norm(x)
        return Memory(states, self.source_lengths(states, None))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        x = self._embed(targets)
        for layer in self.decoder:
            x = layer(x, memory.states, Full())
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    def attention_weights(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Weights (B, H, T, S) of the cells for the token after each target token, of the last layer.

        Args:
            inputs: pictures, as for `forward`.
            targets: token ids (B, T).
        """
        memory, x = self.encode(inputs), self._embed(targets)
        for layer in self.decoder[:-1]:
            x = layer(x, memory.states, Full())
        _, seen = self.decoder[-1].summarized(x, memory.states, Summary(weights=True))
        weights: Tensor = seen.weights
        return weights

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(readable_weight(self.embedding))

    def start(self, memory: Memory) -> DecoderState:
        ends = DecoderEnds(self.embedding, 1.0, self.dropout, self.decoder_norm, self.projection)
        positions = StepPositions(self.positions, self.config.embed_dim, self.max_length)
        return DecoderState(self.decoder, memory, ends, positions)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        return state.logits(tokens)

    def advance(self, tokens: Tensor, state: DecoderState) -> Tensor:
        return state.hidden(tokens)

    def _embed(self, targets: Tensor) -> Tensor:
        x: Tensor = self.dropout(self.positions(self.embedding(targets), 0))
        return x
