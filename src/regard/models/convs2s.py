"""ConvS2S: a convolutional encoder-decoder with attention in every decoder layer.

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
from regard.models.hypothesis_state import HypothesisState
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class ConvS2SConfig:
    """Configuration of a `ConvS2S`.

    Args:
        vocabulary: joint vocabulary of source and target.
        embed_dim: size of token embeddings, queries and keys; 512 in the paper.
        hidden_dim: D, channels of the convolutions; 512 in the paper.
        encoder_layers: number of encoder layers; 20 in the paper's largest model.
        decoder_layers: number of decoder layers, each with attention.
        kernel: width of the convolutions; odd, since the encoder's are centered.
        max_length: number of position embeddings: the maximum length of a source or target.
        dropout: dropout of embeddings, of convolution inputs and of the output.
        share_embeddings: whether source and target share token embeddings.
        tie_output: whether the output projection shares the target embeddings.
        attention: score, normalizer and other values that replace the default attention's.

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
            raise ConfigError(f"ConvS2SConfig: kernel={self.kernel} must be odd, since convolutions are centered")


@final
class DecoderLayer(nn.Module):
    """A causal gated convolution, then attention to the source.

    With h the convolution's output, x its input, g the target embedding, z the encoder's output and e the source
    embedding, for target position i and source position j of S:
        d_i = W h_i + b + g_i,  weights = softmax_j(d_i . z_j)
        c_i = S sqrt(1 / S) sum_j weights_ij (z_j + e_j)
        output_i = (h_i + W' c_i) + x_i
    where each sum of two terms, except those with b and in c_i, is multiplied by sqrt(0.5).

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
        self, padded: Tensor, embedded: Tensor, key: Tensor, memory: Memory, pattern: Pattern, start: int
    ) -> Tensor:
        """Apply the layer.

        Args:
            padded: inputs with the kernel - 1 inputs before them, (B, K, kernel - 1 + L, hidden_dim).
            embedded: g, (B, K, L, embed_dim).
            key: the encoder's outputs z, projected to keys of this layer, (B, S, E).
            memory: of the sources, with states z + e.
            pattern: hides the padding of sources.
            start: position of the first input.

        Returns:
            (B, K, L, hidden_dim).
        """
        x = padded[:, :, self.convolution.kernel - 1 :]
        h = self.convolution(self.dropout(padded))
        query = (self.query_proj(h) + embedded) * HALF
        context = self.cross_attention(query, key, memory.states, pattern=pattern, query_start=start)
        scale = memory.lengths.clamp(min=1)[:, None, None, None].to(context.dtype).sqrt()  # S sqrt(1 / S)
        h = (h + self.context_proj(context * scale)) * HALF
        output: Tensor = (h + x) * HALF
        return output


@final
class ConvS2S(Seq2Seq):
    """A convolutional encoder-decoder: gated convolutions over token and position embeddings; see `DecoderLayer`.

    Normalization follows the paper, except that the encoder's gradients are not divided by the number of attention
    layers, which optimizers like Adam would undo.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: an `attention` with values of the wrong type.

    Source: Gehring et al. 2017, arXiv 1705.03122, section 3; scale factors that the paper leaves open are those of the
    authors' code, `fconv.py` of fairseq.

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
    def max_length(self) -> int | None:
        return self.config.max_length

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        mask = (torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None])[..., None]
        embedded = self.dropout(self.source_positions(self.embeddings.source(inputs)))
        x, padding = self.encoder_in(embedded), self.config.kernel // 2
        for convolution in self.encoder:
            padded = functional.pad(torch.where(mask, x, 0), (0, 0, padding, padding))
            x = (convolution(self.dropout(padded)) + x) * HALF
        z = self.encoder_out(x)
        keys = tuple(layer.cross_attention.project_key(z) for layer in self.decoder)
        return Memory((z + embedded) * HALF, lengths, keys)

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        embedded = self._embed(targets[:, None], 0)
        x, pattern = self.decoder_in(embedded), memory.pattern
        for layer, key in zip(self.decoder, memory.extra, strict=True):
            padded = functional.pad(x, (0, 0, self.config.kernel - 1, 0))
            x = layer(padded, embedded, key, memory, pattern, 0)
        return self._hidden(x)[:, 0]

    @property
    def projection(self) -> OutputProjection:
        return self.embeddings.projection

    def start(self, memory: Memory) -> HypothesisState:
        zeros = memory.states.new_zeros(len(memory.lengths), self.config.kernel - 1, self.config.hidden_dim)
        return HypothesisState(memory, *[zeros] * self.config.decoder_layers)

    def advance(self, tokens: Tensor, state: HypothesisState) -> Tensor:
        embedded = self._embed(tokens[:, :, None], state.position)
        x, memory, pattern = self.decoder_in(embedded), state.memory, state.memory.pattern
        inputs = []  # of each layer, the last kernel - 1
        for layer, key, previous in zip(self.decoder, memory.extra, state.tensors, strict=True):
            padded = torch.cat([previous, x], 2)
            inputs.append(padded[:, :, 1:])
            x = layer(padded, embedded, key, memory, pattern, state.position)
        state.advance(*inputs)
        return self._hidden(x)[:, :, 0]

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        """Token and position embeddings (B, K, L, D) of target tokens (B, K, L), the first at position `start`."""
        summed = self.target_positions(self.embeddings.target(tokens).flatten(0, 1), start)
        embedded: Tensor = self.dropout(summed).unflatten(0, tokens.shape[:2])
        return embedded

    def _hidden(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.dropout(self.decoder_out(x))
        return hidden
