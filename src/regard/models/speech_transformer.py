"""Speech-Transformer: convolutions over a spectrogram and a Transformer encoder-decoder, with a CTC head.

Source: Dong et al. 2018, "Speech-Transformer: A No-Recurrence Sequence-to-Sequence Model for Speech Recognition",
ICASSP.

Layout: B utterances, F frames of M mel bands, S = F / 4 source positions, T target tokens, D features.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from regard.attention.patterns.pattern import Pattern
from regard.attention.value import short_repr
from regard.errors import ConfigError, nearest
from regard.layers.decoder_stack import DecoderEnds
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.output_projection import OutputProjection
from regard.layers.positions import SinusoidalPositions
from regard.layers.quantized_linear import readable_weight
from regard.layers.transformer_layer import ACTIVATIONS, DecoderLayer, EncoderLayer, Norm
from regard.models.check import check_fields
from regard.models.decoder_state import DecoderState
from regard.models.joint_ctc import SpeechOutput, check_ctc_weight, check_spectrograms, halved, without_padding
from regard.models.padding import check_tokens
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary
from regard.models.step_positions import StepPositions

CONVOLUTIONS = 2  # of 3 x 3, each of which halves frames and mel bands
REDUCTION = 2**CONVOLUTIONS  # frames of a source position


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class SpeechTransformerConfig:
    """Configuration of a `SpeechTransformer`.

    Args:
        vocabulary: of the target.
        num_mels: M, bands of the spectrogram.
        channels: features of the convolutions; 64 in the paper.
        embed_dim: D, size of hidden states; 256 in the paper's smaller models.
        num_heads: H, number of attention heads.
        ffn_dim: hidden size of the feed-forward networks.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        dropout: dropout of sublayer outputs and of embeddings.
        norm: position of layer norms, "pre" or "post".
        activation: of the feed-forward networks.
        ctc_weight: weight of the CTC loss beside the decoder's; 0 for no CTC.

    Raises:
        ConfigError: an unknown value, or one that is out of range.
    """

    vocabulary: Vocabulary
    num_mels: int = 80
    channels: int = 32
    embed_dim: int = 256
    num_heads: int = 4
    ffn_dim: int = 1024
    encoder_layers: int = 6
    decoder_layers: int = 3
    dropout: float = 0.1
    norm: Norm = "pre"
    activation: str = "relu"
    ctc_weight: float = 0.3

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        check_ctc_weight("SpeechTransformerConfig", self.ctc_weight)
        if self.activation not in ACTIVATIONS:
            raise ConfigError(
                f"SpeechTransformerConfig: unknown activation {self.activation!r}; "
                f"{nearest(self.activation, ACTIVATIONS)}"
            )

    @property
    def reduction(self) -> int:
        """Frames of a source position."""
        return REDUCTION


@final
class SpeechTransformer(Seq2Seq):
    """Two convolutions over time and frequency, a Transformer encoder-decoder, and a CTC head on the encoder.

    Inputs are log-mel spectrograms (B, F, M); `lengths` are numbers of frames.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: inconsistent sizes.

    Source: Dong et al. 2018, section 3, without its two-dimensional attention; CTC: Kim et al. 2016, arXiv 1609.06773.

    >>> config = SpeechTransformerConfig(vocabulary=Vocabulary(size=30), embed_dim=16, num_heads=2, ffn_dim=32)
    >>> model = SpeechTransformer(config).eval()
    >>> model(torch.zeros(2, 50, 80), torch.tensor([50, 20]), torch.tensor([[1, 7, 8]]).expand(2, -1)).logits.shape
    torch.Size([2, 3, 30])
    """

    def __init__(self, config: SpeechTransformerConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        size = config.embed_dim
        layer: dict[str, Any] = {"norm": config.norm, "activation": config.activation, "dropout": config.dropout}
        sizes = (size, config.num_heads, config.ffn_dim)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, config.channels, 3, 2, padding=1) for inputs in (1, config.channels)
        )
        bands = config.num_mels
        for _ in self.convolutions:
            bands = (bands + 1) // 2
        self.input_proj = Linear(config.channels * bands, size)
        self.embedding = nn.Embedding(config.vocabulary.size, size)
        self.positions = SinusoidalPositions(size)
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes, **layer) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes, **layer) for _ in range(config.decoder_layers))
        pre_norm = config.norm == "pre"  # the last layer's output is not normalized yet
        self.encoder_norm = nn.LayerNorm(size) if pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(size) if pre_norm else nn.Identity()
        self.ctc_proj = Linear(size, config.vocabulary.size) if config.ctc_weight else None
        nn.init.normal_(self.embedding.weight, std=size**-0.5)

    def check_inputs(self, inputs: Tensor, lengths: Tensor | None) -> None:
        """Raise ShapeError unless these are spectrograms (B, F, M), and lengths (B,) or None."""
        check_spectrograms("SpeechTransformer", inputs, lengths, self.config.num_mels)

    def forward(self, inputs: Tensor, lengths: Tensor | None, targets: Tensor) -> SpeechOutput:  # type: ignore[override]
        self.check_inputs(inputs, lengths)
        check_tokens("targets", targets, rows=len(inputs))
        memory = self.encode(inputs, lengths)
        hidden = self.decode(targets, memory)
        projection = self.projection.as_called()
        return SpeechOutput(hidden, projection, memory, self.ctc, self.config.ctc_weight, self.vocabulary)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        x = inputs[..., None]  # (B, F, M, channels)
        for convolution in self.convolutions:
            x = without_padding(x, lengths).permute(0, 3, 1, 2)
            x = torch.relu(convolution(x)).permute(0, 2, 3, 1)
            lengths = halved(lengths)
        x = without_padding(self.input_proj(x.flatten(2)), lengths)
        x = self.dropout(self.positions(x * math.sqrt(self.config.embed_dim), 0))
        memory = Memory(x, lengths)
        encoded = memory.apply(self._encode_layers, memory.packing(self))
        return encoded._replace(states=without_padding(encoded.states, lengths))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        x, pattern = self.dropout(self.positions(self._embed(targets), 0)), memory.pattern
        for layer in self.decoder:
            x = layer(x, memory.states, pattern)
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(readable_weight(self.embedding))

    @property
    def ctc(self) -> OutputProjection | None:
        """The projection from encoder states to logits of CTC; None without it."""
        head = self.ctc_proj
        return None if head is None else OutputProjection(readable_weight(head), head.bias).as_called()

    def start(self, memory: Memory) -> DecoderState:
        factor = math.sqrt(self.config.embed_dim)
        ends = DecoderEnds(self.embedding, factor, self.dropout, self.decoder_norm, self.projection)
        return DecoderState(self.decoder, memory, ends, StepPositions(self.positions, self.config.embed_dim, None))

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        return state.logits(tokens)

    def advance(self, tokens: Tensor, state: DecoderState) -> Tensor:
        return state.hidden(tokens)

    def _encode_layers(self, x: Tensor, pattern: Pattern) -> Tensor:
        for layer in self.encoder:
            x = layer(x, pattern)
        states: Tensor = self.encoder_norm(x)
        return states

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(tokens) * math.sqrt(self.config.embed_dim)
        return embedded
