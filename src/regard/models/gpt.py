"""GPT: a decoder-only Transformer language model; GPT-2, and GPT-3's alternating dense and banded layers.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3; Brown et al. 2020,
arXiv 2005.14165, section 2.1.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from regard.attention.patterns.pattern import Causal, Pattern, SlidingWindow
from regard.attention.score import Dot
from regard.attention.value import short_repr
from regard.errors import ConfigError, UnsupportedError, nearest
from regard.layers.causal_layer import CausalLayer
from regard.layers.decoder_stack import DecoderEnds
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.output_projection import OutputProjection
from regard.layers.positions import LearnedPositions
from regard.layers.quantized_linear import readable_weight
from regard.layers.transformer_layer import FeedForward
from regard.models.check import check_fields
from regard.models.language_model import LanguageModel
from regard.models.published import (
    COMMON_IRRELEVANT,
    COMMON_ONLY,
    HEADS,
    TRAINING,
    ConfigFields,
    TensorName,
    activation_of,
    check_supported,
    export_tensors,
    load_tensors,
    published_vocabulary,
    special_token_fields,
)
from regard.models.seq2seq import Vocabulary
from regard.models.step_positions import StepPositions

BAND = 128  # keys; Brown et al. don't say theirs, this is the stride of Child et al. 2019, section 7.2
INIT_STD = 0.02  # standard deviation of initial weights


def _gpt2(num_layers: int, embed_dim: int, num_heads: int) -> dict[str, Any]:
    return {"num_layers": num_layers, "embed_dim": embed_dim, "num_heads": num_heads}


def _gpt3(num_layers: int, embed_dim: int, num_heads: int, head_dim: int) -> dict[str, Any]:
    return {**_gpt2(num_layers, embed_dim, num_heads), "head_dim": head_dim, "max_length": 2048, "band": BAND}


# gpt2: table 2 of Radford et al. 2019, with heads of 64; gpt3: table 2.1 of Brown et al. 2020.
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "gpt3-small": _gpt3(12, 768, 12, 64),
    "gpt3-medium": _gpt3(24, 1024, 16, 64),
    "gpt3-large": _gpt3(24, 1536, 16, 96),
    "gpt3-xl": _gpt3(24, 2048, 24, 128),
    "gpt3-2.7b": _gpt3(32, 2560, 32, 80),
    "gpt3-6.7b": _gpt3(32, 4096, 32, 128),
    "gpt3-13b": _gpt3(40, 5140, 40, 128),
    "gpt3-175b": _gpt3(96, 12288, 96, 128),
}


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class GPTConfig:
    """Configuration of a `GPT`; GPT-2 small by default.

    Args:
        vocabulary: number of tokens and special tokens.
        embed_dim: D, size of hidden states.
        num_heads: H, number of attention heads.
        head_dim: E, size of a head; embed_dim / num_heads by default.
        ffn_dim: hidden size of the feed-forward networks; 4 embed_dim by default.
        num_layers: number of layers.
        max_length: number of position embeddings: the maximum length of a text.
        band: window of the banded layers, in keys, the query's own included; then every second layer is banded, as in
            GPT-3, starting with the second. None for dense layers only, as in GPT-2.
        activation: activation of the feed-forward networks.
        dropout: dropout of sublayer outputs.
        embedding_dropout: dropout of embeddings.
        attention_dropout: dropout of attention weights.
        norm_eps: epsilon of layer norms.
        scale_by_size: whether scores are divided by sqrt(head_dim).
        scale_by_layer: whether scores are divided by the layer's number, counted from 1.
        tie_output: whether the output projection shares the token embeddings.

    Raises:
        ConfigError: a field that is out of range.

    Source: banded layers: Brown et al. 2020, arXiv 2005.14165, section 2.1, after Child et al. 2019,
    arXiv 1904.10509, section 4.2.
    """

    vocabulary: Vocabulary
    embed_dim: int = 768
    num_heads: int = 12
    head_dim: int | None = None
    ffn_dim: int | None = None
    num_layers: int = 12
    max_length: int = 1024
    band: int | None = None
    activation: str = "gelu-tanh"
    dropout: float = 0.1
    embedding_dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_eps: float = 1e-5
    scale_by_size: bool = True
    scale_by_layer: bool = False
    tie_output: bool = True

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    def from_preset(name: str, vocabulary: Vocabulary, **changes: Any) -> "GPTConfig":
        """Configuration of a published model by name.

        Args:
            name: "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "gpt3-small" to "gpt3-xl", "gpt3-2.7b", "gpt3-6.7b",
                "gpt3-13b" or "gpt3-175b".
            vocabulary: number of tokens and special tokens.
            changes: fields that differ from it.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown name.
        """
        if name not in PRESETS:
            raise ConfigError(f"GPT has no preset {name!r}; {nearest(name, PRESETS)}")
        return GPTConfig(vocabulary=vocabulary, **{**PRESETS[name], **changes})

    def pattern(self, layer: int) -> Pattern:
        """The attention pattern of a layer, counted from 0."""
        if self.band is None or layer % 2 == 0:
            return Causal()
        return Causal() & SlidingWindow(left=self.band - 1)

    def score(self, layer: int) -> Dot:
        """The attention score of a layer, counted from 0."""
        size = self.embed_dim // self.num_heads if self.head_dim is None else self.head_dim
        if self.scale_by_size and not self.scale_by_layer:
            return Dot()
        return Dot(scale=(size**-0.5 if self.scale_by_size else 1.0) / (layer + 1 if self.scale_by_layer else 1))


@final
class GPT(LanguageModel):
    """A GPT language model: pre-norm causal layers over token and learned position embeddings, and a final norm.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: inconsistent sizes.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3, for initialization
    too.

    >>> import regard as rg
    >>> sizes = {"embed_dim": 16, "num_heads": 2, "num_layers": 2, "max_length": 32}
    >>> model = rg.GPT(rg.GPTConfig(vocabulary=rg.Vocabulary(size=100), band=8, **sizes))
    >>> model(torch.tensor([[5, 6, 7]])).logits.shape
    torch.Size([1, 3, 100])
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        self.embedding = nn.Embedding(config.vocabulary.size, config.embed_dim)
        self.positions = LearnedPositions(config.max_length, config.embed_dim)
        self.dropout = Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(self._layer(i) for i in range(config.num_layers))
        self.norm = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.output = None if config.tie_output else Linear(config.embed_dim, config.vocabulary.size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights: normal, with a smaller deviation for projections into the residual stream."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("output_proj.weight", "contract.weight"))
                nn.init.normal_(
                    parameter, std=INIT_STD / math.sqrt(2 * self.config.num_layers) if residual else INIT_STD
                )

    @property
    def max_length(self) -> int:
        return self.config.max_length

    def embed(self, tokens: Tensor, start: int) -> Tensor:
        embedded: Tensor = self.dropout(self.positions(self.embedding(tokens), start))
        return embedded

    @property
    def ends(self) -> DecoderEnds:
        return DecoderEnds(self.embedding, 1.0, self.dropout, self.norm, self.projection)

    @property
    def step_positions(self) -> StepPositions:
        return StepPositions(self.positions, self.config.embed_dim, self.max_length)

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(readable_weight(self.embedding if self.output is None else self.output))

    def _layer(self, i: int) -> CausalLayer:
        config = self.config
        attention = MultiHeadAttention(
            config.embed_dim,
            config.num_heads,
            head_dim=config.head_dim,
            dropout=config.attention_dropout,
            score=config.score(i),
            pattern=config.pattern(i),
        )
        ffn_dim = 4 * config.embed_dim if config.ffn_dim is None else config.ffn_dim
        feed_forward = FeedForward(config.embed_dim, ffn_dim, config.activation)
        return CausalLayer(
            attention,
            feed_forward,
            norm=lambda: nn.LayerNorm(config.embed_dim, config.norm_eps),
            dropout=config.dropout,
        )


# Field of GPT2Config: field of GPTConfig.
FIELDS = {
    "n_embd": "embed_dim",
    "n_head": "num_heads",
    "n_layer": "num_layers",
    "n_positions": "max_length",
    "n_inner": "ffn_dim",
    "resid_pdrop": "dropout",
    "embd_pdrop": "embedding_dropout",
    "attn_pdrop": "attention_dropout",
    "layer_norm_epsilon": "norm_eps",
    "scale_attn_weights": "scale_by_size",
    "scale_attn_by_inverse_layer_idx": "scale_by_layer",
    "tie_word_embeddings": "tie_output",
}
SUPPORTED = {
    **COMMON_ONLY,
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
}
CONFIG_FIELDS = ConfigFields(
    "GPT-2",
    (
        *FIELDS, "activation_function", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "model_type",
        "task_specific_params",
    ),
    SUPPORTED,
    {
        **COMMON_IRRELEVANT,
        **dict.fromkeys(
            (
                "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
                "summary_first_dropout",
            ),
            HEADS,
        ),
        "cross_attention_hidden_size": "encoder-decoders only",
        "is_decoder": "a GPT always is",
        "n_ctx": "same as `n_positions`",
        **dict.fromkeys(("n_special", "predict_special_tokens"), TRAINING),
        "reorder_and_upcast_attn": "precision of scores: always at least float32",
    },
    {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
)  # fmt: skip
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu-tanh": "gelu_new", "swish": "silu"}  # regard: GPT-2
IGNORED = ("*.attn.bias", "*.attn.masked_bias")  # buffers of causal masks in old checkpoints
PREFIX = "transformer."  # of tensors in a GPT2LMHeadModel, except the output projection's
PARTS = {
    "attention_norm": "ln_1",
    "self_attention.output_proj": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.expand": "mlp.c_fc",
    "feed_forward.contract": "mlp.c_proj",
}


def from_gpt2(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> GPT:
    """Build a GPT from a GPT-2 checkpoint.

    Args:
        config: fields of config.json, a GPT2Config; missing fields have its defaults.
        state: tensors by name, of a GPT2LMHeadModel, or of a GPT2Model, whose names lack the prefix "transformer.".

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field with an unsupported value.
        CheckpointError: tensors that are missing, unexpected or of other shapes.
        ConfigError: a field that is out of range.
    """
    check_supported(CONFIG_FIELDS.title, config, SUPPORTED)
    fields = {ours: config[theirs] for theirs, ours in FIELDS.items() if theirs in config}
    fields["activation"] = activation_of("GPT-2", {"activation_function": "gelu_new", **config}, "activation_function")
    vocabulary = published_vocabulary(
        "GPT-2", {"vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256, **config}
    )
    gpt_config = GPTConfig(vocabulary=vocabulary, **fields)
    prefix = PREFIX if f"{PREFIX}wte.weight" in state else ""
    same = {"lm_head.weight": f"{prefix}wte.weight"} if gpt_config.tie_output else {}
    names = _names(gpt_config, prefix)
    return load_tensors("GPT-2", lambda: GPT(gpt_config), state, names, same=same, ignored=IGNORED)


def to_gpt2(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert a GPT to a GPT-2 checkpoint.

    Args:
        model: with dense layers, and heads of size embed_dim / num_heads.

    Returns:
        Fields of config.json, a GPT2Config, and tensors by the names of a GPT2LMHeadModel.

    Raises:
        UnsupportedError: a model that GPT-2's layout cannot represent.
    """
    config = model.config
    if config.band is not None:
        raise UnsupportedError(f"GPT-2 has no banded layers; this model has band={config.band}")
    if config.head_dim not in (None, config.embed_dim // config.num_heads):
        raise UnsupportedError(
            f"GPT-2 has heads of size embed_dim / num_heads = {config.embed_dim // config.num_heads}; this model has "
            f"head_dim={config.head_dim}"
        )
    if config.activation not in ACTIVATIONS:
        raise UnsupportedError(f"GPT-2 has no activation={config.activation!r}; known: {', '.join(ACTIVATIONS)}")
    fields = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
    fields |= {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": ACTIVATIONS[config.activation],
        "n_ctx": config.max_length,
        **special_token_fields(config.vocabulary),
    }
    return fields, export_tensors(model, _names(config, PREFIX))


def _names(config: GPTConfig, prefix: str) -> Iterator[TensorName]:
    """The names of all tensors; GPT-2 stores weights transposed."""
    yield TensorName("embedding.weight", f"{prefix}wte.weight")
    yield TensorName("positions.weight", f"{prefix}wpe.weight")
    for i in range(config.num_layers):
        ours, theirs = f"layers.{i}.", f"{prefix}h.{i}."
        for kind in ("weight", "bias"):
            for part, name in enumerate(("query_proj", "key_proj", "value_proj")):
                yield TensorName(
                    f"{ours}self_attention.{name}.{kind}", f"{theirs}attn.c_attn.{kind}", kind == "weight", part, 3
                )
            for a, b in PARTS.items():
                yield TensorName(
                    f"{ours}{a}.{kind}", f"{theirs}{b}.{kind}", kind == "weight" and not a.endswith("norm")
                )
    for kind in ("weight", "bias"):
        yield TensorName(f"norm.{kind}", f"{prefix}ln_f.{kind}")
    if not config.tie_output:
        yield TensorName("output.weight", "lm_head.weight")
