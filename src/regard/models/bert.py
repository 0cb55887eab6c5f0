"""BERT and its near kin: an encoder that learned to find masked words, and to say what whole texts mean.

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
from regard.layers.linear import Linear, linear
from regard.layers.transformer_layer import ACTIVATIONS, EncoderLayer
from regard.models.check import TokenId, check_fields
from regard.models.text_encoder import TextEncoder

# Turc et al. 2019, arXiv 1908.08962, table 1, has the small ones. RoBERTa's and DistilBERT's are of their papers.
SIZES: dict[str, dict[str, Any]] = {
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
INITIAL = 0.02  # the deviation of first weights (the source, appendix A.2, by its code)


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class BertConfig:
    """The sizes and choices of a BERT; those of BERT-base by default.

    Args:
        family: whose names its checkpoints have. In "roberta" and "xlm-roberta" the positions of a text start after
            `pad`, and padding has none; "distilbert" has no token types and no pooler.
        vocab_size: N.
        embed_dim: D, the size of a token's state.
        num_layers: encoder layers.
        num_heads: H, of each attention.
        ffn_dim: of the feed-forward networks.
        activation: of the feed-forward networks.
        head_activation: of the masked-word head.
        dropout: of each part's output and of the embedded tokens.
        attention_dropout: of the attention's weights.
        max_positions: vectors of positions.
        num_token_types: vectors of token types; None for none.
        norm_eps: of all norms.
        pad: the token that fills the places after the end; None for any.
        masked_words: whether there is a head that finds masked words.
        tied: whether that head's vectors of words are those of the embedding.
        pooler: whether there is a layer for whole texts.

    Raises:
        ConfigError: a choice that is unknown or out of range.
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
        """Whether positions are counted as RoBERTa does: from pad + 1, over the tokens that are not padding."""
        return self.family in ("roberta", "xlm-roberta")

    @staticmethod
    def of_size(size: str, **changes: Any) -> "BertConfig":
        """A published size by name.

        Args:
            size: of `SIZES`, such as "base", "minilm-l6" or "roberta-large".
            changes: other fields.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown size.
        """
        if size not in SIZES:
            raise ConfigError(f"BERT has no size {size!r}; {nearest(size, SIZES)}")
        return BertConfig(**{**SIZES[size], **changes})


@final
class MaskedWordHead(nn.Module):
    """The logits of the words that stand at places: norm(activation(W x + b)) times their vectors, plus a bias.

    Args:
        config: of the model.

    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1, task 1; the layer before the logits is of its code.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.activation = config.head_activation
        self.dense = Linear(config.embed_dim, config.embed_dim)
        self.norm = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.weight = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.embed_dim))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        if self.weight is not None:
            nn.init.normal_(self.weight, std=INITIAL)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """The logits.

        Args:
            hidden: (..., D).
            embedding: the vectors of the vocabulary (N, D), used if the head has none of its own.

        Returns:
            (..., N).
        """
        x = self.norm(ACTIVATIONS[self.activation](self.dense(hidden)))
        return linear(x, embedding if self.weight is None else self.weight, self.bias)


@final
class Bert(TextEncoder):
    """BERT, DistilBERT, RoBERTa and MiniLM.

    Args:
        config: its sizes and choices.

    Raises:
        ConfigError: sizes that don't go together.

    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.

    >>> model = rg.Bert(rg.BertConfig.of_size("tiny", vocab_size=100, pooler=True)).eval()
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
                nn.init.normal_(embedding.weight, std=INITIAL)

    @property
    def longest(self) -> int:
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
        return None if self.head is None else self.head(hidden, self.embedding.weight)

    def pool(self, hidden: Tensor) -> Tensor | None:
        if self.pooler is None:
            return None
        if not hidden.shape[1]:
            raise ShapeError(
                f"Bert: tokens has shape {tuple(hidden.shape[:2])}; expected at least one token in each text: "
                "the pooler reads the first"
            )
        return torch.tanh(self.pooler(hidden[:, 0]))

    def _positions(self, tokens: Tensor) -> Tensor:
        """Which of the vectors of positions each token gets: (1 or B, L)."""
        if not self.config.pads_have_no_position:
            return torch.arange(tokens.shape[1], device=tokens.device)[None]
        real = tokens != self.config.pad
        return real.cumsum(1) * real + self.config.pad
