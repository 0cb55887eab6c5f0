"""The convolutional translator: windows of positions instead of recurrences, and attention in every decoder layer.

Source: Gehring et al. 2017, "Convolutional Sequence to Sequence Learning", arXiv 1705.03122.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.attention.patterns.pattern import Pattern
from regard.attention.score import Dot
from regard.attention.value import short_repr
from regard.errors import ConfigError
from regard.layers.attention_config import AttentionConfig
from regard.layers.convolution import HALF, GatedConvolution, WeightNormLinear
from regard.layers.cross_attention import CrossAttention
from regard.layers.dropout import Dropout
from regard.layers.embeddings import Embeddings
from regard.layers.output_projection import OutputProjection
from regard.layers.positions import LearnedPositions
from regard.models.check import check_fields
from regard.models.hypotheses import Hypotheses
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class ConvS2SConfig:
    """The sizes and choices of the convolutional model.

    Args:
        vocabulary: of source and target together.
        embed_dim: of the tokens' vectors, which attention works in; 512 in the source.
        hidden_dim: D, of the convolutions' inputs and outputs; 512 in the source.
        encoder_layers: of the encoder; 20 in the source's largest model.
        decoder_layers: of the decoder, each with an attention.
        kernel: positions in a window; odd, so that the encoder's has a middle.
        max_length: positions that have a vector: the longest source or target. A longer one is a ShapeError.
        dropout: of the embedded tokens, of each convolution's input and of the output.
        share_embeddings: whether source and target tokens have the same vectors.
        tie_output: whether the output's vectors are those of the target tokens.
        attention: other values for its attention.

    Raises:
        ConfigError: a field that is out of range, or an even kernel.
    """

    vocabulary: Vocabulary
    embed_dim: int = 256
    hidden_dim: int = 256
    encoder_layers: int = 4
    decoder_layers: int = 3
    kernel: int = 3
    max_length: int = 1024
    dropout: float = 0.1
    share_embeddings: bool = True
    tie_output: bool = True
    attention: AttentionConfig = AttentionConfig()

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kernel % 2 == 0:
            raise ConfigError(f"ConvS2SConfig: kernel={self.kernel} must be odd, so that a window has a middle")


@final
class DecoderLayer(nn.Module):
    """A gated convolution over the positions up to each one, then attention.

    With h the convolution's result, x its input, g the target's embedding, z the encoder's output and e the source's
    embedding, per target position i and source position j of S:
        d_i = W h_i + b + g_i,  weights = softmax_j(d_i . z_j)
        c_i = S sqrt(1 / S) sum_j weights_ij (z_j + e_j)
        output_i = (h_i + W' c_i) + x_i
    where every sum of two terms, but for bias and mixture, is times sqrt(0.5).

    Args:
        config: of the model.
    """

    def __init__(self, config: ConvS2SConfig) -> None:
        super().__init__()
        embed, hidden = config.embed_dim, config.hidden_dim
        self.convolution = GatedConvolution(hidden, config.kernel, keep=1 - config.dropout)
        self.query_proj = WeightNormLinear(hidden, embed)
        self.cross_attention = CrossAttention.chosen(embed, embed, config.attention, score=Dot(scale=1.0))
        self.context_proj = WeightNormLinear(embed, hidden)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, before: Tensor, embedded: Tensor, key: Tensor, memory: Memory, pattern: Pattern, start: int
    ) -> Tensor:
        """The layer's outputs.

        Args:
            before: the inputs after kernel - 1 earlier ones, (B, K, kernel - 1 + L, hidden_dim).
            embedded: g, (B, K, L, embed_dim).
            key: the encoder's outputs, projected for this layer, (B, S, E).
            memory: of the sources: states z + e.
            pattern: which source positions are not padding.
            start: position of the first input.

        Returns:
            (B, K, L, hidden_dim).
        """
        x = before[:, :, self.convolution.kernel - 1 :]
        h = self.convolution(self.dropout(before))
        query = (self.query_proj(h) + embedded) * HALF
        context = self.cross_attention(query, key, memory.states, pattern=pattern, query_start=start)
        many = memory.lengths.clamp(min=1)[:, None, None, None].to(context.dtype).sqrt()  # S sqrt(1 / S)
        h = (h + self.context_proj(context * many)) * HALF
        output: Tensor = (h + x) * HALF
        return output


@final
class ConvS2S(Seq2Seq):
    """Gated convolutions over embedded tokens with learned positions; see `DecoderLayer` for what is read where.

    The source's normalization strategy is followed but for one point: the encoder's gradients are not divided by the
    number of attentions, which an optimizer of Adam's kind would undo.

    Args:
        config: its sizes and choices.

    Raises:
        ConfigError: an attention that is made of values of the wrong kind.

    Source: Gehring et al. 2017, arXiv 1705.03122, section 3; factors at sums as in the authors' code, fairseq's
    `fconv.py`, where the text leaves them open.

    >>> model = ConvS2S(ConvS2SConfig(vocabulary=Vocabulary(size=100), embed_dim=16, hidden_dim=16))
    >>> model(torch.tensor([[5, 6, 2]]), None, torch.tensor([[1, 7, 8, 9]])).logits.shape
    torch.Size([1, 4, 100])
    """

    def __init__(self, config: ConvS2SConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        embed, hidden, keep = config.embed_dim, config.hidden_dim, 1 - config.dropout
        self.embeddings = Embeddings(
            config.vocabulary.size, embed, shared=config.share_embeddings, tied=config.tie_output
        )
        self.source_positions = LearnedPositions(config.max_length, embed)
        self.target_positions = LearnedPositions(config.max_length, embed)
        self.encoder_in = WeightNormLinear(embed, hidden)
        self.encoder = nn.ModuleList(
            GatedConvolution(hidden, config.kernel, keep=keep) for _ in range(config.encoder_layers)
        )
        self.encoder_out = WeightNormLinear(hidden, embed)
        self.decoder_in = WeightNormLinear(embed, hidden)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.decoder_out = WeightNormLinear(hidden, embed)
        self.dropout = Dropout(config.dropout)
        for positions in (self.source_positions, self.target_positions):
            nn.init.normal_(positions.weight, std=0.1)

    @property
    def longest(self) -> int | None:
        return self.config.max_length

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        present = (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None])[..., None]
        embedded = self.dropout(self.source_positions(self.embeddings.source(inputs)))
        x, aside = self.encoder_in(embedded), self.config.kernel // 2
        for convolution in self.encoder:
            seen = functional.pad(torch.where(present, x, 0), (0, 0, aside, aside))
            x = (convolution(self.dropout(seen)) + x) * HALF
        z = self.encoder_out(x)
        keys = tuple(layer.cross_attention.project_key(z) for layer in self.decoder)
        return Memory((z + embedded) * HALF, lengths, keys)

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        embedded = self._embed(targets[:, None], 0)
        x, pattern = self.decoder_in(embedded), memory.pattern
        for layer, key in zip(self.decoder, memory.extra, strict=True):
            before = functional.pad(x, (0, 0, self.config.kernel - 1, 0))
            x = layer(before, embedded, key, memory, pattern, 0)
        return self._features(x)[:, 0]

    @property
    def projection(self) -> OutputProjection:
        return self.embeddings.projection

    def start(self, memory: Memory) -> Hypotheses:
        nothing = memory.states.new_zeros(len(memory.lengths), self.config.kernel - 1, self.config.hidden_dim)
        return Hypotheses(memory, *[nothing] * self.config.decoder_layers)

    def advance(self, tokens: Tensor, state: Hypotheses) -> Tensor:
        embedded = self._embed(tokens[:, :, None], state.position)
        x, memory, pattern, kept = self.decoder_in(embedded), state.memory, state.memory.pattern, []
        for layer, key, earlier in zip(self.decoder, memory.extra, state.tensors, strict=True):
            before = torch.cat([earlier, x], 2)
            kept.append(before[:, :, 1:])
            x = layer(before, embedded, key, memory, pattern, state.position)
        state.moved(*kept)
        return self._features(x)[:, :, 0]

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        """Target tokens (B, K, L) with their positions: (B, K, L, D)."""
        placed = self.target_positions(self.embeddings.target(tokens).flatten(0, 1), start)
        embedded: Tensor = self.dropout(placed).unflatten(0, tokens.shape[:2])
        return embedded

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.dropout(self.decoder_out(x))
        return features
