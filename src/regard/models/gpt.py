"""GPT: a Transformer that goes on from a text; GPT-2 as published, and GPT-3's alternation of dense and banded layers.

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
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.output_projection import OutputProjection
from regard.layers.positions import LearnedPositions
from regard.layers.transformer_layer import FeedForward
from regard.models.check import check_fields
from regard.models.language_model import LanguageModel
from regard.models.published import (
    COMMON_IRRELEVANT,
    COMMON_ONLY,
    HEADS,
    TRAINING,
    Fields,
    Named,
    activation_of,
    check_only,
    published_marks,
    published_vocabulary,
    read_named,
    write_named,
)
from regard.models.seq2seq import Vocabulary

BAND = 128  # keys; Brown et al. don't say theirs, this is the stride of Child et al. 2019, section 7.2
SPREAD = 0.02  # standard deviation of the weights that training starts from


def _gpt2(layers: int, embed_dim: int, num_heads: int) -> dict[str, Any]:
    return {"num_layers": layers, "embed_dim": embed_dim, "num_heads": num_heads}


def _gpt3(layers: int, embed_dim: int, num_heads: int, head_dim: int) -> dict[str, Any]:
    return {**_gpt2(layers, embed_dim, num_heads), "head_dim": head_dim, "max_length": 2048, "band": BAND}


# gpt2: table 2 of Radford et al. 2019, with heads of 64; gpt3: table 2.1 of Brown et al. 2020.
SIZES: dict[str, dict[str, Any]] = {
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
    """The sizes and choices of a GPT.

    Args:
        vocabulary: of the texts.
        embed_dim: D, the size of a token's state.
        num_heads: H, of every attention.
        head_dim: E, the size of a head; embed_dim / num_heads by default.
        ffn_dim: of the feed-forward networks; 4 embed_dim by default.
        num_layers: how many.
        max_length: positions that have a vector: the longest text.
        band: None for dense layers, as in GPT-2. With a number, the second layer and every other one after it are
            banded, as in GPT-3: a query sees so many keys, its own among them.
        activation: of the feed-forward networks.
        dropout: of each part's output.
        embedding_dropout: of the embedded tokens.
        attention_dropout: of the attention's weights.
        norm_eps: what norms add to the variance.
        scale_by_size: whether scores are divided by the root of head_dim.
        scale_by_layer: whether they are divided by the layer's number, counted from 1.
        tie_output: whether the output's vectors are those of the tokens.

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
    def of_size(size: str, vocabulary: Vocabulary, **changes: Any) -> "GPTConfig":
        """A published size by name.

        Args:
            size: "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "gpt3-small" to "gpt3-xl", "gpt3-2.7b", "gpt3-6.7b",
                "gpt3-13b" or "gpt3-175b".
            vocabulary: of the texts.
            changes: other fields.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown size.
        """
        if size not in SIZES:
            raise ConfigError(f"GPT has no size {size!r}; {nearest(size, SIZES)}")
        return GPTConfig(vocabulary=vocabulary, **{**SIZES[size], **changes})

    def pattern(self, layer: int) -> Pattern:
        """Which keys a query of a layer may attend to; layers count from 0."""
        if self.band is None or layer % 2 == 0:
            return Causal()
        return Causal() & SlidingWindow(left=self.band - 1)

    def score(self, layer: int) -> Dot:
        """How well a key answers a query in a layer."""
        size = self.embed_dim // self.num_heads if self.head_dim is None else self.head_dim
        if self.scale_by_size and not self.scale_by_layer:
            return Dot()
        return Dot(scale=(size**-0.5 if self.scale_by_size else 1.0) / (layer + 1 if self.scale_by_layer else 1))


@final
class GPT(LanguageModel):
    """A stack of causal layers over embedded tokens with learned positions, normalized before each part and at the end.

    Args:
        config: its sizes and choices.

    Raises:
        ConfigError: sizes that don't go together.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3; what training
    starts from, too.

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
        """Start again: small random weights, smaller ones where a layer adds to what it was given, biases 0."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                adds = name.endswith(("output_proj.weight", "contract.weight"))
                nn.init.normal_(parameter, std=SPREAD / math.sqrt(2 * self.config.num_layers) if adds else SPREAD)

    @property
    def longest(self) -> int:
        return self.config.max_length

    def embed(self, tokens: Tensor, start: int) -> Tensor:
        embedded: Tensor = self.dropout(self.positions(self.embedding(tokens), start))
        return embedded

    @property
    def projection(self) -> OutputProjection:
        return OutputProjection(self.embedding.weight if self.output is None else self.output.weight)

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
        hidden = 4 * config.embed_dim if config.ffn_dim is None else config.ffn_dim
        feed_forward = FeedForward(config.embed_dim, hidden, config.activation)
        return CausalLayer(
            attention,
            feed_forward,
            norm=lambda: nn.LayerNorm(config.embed_dim, config.norm_eps),
            dropout=config.dropout,
        )


# Field of GPT2Config, field of GPTConfig.
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
ONLY = {
    **COMMON_ONLY,
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
}
KNOWN = Fields(
    "GPT-2",
    (
        *FIELDS, "activation_function", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "model_type",
        "task_specific_params",
    ),
    ONLY,
    {
        **COMMON_IRRELEVANT,
        **dict.fromkeys(
            (
                "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
                "summary_first_dropout",
            ),
            HEADS,
        ),
        "cross_attention_hidden_size": "of decoders that read an encoder",
        "is_decoder": "the model is one",
        "n_ctx": "`n_positions` once more",
        **dict.fromkeys(("n_special", "predict_special_tokens"), TRAINING),
        "reorder_and_upcast_attn": "of the precision of scores, which is float32 at least",
    },
    {
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
)  # fmt: skip
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu-tanh": "gelu_new", "swish": "silu"}  # ours, theirs
IGNORED = ("*.attn.bias", "*.attn.masked_bias")  # causal masks, which old files hold
MODEL = "transformer."  # before the names of what a GPT2Model holds, in files of one that has an output
PARTS = {
    "attention_norm": "ln_1",
    "self_attention.output_proj": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.expand": "mlp.c_fc",
    "feed_forward.contract": "mlp.c_proj",
}


def from_gpt2(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> GPT:
    """The GPT of GPT-2's configuration and weights.

    Args:
        config: fields of a GPT2Config, as its config.json has them; what is missing has its published value.
        state: the tensors of a GPT2LMHeadModel by name, or of a GPT2Model, whose names lack "transformer." before them.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field that says something this model does not compute.
        CheckpointError: tensors that are missing, unknown or of other shapes.
        ConfigError: a field that is out of range.
    """
    check_only(KNOWN.title, config, ONLY)
    fields = {ours: config[theirs] for theirs, ours in FIELDS.items() if theirs in config}
    fields["activation"] = activation_of("GPT-2", {"activation_function": "gelu_new", **config}, "activation_function")
    vocabulary = published_vocabulary(
        "GPT-2", {"vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256, **config}
    )
    made = GPTConfig(vocabulary=vocabulary, **fields)
    prefix = MODEL if f"{MODEL}wte.weight" in state else ""
    same = {"lm_head.weight": f"{prefix}wte.weight"} if made.tie_output else {}
    return read_named("GPT-2", lambda: GPT(made), state, _names(made, prefix), same=same, ignored=IGNORED)


def to_gpt2(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A GPT's configuration and weights in GPT-2's layout.

    Args:
        model: with dense layers, and heads that divide its size.

    Returns:
        Fields of a GPT2Config, and tensors by the names of a GPT2LMHeadModel.

    Raises:
        UnsupportedError: a model that GPT-2 cannot be told of.
    """
    config = model.config
    if config.band is not None:
        raise UnsupportedError(f"GPT-2 has no banded layers; this model has band={config.band}")
    if config.head_dim not in (None, config.embed_dim // config.num_heads):
        raise UnsupportedError(
            f"GPT-2's heads have the size embed_dim / num_heads = {config.embed_dim // config.num_heads}; this model's "
            f"have head_dim={config.head_dim}"
        )
    if config.activation not in ACTIVATIONS:
        raise UnsupportedError(f"GPT-2 has no activation={config.activation!r}; known: {', '.join(ACTIVATIONS)}")
    words = config.vocabulary
    fields = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
    fields |= {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": ACTIVATIONS[config.activation],
        "n_ctx": config.max_length,
        **published_marks(words),
    }
    return fields, write_named(model, _names(config, MODEL))


def _names(config: GPTConfig, prefix: str) -> Iterator[Named]:
    """Where each tensor stands in a GPT-2; its maps are stored the other way around."""
    yield Named("embedding.weight", f"{prefix}wte.weight")
    yield Named("positions.weight", f"{prefix}wpe.weight")
    for i in range(config.num_layers):
        ours, theirs = f"layers.{i}.", f"{prefix}h.{i}."
        for kind in ("weight", "bias"):
            for part, name in enumerate(("query_proj", "key_proj", "value_proj")):
                yield Named(
                    f"{ours}self_attention.{name}.{kind}", f"{theirs}attn.c_attn.{kind}", kind == "weight", part, 3
                )
            for a, b in PARTS.items():
                yield Named(f"{ours}{a}.{kind}", f"{theirs}{b}.{kind}", kind == "weight" and not a.endswith("norm"))
    for kind in ("weight", "bias"):
        yield Named(f"norm.{kind}", f"{prefix}ln_f.{kind}")
    if not config.tie_output:
        yield Named("output.weight", "lm_head.weight")
