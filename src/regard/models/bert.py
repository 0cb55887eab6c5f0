"""BERT, RoBERTa, DistilBERT and MiniLM: Transformer encoders with a masked language model head and a pooler.

Source: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", arXiv
1810.04805. RoBERTa: Liu et al. 2019, arXiv 1907.11692. DistilBERT: Sanh et al. 2019, arXiv 1910.01108. MiniLM: Wang et
al. 2020, arXiv 2002.10957.
"""

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from regard.attention.check import check_integer, show
from regard.attention.patterns.pattern import Pattern
from regard.attention.value import short_repr
from regard.errors import ConfigError, ShapeError, nearest
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.output_projection import OutputProjection
from regard.layers.quantized_linear import QuantizedWeight, readable_weight
from regard.layers.transformer_layer import ACTIVATIONS, EncoderLayer
from regard.models.check import TokenId, check_fields
from regard.models.text_encoder import TextEncoder

# Small sizes: Turc et al. 2019, arXiv 1908.08962, table 1. RoBERTa and DistilBERT: their papers.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"num_layers": 2, "embed_dim": 128, "num_heads": 2, "ffn_dim": 512},
    "mini": {"num_layers": 4, "embed_dim": 256, "num_heads": 4, "ffn_dim": 1024},
    "small": {"num_layers": 4, "embed_dim": 512, "num_heads": 8, "ffn_dim": 2048},
    "medium": {"num_layers": 8, "embed_dim": 512, "num_heads": 8, "ffn_dim": 2048},
    "base": {},
    "large": {"num_layers": 24, "embed_dim": 1024, "num_heads": 16, "ffn_dim": 4096},
    "minilm-l6": {"num_layers": 6, "embed_dim": 384, "ffn_dim": 1536},
    "minilm-l12": {"num_layers": 12, "embed_dim": 384, "ffn_dim": 1536},
    "distilbert": {"family": "distilbert", "num_layers": 6, "num_token_types": None},
    "roberta-base": {
        "family": "roberta", "vocab_size": 50265, "max_positions": 514, "num_token_types": 1, "norm_eps": 1e-5,
        "pad": 1,
    },
    "roberta-large": {
        "family": "roberta", "vocab_size": 50265, "max_positions": 514, "num_token_types": 1, "norm_eps": 1e-5,
        "pad": 1,
        "num_layers": 24, "embed_dim": 1024, "num_heads": 16, "ffn_dim": 4096,
    },
}  # fmt: skip
INIT_STD = 0.02  # standard deviation of initial weights (the source, appendix A.2, and its code)


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class BertConfig:
    """Configuration of a `Bert`; BERT-base by default.

    Args:
        family: checkpoint family. In "roberta" and "xlm-roberta" positions count from `pad` + 1 and skip padding;
            "distilbert" has no token types and no pooler.
        vocab_size: N, number of tokens.
        embed_dim: D, size of hidden states.
        num_layers: number of encoder layers.
        num_heads: H, number of attention heads.
        ffn_dim: hidden size of the feed-forward networks.
        activation: activation of the feed-forward networks.
        head_activation: activation of the masked language model head.
        dropout: dropout of sublayer outputs and of embeddings.
        attention_dropout: dropout of attention weights.
        max_positions: number of position embeddings.
        num_token_types: number of token type embeddings; None for none.
        norm_eps: epsilon of layer norms.
        pad: id of the padding token; None if there is none.
        masked_words: whether there is a masked language model head.
        tied: whether that head shares the token embeddings.
        pooler: whether there is a pooler, a layer on the first token's state.

    Raises:
        ConfigError: an unknown value, or one that is out of range.
    """

    family: Literal["bert", "distilbert", "roberta", "xlm-roberta"] = "bert"
    vocab_size: int = 30522
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    ffn_dim: int = 3072
    activation: str = "gelu"
    head_activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    max_positions: int = 512
    num_token_types: int | None = 2
    norm_eps: float = 1e-12
    pad: TokenId | None = TokenId(0)  # noqa: RUF009 - an int
    masked_words: bool = True
    tied: bool = True
    pooler: bool = False

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.pads_have_no_position:
            check_integer("BertConfig", "pad", self.pad, 0)
        for name in (self.activation, self.head_activation):
            if name not in ACTIVATIONS:
                raise ConfigError(f"BertConfig: unknown activation {show(name)}; {nearest(name, ACTIVATIONS)}")

    @property
    def pads_have_no_position(self) -> bool:
        """Whether positions are counted as in RoBERTa: from pad + 1, over the tokens that are not padding."""
        return self.family in ("roberta", "xlm-roberta")

    @staticmethod
    def from_preset(name: str, **changes: Any) -> "BertConfig":
        """Configuration of a published model by name.

        Args:
            name: a key of `PRESETS`, such as "base", "minilm-l6" or "roberta-large".
            changes: fields that differ from it.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown name.
        """
        if name not in PRESETS:
            raise ConfigError(f"BERT has no preset {name!r}; {nearest(name, PRESETS)}")
        return BertConfig(**{**PRESETS[name], **changes})


@final
class MaskedWordHead(nn.Module):
    """Masked language model head: logits = E norm(activation(W x + b)) + c, with E the token embeddings.

    Args:
        config: of the model.

    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1, task 1; the layer before the logits is from its code.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.activation = config.head_activation
        self.dense = Linear(config.embed_dim, config.embed_dim)
        self.norm = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.weight = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.embed_dim))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        if self.weight is not None:
            nn.init.normal_(self.weight, std=INIT_STD)

    def forward(self, hidden: Tensor, embedding: Tensor | QuantizedWeight) -> Tensor:
        """The logits of each token.

        Args:
            hidden: (..., D).
            embedding: token embeddings (N, D), used if the head has no weight of its own.

        Returns:
            Logits (..., N).
        """
        x = self.norm(ACTIVATIONS[self.activation](self.dense(hidden)))
        return OutputProjection(embedding if self.weight is None else self.weight, self.bias).logits(x)


@final
class Bert(TextEncoder):
    """A Transformer encoder of the BERT family: BERT, DistilBERT, RoBERTa, XLM-RoBERTa or MiniLM.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: inconsistent sizes.

    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.

    >>> model = rg.Bert(rg.BertConfig.from_preset("tiny", vocab_size=100, pooler=True)).eval()
    >>> output = model(torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]), lengths=torch.tensor([4, 3]))
    >>> output.hidden.shape, output.logits.shape, output.pooled.shape
    (torch.Size([2, 4, 128]), torch.Size([2, 4, 100]), torch.Size([2, 128]))
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        size = config.embed_dim
        self.embedding = nn.Embedding(config.vocab_size, size)
        self.position_embedding = nn.Embedding(config.max_positions, size)
        self.type_embedding = nn.Embedding(config.num_token_types, size) if config.num_token_types else None
        self.norm = nn.LayerNorm(size, config.norm_eps)
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.ModuleList(
            EncoderLayer(
                size,
                config.num_heads,
                config.ffn_dim,
                activation=config.activation,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                norm_eps=config.norm_eps,
            )
            for _ in range(config.num_layers)
        )
        self.head = MaskedWordHead(config) if config.masked_words else None
        self.pooler = Linear(size, size) if config.pooler else None
        for embedding in (self.embedding, self.position_embedding, self.type_embedding):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=INIT_STD)

    @property
    def max_length(self) -> int:
        first = self.config.pad + 1 if self.config.pads_have_no_position else 0
        return self.config.max_positions - first

    def read(self, tokens: Tensor, pattern: Pattern, token_types: Tensor | None) -> Tensor:
        x = self.embedding(tokens)
        if self.type_embedding is not None:
            x = x + (self.type_embedding.weight[0] if token_types is None else self.type_embedding(token_types))
        x = self.dropout(self.norm(x + self.position_embedding(self._positions(tokens))))
        for layer in self.encoder:
            x = layer(x, pattern)
        return x

    def project(self, hidden: Tensor) -> Tensor | None:
        return None if self.head is None else self.head(hidden, readable_weight(self.embedding))

    def pool(self, hidden: Tensor) -> Tensor | None:
        if self.pooler is None:
            return None
        if not hidden.shape[1]:
            raise ShapeError(
                f"Bert: tokens has shape {tuple(hidden.shape[:2])}; expected at least one token in each text, which "
                "the pooler reads"
            )
        return torch.tanh(self.pooler(hidden[:, 0]))

    def _positions(self, tokens: Tensor) -> Tensor:
        """The position of each token, (1, L) or (B, L)."""
        if not self.config.pads_have_no_position:
            return torch.arange(tokens.shape[1], device=tokens.device)[None]
        mask = tokens != self.config.pad
        return mask.cumsum(1) * mask + self.config.pad
