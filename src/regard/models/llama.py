"""Llama, Mistral and Qwen2: language models with rotary positions, grouped queries, RMSNorm and gated feed-forward.

Source: Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", arXiv 2302.13971, section 2.2;
grouped queries: Touvron et al. 2023, arXiv 2307.09288, section 2.2; windows: Jiang et al. 2023, "Mistral 7B",
arXiv 2310.06825, section 2.
"""

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from regard.attention.check import is_integer
from regard.attention.patterns.pattern import Causal, Pattern, SlidingWindow
from regard.attention.value import short_repr
from regard.errors import ConfigError, nearest
from regard.layers.causal_layer import CausalLayer
from regard.layers.linear import Linear
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.output_projection import OutputProjection
from regard.layers.positions import Rotary
from regard.layers.quantized_linear import readable_weight
from regard.layers.rotary_scaling import RotaryScaling
from regard.layers.transformer_layer import GatedFeedForward
from regard.models.check import check_fields
from regard.models.language_model import LanguageModel
from regard.models.seq2seq import Vocabulary

INIT_STD = 0.02  # standard deviation of initial weights


def _size(num_layers: int, embed_dim: int, num_heads: int, ffn_dim: int, **more: Any) -> dict[str, Any]:
    return {"num_layers": num_layers, "embed_dim": embed_dim, "num_heads": num_heads, "ffn_dim": ffn_dim, **more}


# llama: table 2 of arXiv 2302.13971, ffn_dim from its section 2.2 (8/3 of embed_dim, to a multiple of 256);
# mistral: table 1 of arXiv 2310.06825; llama3: table 3 of arXiv 2407.21783.
PRESETS: dict[str, dict[str, Any]] = {
    "llama-7b": _size(32, 4096, 32, 11008),
    "llama-13b": _size(40, 5120, 40, 13824),
    "llama-33b": _size(60, 6656, 52, 17920),
    "llama-65b": _size(80, 8192, 64, 22016),
    "llama2-70b": _size(80, 8192, 64, 28672, num_kv_heads=8, max_length=4096),
    "mistral-7b": _size(32, 4096, 32, 14336, num_kv_heads=8, max_length=32768, windows=(4096,) * 32),
    "llama3-8b": _size(32, 4096, 32, 14336, num_kv_heads=8, max_length=8192, rotary_base=500_000.0),
    "llama3-70b": _size(80, 8192, 64, 28672, num_kv_heads=8, max_length=8192, rotary_base=500_000.0),
}


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class LlamaConfig:
    """Configuration of a `Llama`: a Llama, a Mistral or a Qwen2; Llama 7B by default.

    Args:
        vocabulary: number of tokens and special tokens.
        embed_dim: D, size of hidden states.
        num_heads: H, number of query heads.
        num_kv_heads: G, number of key and value heads, a divisor of H; H by default.
        head_dim: E, size of a head; embed_dim / num_heads by default.
        ffn_dim: hidden size of the feed-forward networks.
        num_layers: number of layers.
        max_length: maximum length of a text. Rotary positions need no table, so that longer ones can be computed too.
        windows: sliding window of each layer, in keys, the query's own included; None for a layer without. Empty for
            no windows at all.
        activation: activation of the gates in feed-forward networks.
        rotary_base: base of the rotary wavelengths.
        rotary_scaling: scaling of rotary angles, for texts longer than those of pre-training.
        projection_bias: whether query, key and value projections have a bias.
        output_bias: whether the attention's output projection has a bias.
        feed_forward_bias: whether the feed-forward networks have biases.
        attention_dropout: dropout of attention weights.
        norm_eps: epsilon of RMS norms.
        tie_output: whether the output projection shares the token embeddings.

    Raises:
        ConfigError: a field that is out of range, or windows for another number of layers.
    """

    vocabulary: Vocabulary
    embed_dim: int = 4096
    num_heads: int = 32
    num_kv_heads: int | None = None
    head_dim: int | None = None
    ffn_dim: int = 11008
    num_layers: int = 32
    max_length: int = 2048
    windows: tuple[int | None, ...] = ()
    activation: str = "swish"
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling | None = None
    projection_bias: bool = False
    output_bias: bool = False
    feed_forward_bias: bool = False
    attention_dropout: float = 0.0
    norm_eps: float = 1e-6
    tie_output: bool = False

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        valid = all(x is None or (is_integer(x) and x >= 1) for x in self.windows)
        if not valid or len(self.windows) not in (0, self.num_layers):
            raise ConfigError(
                f"LlamaConfig: windows={self.windows!r:.60} must be a number of keys >= 1, or None, for each of the "
                f"{self.num_layers} layers, or empty"
            )

    @staticmethod
    def from_preset(name: str, vocabulary: Vocabulary, **changes: Any) -> "LlamaConfig":
        """Configuration of a published model by name.

        Args:
            name: "llama-7b", "llama-13b", "llama-33b", "llama-65b", "llama2-70b", "llama3-8b", "llama3-70b" or
                "mistral-7b".
            vocabulary: number of tokens and special tokens.
            changes: fields that differ from it.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown name.
        """
        if name not in PRESETS:
            raise ConfigError(f"Llama has no preset {name!r}; {nearest(name, PRESETS)}")
        return LlamaConfig(vocabulary=vocabulary, **{**PRESETS[name], **changes})

    def pattern(self, layer: int) -> Pattern:
        """The attention pattern of a layer, counted from 0."""
        window = self.windows[layer] if self.windows else None
        return Causal() if window is None else Causal() & SlidingWindow(left=window - 1)


@final
class Llama(LanguageModel):
    """A Llama language model: pre-norm causal layers with rotary positions over token embeddings, and a final norm.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: inconsistent sizes.

    Source: Touvron et al. 2023, arXiv 2302.13971, section 2.2.

    >>> import regard as rg
    >>> sizes = {"embed_dim": 16, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 24, "num_layers": 2}
    >>> model = rg.Llama(rg.LlamaConfig(vocabulary=rg.Vocabulary(size=100), windows=(None, 8), **sizes))
    >>> model(torch.tensor([[5, 6, 7]])).logits.shape
    torch.Size([1, 3, 100])
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        self.embedding = nn.Embedding(config.vocabulary.size, config.embed_dim)
        self.layers = nn.ModuleList(self._layer(i) for i in range(config.num_layers))
        self.norm = nn.RMSNorm(config.embed_dim, config.norm_eps)
        self.output = None if config.tie_output else Linear(config.embed_dim, config.vocabulary.size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights from a normal distribution."""
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=INIT_STD)

    @property
    def max_length(self) -> int:
        return self.config.max_length

    def embed(self, tokens: Tensor, start: int) -> Tensor:
        embedded: Tensor = self.embedding(tokens)
        return embedded

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(readable_weight(self.embedding if self.output is None else self.output))

    def _layer(self, i: int) -> CausalLayer:
        config = self.config
        head_dim = config.embed_dim // config.num_heads if config.head_dim is None else config.head_dim
        attention = MultiHeadAttention(
            config.embed_dim,
            config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=head_dim,
            bias=config.projection_bias,
            output_bias=config.output_bias,
            positions=Rotary(head_dim, base=config.rotary_base, interleaved=False, scaling=config.rotary_scaling),
            dropout=config.attention_dropout,
            pattern=config.pattern(i),
        )
        feed_forward = GatedFeedForward(
            config.embed_dim, config.ffn_dim, config.activation, bias=config.feed_forward_bias
        )
        return CausalLayer(attention, feed_forward, norm=lambda: nn.RMSNorm(config.embed_dim, config.norm_eps))
