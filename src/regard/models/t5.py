"""T5: a pre-norm encoder-decoder Transformer with relative position biases, shared by the layers of a stack.

Source: Raffel et al. 2019, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
arXiv 1910.10683, section 2.1; v1.1, with gated feed-forward and untied output: Shazeer 2020, arXiv 2002.05202.
"""

from dataclasses import dataclass
from typing import Any, Literal, final

from torch import Tensor, nn

from regard.attention.bias import Bias
from regard.attention.patterns.pattern import Pattern
from regard.attention.score import Dot
from regard.attention.value import short_repr
from regard.errors import ConfigError, nearest
from regard.layers.attention_settings import LearnedValue
from regard.layers.dropout import Dropout
from regard.layers.learned import LearnedRelativeBias
from regard.layers.linear import Linear
from regard.layers.output_projection import OutputProjection
from regard.layers.quantized_linear import readable_weight
from regard.layers.transformer_layer import DecoderLayer, EncoderLayer, FeedForward, GatedFeedForward
from regard.models.check import check_fields
from regard.models.decoder_state import DecoderState
from regard.models.seq2seq import Memory, Seq2Seq, Vocabulary


def _size(embed_dim: int, num_heads: int, ffn_dim: int, num_layers: int, **more: Any) -> dict[str, Any]:
    sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "ffn_dim": ffn_dim}
    return {**sizes, "encoder_layers": num_layers, "decoder_layers": num_layers, **more}


V1_1: dict[str, Any] = {"activation": "gelu-tanh", "network": "gated", "tie_output": False, "scale_output": False}
# v1.0: section 3.7 of the paper; v1.1: published by its authors with the checkpoints.
PRESETS: dict[str, dict[str, Any]] = {
    "small": _size(512, 8, 2048, 6),
    "base": _size(768, 12, 3072, 12),
    "large": _size(1024, 16, 4096, 24),
    "3b": _size(1024, 32, 16384, 24, head_dim=128),
    "11b": _size(1024, 128, 65536, 24, head_dim=128),
    "v1.1-small": _size(512, 6, 1024, 8, **V1_1),
    "v1.1-base": _size(768, 12, 2048, 12, **V1_1),
    "v1.1-large": _size(1024, 16, 2816, 24, **V1_1),
    "v1.1-xl": _size(2048, 32, 5120, 24, **V1_1),
    "v1.1-xxl": _size(4096, 64, 10240, 24, **V1_1),
}


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class T5Config:
    """Configuration of a `T5`; T5 v1.0 small by default.

    Args:
        vocabulary: joint vocabulary of source and target. Published models start targets with padding: bos = pad.
        embed_dim: D, size of hidden states.
        num_heads: H, number of attention heads.
        head_dim: E, size of a head, independent of D and H.
        ffn_dim: hidden size of the feed-forward networks.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        dropout: dropout of embeddings, in and after sublayers, and of the last hidden states.
        network: feed-forward networks: "plain", as in v1.0, or "gated", as in v1.1.
        activation: activation of the feed-forward networks, or of their gates.
        num_buckets: number of buckets of relative positions.
        max_distance: relative positions from this distance on share the last bucket.
        norm_eps: epsilon of RMS norms.
        tie_output: whether the output projection shares the token embeddings.
        scale_output: whether hidden states are divided by sqrt(D) before the output projection, as in v1.0.

    Raises:
        ConfigError: a field that is out of range.
    """

    vocabulary: Vocabulary
    embed_dim: int = 512
    num_heads: int = 8
    head_dim: int = 64
    ffn_dim: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    network: Literal["plain", "gated"] = "plain"
    activation: str = "relu"
    num_buckets: int = 32
    max_distance: int = 128
    norm_eps: float = 1e-6
    tie_output: bool = True
    scale_output: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    def from_preset(name: str, vocabulary: Vocabulary, **changes: Any) -> "T5Config":
        """Configuration of a published model by name.

        Args:
            name: "small", "base", "large", "3b" or "11b"; of v1.1 "v1.1-small", "v1.1-base", "v1.1-large", "v1.1-xl"
                or "v1.1-xxl".
            vocabulary: joint vocabulary of source and target; published checkpoints have 32,128 embeddings.
            changes: fields that differ from it.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown name.
        """
        if name not in PRESETS:
            raise ConfigError(f"T5 has no preset {name!r}; {nearest(name, PRESETS)}")
        return T5Config(vocabulary=vocabulary, **{**PRESETS[name], **changes})


@final
class T5(Seq2Seq):
    """A T5 encoder-decoder: linear maps without bias, unscaled dot-product scores, RMS norms.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: inconsistent sizes.

    Source: Raffel et al. 2019, arXiv 1910.10683, section 2.1.

    >>> import regard as rg
    >>> sizes = {"embed_dim": 16, "num_heads": 2, "head_dim": 4, "ffn_dim": 24, "encoder_layers": 2}
    >>> model = rg.T5(rg.T5Config(vocabulary=rg.Vocabulary(size=100, pad=0, bos=0, eos=1), decoder_layers=1, **sizes))
    >>> model(torch.tensor([[5, 6, 1]]), None, torch.tensor([[0, 7, 8, 9]])).logits.shape
    torch.Size([1, 4, 100])
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        self.embedding = nn.Embedding(config.vocabulary.size, config.embed_dim)
        self.encoder = nn.ModuleList(EncoderLayer(**self._layer()) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(**self._layer()) for _ in range(config.decoder_layers))
        self.encoder_bias, self.decoder_bias = (
            LearnedValue(
                LearnedRelativeBias(config.num_buckets, bidirectional, config.max_distance),
                config.num_heads,
                config.head_dim,
            )
            for bidirectional in (True, False)
        )
        self.encoder_norm, self.decoder_norm = self._norm(), self._norm()
        self.dropout = Dropout(config.dropout)
        self.output = None if config.tie_output else Linear(config.embed_dim, config.vocabulary.size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights as the authors' code does: linear maps and unscaled scores keep the variance."""
        config = self.config
        nn.init.normal_(self.embedding.weight)
        for name, parameter in self.named_parameters():
            if parameter.dim() != 2 or name == "embedding.weight":
                continue
            fan_in = config.embed_dim if name.endswith(".table") else parameter.shape[1]
            scale = config.head_dim if name.endswith("query_proj.weight") else 1
            nn.init.normal_(parameter, std=(fan_in * scale) ** -0.5)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        memory = Memory(self.dropout(self.embedding(inputs)), self.source_lengths(inputs, lengths))
        return memory.apply(self._encode_layers, memory.packing(self))

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        x, pattern, bias = self.dropout(self.embedding(targets)), memory.pattern, self._bias(self.decoder_bias)
        for layer in self.decoder:
            x = layer(x, memory.states, pattern, bias)
        hidden: Tensor = self.dropout(self.decoder_norm(x))
        return hidden

    @property
    def projection(self) -> OutputProjection:
        weight = readable_weight(self.embedding if self.output is None else self.output)
        return OutputProjection(weight, scale=self.config.embed_dim**-0.5 if self.config.scale_output else 1.0)

    def start(self, memory: Memory) -> DecoderState:
        return DecoderState(self.decoder, memory)

    def advance(self, tokens: Tensor, state: DecoderState) -> Tensor:
        x, bias = self.dropout(self.embedding(state.slots.to_cache_order(tokens))), self._bias(self.decoder_bias)
        for layer, past, memory in zip(self.decoder, state.past, state.memory, strict=True):
            x = layer.step(x, past, memory, state.pattern, bias)
        hidden: Tensor = state.slots.from_cache_order(self.dropout(self.decoder_norm(x)))
        return hidden

    def _encode_layers(self, x: Tensor, pattern: Pattern) -> Tensor:
        """The encoder's hidden states of token embeddings under an attention pattern."""
        bias = self._bias(self.encoder_bias)
        for layer in self.encoder:
            x = layer(x, pattern, bias)
        states: Tensor = self.dropout(self.encoder_norm(x))
        return states

    def _layer(self) -> dict[str, Any]:
        """The arguments of a layer."""
        config = self.config
        network = GatedFeedForward if config.network == "gated" else FeedForward
        return {
            "embed_dim": config.embed_dim,
            "num_heads": config.num_heads,
            "ffn_dim": config.ffn_dim,
            "norm": "pre",
            "dropout": config.dropout,
            "attention_dropout": config.dropout,
            "make_norm": self._norm,
            "feed_forward": network(
                config.embed_dim, config.ffn_dim, config.activation, bias=False, dropout=config.dropout
            ),
            "head_dim": config.head_dim,
            "bias": False,
            "score": Dot(scale=1.0),
        }

    def _norm(self) -> nn.RMSNorm:
        return nn.RMSNorm(self.config.embed_dim, self.config.norm_eps)

    @staticmethod
    def _bias(shared: LearnedValue) -> Bias:
        """The relative position bias, from its learned table."""
        return shared()  # type: ignore[return-value]
