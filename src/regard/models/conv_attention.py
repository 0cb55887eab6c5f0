"""Residual convolutional networks with self-attention in their last stages, for pictures.

Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv 1603.05027; non-local blocks: Wang et al.
2018, arXiv 1711.07971; attention-augmented convolutions: Bello et al. 2019, arXiv 1904.09925.

Layout: B pictures of C channels, D features, a feature map of h rows and w columns, N = h w cells.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from regard.attention.value import short_repr
from regard.errors import ConfigError, ShapeError
from regard.layers.attentive_pooling import AttentivePooling
from regard.layers.convolution_2d import AugmentedConvolution, NonLocalBlock, ResidualConvolution
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.models.check import check_fields

STAGES = 3  # each but the first halves the sides and doubles the features
INITIAL = 0.02  # deviation of first weights of the classifier


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class ConvAttentionConfig:
    """The sizes and choices of a `ConvAttention`; about a million parameters by default.

    Args:
        image_size: side of the pictures that the relative positions are made for, in pixels.
        num_channels: C.
        channels: features of the first of three stages; each further one doubles them.
        num_blocks: residual blocks of each stage.
        attention_kind: "augmented", attention beside the second convolution of each block; "non-local", a block of
            attention behind each; or "none".
        attention_stages: how many of the last stages have attention.
        attention_dim: features of queries, keys and values, of all heads together.
        num_heads: H.
        positions: relative positions of the cells, "relative-key" (Bello et al.), "relative-bias" (Swin's) or "none".
        pooling: what the classifier reads: the "mean" of the cells, or their mean weighted by "attention".
        dropout: of the pooled features.
        num_labels: labels of the classifier; None for no classifier.

    Raises:
        ConfigError: a choice that is unknown or out of range, or sizes that don't go together.
    """

    image_size: int = 32
    num_channels: int = 3
    channels: int = 40
    num_blocks: int = 2
    attention_kind: Literal["augmented", "non-local", "none"] = "augmented"
    attention_stages: int = 1
    attention_dim: int = 64
    num_heads: int = 4
    positions: Literal["relative-key", "relative-bias", "none"] = "relative-key"
    pooling: Literal["mean", "attention"] = "mean"
    dropout: float = 0.1
    num_labels: int | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.image_size < self.patch_size:
            raise ConfigError(f"ConvAttentionConfig: image_size={self.image_size} must be at least {self.patch_size}")
        if self.attention_stages > STAGES:
            raise ConfigError(f"ConvAttentionConfig: attention_stages={self.attention_stages}; there are {STAGES}")

    @property
    def patch_size(self) -> int:
        """Pixels of a picture's side for a cell of the last feature map."""
        return 2 ** (STAGES - 1)

    @property
    def num_special(self) -> int:
        """Tokens before the cells: none."""
        return 0

    @property
    def embed_dim(self) -> int:
        """D, the features of the last stage."""
        return self.channels * 2 ** (STAGES - 1)

    def with_labels(self, num_labels: int) -> "ConvAttentionConfig":
        """The same for a classifier of so many labels."""
        return replace(self, num_labels=num_labels)


class ConvAttentionOutput(NamedTuple):
    """Outputs of a `ConvAttention`."""

    hidden: Tensor  # (B, N, D): cells of the last feature map, row by row
    logits: Tensor | None  # (B, labels); None without a classifier


@final
class ConvAttention(nn.Module):
    """A residual convolutional network with self-attention in its last stages.

    Three stages of blocks of two 3 x 3 convolutions each. Norms are batch norms, which in evaluation use the statistics
    of training, so that a picture's result does not depend on the pictures beside it.

    Args:
        config: its sizes and choices.

    Raises:
        ConfigError: sizes that don't go together.

    Source: He et al. 2016, arXiv 1603.05027, section 3 and appendix; Wang et al. 2018, arXiv 1711.07971, section 3;
    Bello et al. 2019, arXiv 1904.09925, section 3.2; pooling: Lin et al. 2017, arXiv 1703.03130, section 2.1.

    >>> config = ConvAttentionConfig(channels=32, num_labels=10)
    >>> output = ConvAttention(config).eval()(torch.zeros(2, 3, 32, 48))
    >>> output.hidden.shape, output.logits.shape
    (torch.Size([2, 96, 128]), torch.Size([2, 10]))
    """

    def __init__(self, config: ConvAttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(config.num_channels, config.channels, 3, 1, 1, bias=False)
        self.blocks = nn.Sequential(*_blocks(config))
        self.norm = nn.BatchNorm2d(config.embed_dim)
        pools = config.pooling == "attention"
        self.pooling = AttentivePooling(config.embed_dim, hops=1, align_dim=config.embed_dim) if pools else None
        self.dropout = Dropout(config.dropout)
        self.classifier = None if config.num_labels is None else Linear(config.embed_dim, config.num_labels)
        if self.classifier is not None:
            nn.init.trunc_normal_(self.classifier.weight, std=INITIAL)
            nn.init.zeros_(self.classifier.bias)

    def forward(self, pictures: Tensor) -> ConvAttentionOutput:
        """The features of pictures, and the logits of their labels.

        Args:
            pictures: (B, C, H, W), normalized as the model was trained; H and W at least 4, what exceeds multiples of 4
                is cut. For other sizes than the model's, a table of "relative-bias" is interpolated, and far offsets of
                "relative-key" are clipped.

        Returns:
            A `ConvAttentionOutput`.

        Raises:
            ShapeError: another number of channels or axes, or pictures that are too small.
        """
        channels, cell = self.config.num_channels, self.config.patch_size
        if pictures.dim() != 4 or pictures.shape[1] != channels or min(pictures.shape[2:]) < cell:
            raise ShapeError(
                f"ConvAttention: pictures has shape {tuple(pictures.shape)}; expected (B, {channels}, H, W) with sides "
                f"of at least {cell}"
            )
        height, width = (side // cell * cell for side in pictures.shape[2:])
        # Convolutions in bfloat16 are faster in this layout, and the cells of a feature map are a view.
        x = pictures[:, :, :height, :width].contiguous(memory_format=torch.channels_last)
        features = torch.relu(self.norm(self.blocks(self.stem(x))))
        hidden = features.flatten(2).transpose(1, 2)
        return ConvAttentionOutput(hidden, None if self.classifier is None else self._classify(hidden))

    def _classify(self, hidden: Tensor) -> Tensor:
        pooled = hidden.mean(1) if self.pooling is None else self.pooling(hidden)[:, 0]
        logits: Tensor = self.classifier(self.dropout(pooled))  # type: ignore[misc]
        return logits


def _blocks(config: ConvAttentionConfig) -> list[nn.Module]:
    """The residual blocks of all stages, and the blocks of attention behind them."""
    blocks: list[nn.Module] = []
    before = config.channels
    for stage in range(STAGES):
        size, side = config.channels * 2**stage, max(1, config.image_size // 2**stage)
        attention = {
            "attention_dim": config.attention_dim,
            "num_heads": config.num_heads,
            "grid": (side, side),
            "positions": config.positions,
        }
        kind = config.attention_kind if stage >= STAGES - config.attention_stages else "none"
        for block in range(config.num_blocks):
            second = AugmentedConvolution(size, size, **attention) if kind == "augmented" else None
            stride = 2 if stage and not block else 1
            blocks.append(ResidualConvolution(before, size, stride, second=second))
            before = size
            if kind == "non-local":
                blocks.append(NonLocalBlock(size, **attention))
    return blocks
