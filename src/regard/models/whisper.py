"""Whisper: a Transformer encoder-decoder from log-mel spectrograms to text.

Source: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", arXiv 2212.04356.

Layout: B sounds, F frames of M mel bands, S = F / 2 source positions, T target tokens, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.attention.check import show
from regard.attention.patterns.pattern import Full
from regard.attention.summary import Summary
from regard.attention.value import short_repr
from regard.errors import ConfigError, ShapeError, nearest
from regard.layers.decoder_stack import DecoderEnds
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear, linear
from regard.layers.output_projection import OutputProjection
from regard.layers.positions import LearnedPositions
from regard.layers.quantized_linear import readable_weight
from regard.layers.transformer_layer import ACTIVATIONS, DecoderLayer, EncoderLayer
from regard.models.check import check_fields
from regard.models.decoder_state import DecoderState
from regard.models.padding import check_lengths
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary
from regard.models.step_positions import StepPositions

MAX_WAVELENGTH = 10_000.0  # of the sinusoidal positions, over 2 pi
TAPS, STRIDE = 3, 2  # of the convolutions; the second one halves the frames
INITIAL = 0.02  # deviation of first weights, as published


def _size(embed_dim: int, num_heads: int, num_layers: int, **more: Any) -> dict[str, Any]:
    layers = {"encoder_layers": num_layers, "decoder_layers": num_layers}
    return {"embed_dim": embed_dim, "num_heads": num_heads, "ffn_dim": 4 * embed_dim, **layers, **more}


# Table 1 of the paper, and the sizes that its authors published later.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": _size(384, 6, 4),
    "base": _size(512, 8, 6),
    "small": _size(768, 12, 12),
    "medium": _size(1024, 16, 24),
    "large": _size(1280, 20, 32),
    "large-v3": _size(1280, 20, 32, num_mels=128),
    "large-v3-turbo": _size(1280, 20, 32, num_mels=128, decoder_layers=4),
}


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class WhisperConfig:
    """Configuration of a `Whisper`; the tiny one by default.

    Args:
        vocabulary: of the target.
        num_mels: M, bands of the spectrogram.
        embed_dim: D, size of hidden states.
        num_heads: H, of each attention.
        ffn_dim: hidden size of the feed-forward networks.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        source_length: number of source positions, of two frames each.
        max_length: number of learned target positions.
        dropout: of the outputs of all parts, and of the embeddings.
        attention_dropout: of the attention's weights.
        activation: of the feed-forward networks.

    Raises:
        ConfigError: an unknown value, or one that is out of range.
    """

    vocabulary: Vocabulary
    num_mels: int = 80
    embed_dim: int = 384
    num_heads: int = 6
    ffn_dim: int = 1536
    encoder_layers: int = 4
    decoder_layers: int = 4
    source_length: int = 1500
    max_length: int = 448
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: str = "gelu"

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.activation not in ACTIVATIONS:
            raise ConfigError(
                f"WhisperConfig: unknown activation {show(self.activation)}; {nearest(self.activation, ACTIVATIONS)}"
            )
        if self.embed_dim % 2:
            raise ConfigError(
                f"WhisperConfig: embed_dim={self.embed_dim} must be even: a sine and a cosine a wavelength"
            )

    @staticmethod
    def from_preset(name: str, vocabulary: Vocabulary, **changes: Any) -> "WhisperConfig":
        """Configuration of a published model by name.

        Args:
            name: "tiny", "base", "small", "medium", "large", "large-v3" or "large-v3-turbo".
            vocabulary: of the target.
            changes: fields that differ from it.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown name.
        """
        if name not in PRESETS:
            raise ConfigError(f"Whisper has no preset {name!r}; {nearest(name, PRESETS)}")
        return WhisperConfig(vocabulary=vocabulary, **{**PRESETS[name], **changes})


@final
class Whisper(Seq2Seq):
    """A Whisper encoder-decoder: two convolutions, a pre-norm Transformer, and an output tied to the embedding.

    Inputs are log-mel spectrograms (B, F, M). A sound that is shorter than the model's window is padded with silence,
    which the encoder attends to like any other sound: `lengths` masks nothing.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: sizes that don't go together.

    Source: Radford et al. 2022, arXiv 2212.04356, section 2.2.

    >>> import regard as rg
    >>> config = WhisperConfig(vocabulary=rg.Vocabulary(size=100), embed_dim=16, num_heads=2, ffn_dim=32)
    >>> model = Whisper(config).eval()
    >>> model(torch.zeros(2, 50, 80), None, torch.tensor([[1, 7, 8]]).expand(2, -1)).logits.shape
    torch.Size([2, 3, 100])
    """

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        size = config.embed_dim
        layer: dict[str, Any] = {
            "norm": "pre",
            "activation": config.activation,
            "dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "key_bias": False,
        }
        sizes = (size, config.num_heads, config.ffn_dim)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inputs, size, TAPS, stride, padding=1)
            for inputs, stride in ((config.num_mels, 1), (size, STRIDE))
        )
        # Constant, and stored in checkpoints, whose numbers may be rounded.
        self.register_buffer("source_positions", sinusoids(config.source_length, size))
        self.encoder = nn.ModuleList(EncoderLayer(*sizes, **layer) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(size)
        self.embedding = nn.Embedding(config.vocabulary.size, size)
        self.positions = LearnedPositions(config.max_length, size)
        self.decoder = nn.ModuleList(DecoderLayer(*sizes, **layer) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(size)
        self.dropout = Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, Linear):
                module.splits = False  # states of trained models have outliers
            if isinstance(module, nn.Linear | nn.Embedding | nn.Conv1d):
                nn.init.normal_(module.weight, std=INITIAL)

    @property
    def max_length(self) -> int | None:
        return self.config.max_length

    def check_inputs(self, inputs: Tensor, lengths: Tensor | None) -> None:
        """Raise ShapeError unless these are spectrograms (B, F, M) that fit into the window, and lengths or None."""
        config = self.config
        full = STRIDE * config.source_length
        fits = isinstance(inputs, Tensor) and inputs.dim() == 3 and inputs.is_floating_point()
        if not (fits and inputs.shape[2] == config.num_mels and 1 <= inputs.shape[1] <= full):
            raise ShapeError(
                f"Whisper: inputs is {show(inputs)}; expected log-mel spectrograms, floats of shape (batch, frames, "
                f"{config.num_mels}) with 1 to {full} frames"
            )
        check_lengths(inputs, lengths)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        x = inputs
        for convolution in self.convolutions:
            x = functional.gelu(_convolve(x, convolution))
        x = self.dropout(x + self.source_positions[: x.shape[1]].to(x.dtype))
        for layer in self.encoder:
            x = layer(x, Full())
        states = self.encoder_norm(x)
        return Memory(states, self.source_lengths(states, None))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        x = self.dropout(self.positions(self.embedding(targets), 0))
        for layer in self.decoder:
            x = layer(x, memory.states, Full())
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(readable_weight(self.embedding))

    def start(self, memory: Memory) -> DecoderState:
        ends = DecoderEnds(self.embedding, 1.0, self.dropout, self.decoder_norm, self.projection)
        return DecoderState(
            self.decoder, memory, ends, StepPositions(self.positions, self.config.embed_dim, self.max_length)
        )

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        return state.logits(tokens)

    def advance(self, tokens: Tensor, state: DecoderState) -> Tensor:
        return state.hidden(tokens)

    def extend(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Append several tokens to each sequence at once, such as a prompt, before hypotheses part.

        Args:
            tokens: (B, T), of the B sequences of the state with one hypothesis each.
            state: which is updated.

        Returns:
            The hidden states (B, T, D).
        """
        x = self.positions(self.embedding(tokens), state.length)
        for layer, past, memory in zip(self.decoder, state.past, state.memory, strict=True):
            x = layer.extend(x, past, memory, state.pattern)
        state.length += tokens.shape[1]
        hidden: Tensor = self.decoder_norm(x)
        return hidden

    def align(self, targets: Tensor, memory: Memory, heads: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Decoder hidden states of whole targets, and the cross-attention weights of some heads.

        Args:
            targets: token ids (B, T).
            memory: the encoder's output.
            heads: layers and heads.

        Returns:
            Hidden states (B, T, D), and attention weights (B, heads, T, S).
        """
        x, weights = self.positions(self.embedding(targets), 0), {}
        for number, layer in enumerate(self.decoder):
            summary = Summary(weights=True) if any(number == one for one, _ in heads) else None
            x, summary_result = layer.summarized(x, memory.states, summary)
            weights[number] = None if summary_result is None else summary_result.weights
        chosen = [weights[layer][:, head] for layer, head in heads]
        return self.decoder_norm(x), torch.stack(chosen, 1)


def sinusoids(length: int, size: int) -> Tensor:
    """Sinusoidal position embeddings, sines first.

    Args:
        length: number of positions.
        size: D, features, half of them sines and half cosines of wavelengths from 2 pi to 2 pi 10,000.

    Returns:
        (length, D).
    """
    steps = torch.arange(size // 2) / max(size // 2 - 1, 1)
    angles = torch.arange(length)[:, None] * MAX_WAVELENGTH**-steps
    return torch.cat([angles.sin(), angles.cos()], 1)


def _convolve(x: Tensor, convolution: nn.Conv1d) -> Tensor:
    """A convolution over frames (B, F, C) as one matrix product, in which no row depends on the batch beside it."""
    framed = functional.pad(x, (0, 0, 1, 1)).unfold(1, TAPS, convolution.stride[0]).transpose(2, 3)
    weight = convolution.weight.transpose(1, 2).flatten(1)
    return linear(framed.flatten(2), weight, convolution.bias, splits=False)
