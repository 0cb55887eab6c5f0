"""Vision Transformers: pictures cut into patches, read by a Transformer's encoder.

Source: Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", arXiv
2010.11929. DeiT: Touvron et al. 2020, arXiv 2012.12877. DINOv2: Oquab et al. 2023, arXiv 2304.07193; its registers:
Darcet et al. 2023, arXiv 2309.16588.

Layout: B pictures of C channels, P x P pixels a patch, N patches, T special tokens before them, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.attention.check import show
from regard.attention.patterns.pattern import Full
from regard.attention.value import short_repr
from regard.errors import ConfigError, ShapeError, nearest
from regard.layers.convolution_2d import ConvolutionStem
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear, linear
from regard.layers.relative_positions import RELATIVE, QueryBias, relative_positions
from regard.layers.transformer_layer import ACTIVATIONS, EncoderLayer, GatedFeedForward
from regard.models.check import check_fields

INITIAL = 0.02  # deviation of first weights of tokens and positions
# Dosovitskiy et al. 2020, table 1; Touvron et al. 2020, table 1 ("tiny" and "small").
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "num_heads": 3, "ffn_dim": 768},
    "small": {"embed_dim": 384, "num_heads": 6, "ffn_dim": 1536},
    "base": {},
    "large": {"num_layers": 24, "embed_dim": 1024, "num_heads": 16, "ffn_dim": 4096},
    "huge": {"num_layers": 32, "embed_dim": 1280, "num_heads": 16, "ffn_dim": 5120, "patch_size": 14},
}


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class ViTConfig:
    """The sizes and choices of a vision Transformer; those of ViT-B/16 by default.

    Args:
        family: whose names its checkpoints have, and how its positions are interpolated.
        image_size: side of the pictures that the positions were made for, in pixels.
        patch_size: P, side of a patch, in pixels.
        num_channels: C.
        embed_dim: D, the size of a patch's state.
        num_layers: encoder layers.
        num_heads: H, of each attention.
        ffn_dim: of the feed-forward networks.
        activation: of the feed-forward networks.
        gated: whether the feed-forward networks are gated (SwiGLU, with "swish").
        dropout: of each part's output and of the embedded patches.
        attention_dropout: of the attention's weights.
        norm_eps: of all norms.
        query_bias: whether the projections of queries, keys and values add a bias.
        distilled: whether a distillation token stands behind the class token.
        num_registers: register tokens behind the class token; None for none.
        layer_scale: initial value of the learned factors of each part's output; None for none.
        num_labels: labels of the classifier; None for no classifier.
        head: what the classifier reads: the class token; the mean of two classifiers, of the class and the distillation
            token ("both"); or the class token and the mean of the patches, one after the other ("class-mean").
        pooler: whether there is a layer with tanh over the class token.
        positions: learned positions of the patches: one for each patch ("1d"); one for each row beside one for each
            column, of D / 2 features each ("2d"); relative ones, a bias of each layer's scores by offset, Swin's
            ("relative-bias"), or by query and offset, Shaw's ("relative-key"), 0 for the special tokens; or none
            ("none"). Those of published models are "1d".
        stem: how patches are embedded: each by a linear map ("patch"), or all by convolutions of stride 2
            ("convolution"), for which P must be a power of 2.

    Raises:
        ConfigError: a choice that is unknown or out of range, or sizes that don't go together.
    """

    family: Literal["vit", "deit", "dinov2", "dinov2_with_registers"] = "vit"
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    ffn_dim: int = 3072
    activation: str = "gelu"
    gated: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    norm_eps: float = 1e-12
    query_bias: bool = True
    distilled: bool = False
    num_registers: int | None = None
    layer_scale: float | None = None
    num_labels: int | None = None
    head: Literal["class", "both", "class-mean"] = "class"
    pooler: bool = False
    positions: Literal["1d", "2d", "relative-bias", "relative-key", "none"] = "1d"
    stem: Literal["patch", "convolution"] = "patch"

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self)
        if self.activation not in ACTIVATIONS:
            raise ConfigError(
                f"ViTConfig: unknown activation {show(self.activation)}; {nearest(self.activation, ACTIVATIONS)}"
            )
        if self.image_size < self.patch_size:
            raise ConfigError(f"ViTConfig: image_size={self.image_size} has no room for patch_size={self.patch_size}")
        if self.head == "both" and not self.distilled:
            raise ConfigError('ViTConfig: head="both" reads a distillation token; expected distilled=True')
        if self.positions == "2d" and self.embed_dim % 2:
            raise ConfigError(f'ViTConfig: embed_dim={self.embed_dim} must be even for positions="2d"')

    @property
    def grid(self) -> int:
        """Patches in a row of the pictures that the positions were made for."""
        return self.image_size // self.patch_size

    @property
    def num_special(self) -> int:
        """T, the tokens before the patches."""
        return 1 + self.distilled + (self.num_registers or 0)

    def with_labels(self, num_labels: int) -> "ViTConfig":
        """The same for one new classifier of so many labels."""
        head = "class" if self.head == "both" else self.head
        return replace(self, num_labels=num_labels, head=head, pooler=False)

    @staticmethod
    def from_preset(name: str, **changes: Any) -> "ViTConfig":
        """Configuration of a published model by name.

        Args:
            name: "tiny", "small", "base", "large" or "huge".
            changes: other fields.

        Returns:
            The configuration.

        Raises:
            ConfigError: an unknown name.
        """
        if name not in PRESETS:
            raise ConfigError(f"ViT has no preset {name!r}; {nearest(name, PRESETS)}")
        return ViTConfig(**{**PRESETS[name], **changes})


class ViTOutput(NamedTuple):
    """Outputs of a vision Transformer."""

    hidden: Tensor  # (B, T + N, D): class token, other special tokens, patches row by row
    logits: Tensor | None  # (B, labels); None without a classifier
    pooled: Tensor | None  # (B, D); None without a pooler


@final
class ViT(nn.Module):
    """A vision Transformer: ViT, DeiT, or DINOv2's.

    Args:
        config: its sizes and choices.

    Raises:
        ConfigError: sizes that don't go together.

    Source: Dosovitskiy et al. 2020, arXiv 2010.11929, section 3.1; the convolutional stem: its "hybrid architecture",
    in the form of Xiao et al. 2021, arXiv 2106.14881, section 3.

    >>> config = ViTConfig.from_preset("tiny", num_layers=2, image_size=32, patch_size=8, num_labels=10)
    >>> output = ViT(config).eval()(torch.zeros(2, 3, 32, 48))
    >>> output.hidden.shape, output.logits.shape
    (torch.Size([2, 25, 192]), torch.Size([2, 10]))
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        size, patch = config.embed_dim, config.patch_size
        self.patch_embedding: nn.Module = (
            nn.Conv2d(config.num_channels, size, patch, stride=patch)
            if config.stem == "patch"
            else ConvolutionStem(config.num_channels, size, patch)
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, size))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, size)) if config.distilled else None
        registers = config.num_registers
        self.registers = None if registers is None else nn.Parameter(torch.zeros(1, registers, size))
        one, two = config.positions == "1d", config.positions == "2d"
        count = config.grid**2 + 1 + config.distilled
        self.positions = nn.Parameter(torch.zeros(1, count, size)) if one else None
        self.row_positions = nn.Parameter(torch.zeros(1, config.grid, size // 2)) if two else None
        self.column_positions = nn.Parameter(torch.zeros(1, config.grid, size // 2)) if two else None
        self.dropout = Dropout(config.dropout)
        self.encoder = nn.ModuleList(_layer(config) for _ in range(config.num_layers))
        self.relative_positions = nn.ModuleList(_relative(config)) if config.positions in RELATIVE else None
        self.norm = nn.LayerNorm(size, config.norm_eps)
        self.pooler = Linear(size, size) if config.pooler else None
        width = 2 * size if config.head == "class-mean" else size
        self.classifier = None if config.num_labels is None else Linear(width, config.num_labels)
        both = config.num_labels is not None and config.head == "both"
        self.distillation_classifier = Linear(size, config.num_labels or 1) if both else None
        tokens = (self.class_token, self.distillation_token, self.registers)
        for parameter in (*tokens, self.positions, self.row_positions, self.column_positions):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=INITIAL)
        for head in (self.classifier, self.distillation_classifier):
            if head is not None:
                nn.init.trunc_normal_(head.weight, std=INITIAL)
                nn.init.zeros_(head.bias)

    def forward(self, pictures: Tensor) -> ViTOutput:
        """The states of pictures, and the logits of their labels.

        Args:
            pictures: (B, C, H, W), normalized as the model was trained; H and W at least P, what exceeds multiples of P
                is cut. Positions are interpolated for other sizes than the model's.

        Returns:
            A `ViTOutput`.

        Raises:
            ShapeError: another number of channels or axes, or pictures smaller than a patch.
        """
        config = self.config
        if (
            pictures.dim() != 4
            or pictures.shape[1] != config.num_channels
            or min(pictures.shape[2:]) < config.patch_size
        ):
            raise ShapeError(
                f"ViT: pictures has shape {tuple(pictures.shape)}; expected (B, {config.num_channels}, H, W) with "
                f"sides of at least {config.patch_size}"
            )
        rows, columns = (side // config.patch_size for side in pictures.shape[2:])
        special, of_patches = self._positions(rows, columns)
        tokens = [self.class_token + special[:, :1]]
        if self.distillation_token is not None:
            tokens.append(self.distillation_token + special[:, 1:])
        if self.registers is not None:
            tokens.append(self.registers)
        patches = self._patches(pictures, rows, columns) + of_patches
        x = torch.cat([*(token.expand(len(pictures), -1, -1) for token in tokens), patches], 1)
        x = self.dropout(x)
        for layer, bias in zip(self.encoder, self._biases(rows, columns), strict=True):
            x = layer(x, Full(), bias)
        hidden = self.norm(x)
        pooled = None if self.pooler is None else torch.tanh(self.pooler(hidden[:, 0]))
        return ViTOutput(hidden, self._classify(hidden), pooled)

    def _patches(self, pictures: Tensor, rows: int, columns: int) -> Tensor:
        """The embedded patches (B, N, D), row by row."""
        batch, channels, _, _ = pictures.shape
        patch = self.config.patch_size
        whole = pictures[:, :, : rows * patch, : columns * patch]
        if self.config.stem == "convolution":
            features: Tensor = self.patch_embedding(whole.contiguous(memory_format=torch.channels_last))
            return features.flatten(2).transpose(1, 2)
        cut = whole.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
        flat = cut.reshape(batch, rows * columns, channels * patch * patch)
        return linear(flat, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)

    def _biases(self, rows: int, columns: int) -> Sequence[QueryBias | None]:
        """Each layer's bias of relative positions, a function of the queries; None without these."""
        if self.relative_positions is None:
            return [None] * len(self.encoder)
        return [partial(positions, grid=(rows, columns)) for positions in self.relative_positions]

    def _positions(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Positions of the special tokens (1, 1 or 2, D), and of a grid of patches (1, N, D)."""
        config = self.config
        if self.positions is not None:
            special, of_patches = self.positions.tensor_split([1 + config.distilled], 1)
            grid = of_patches.reshape(1, config.grid, config.grid, -1)
            return special, self._resized(grid, rows, columns).flatten(1, 2)
        special = torch.zeros_like(self.class_token).expand(-1, 1 + config.distilled, -1)
        if self.row_positions is None or self.column_positions is None:
            return special, special[:, :1]
        of_rows = self._resized(self.row_positions[:, :, None], rows, 1).expand(-1, -1, columns, -1)
        of_columns = self._resized(self.column_positions[:, None], 1, columns).expand(-1, rows, -1, -1)
        return special, torch.cat([of_rows, of_columns], -1).flatten(1, 2)

    def _resized(self, grid: Tensor, rows: int, columns: int) -> Tensor:
        """Positions (1, rows, columns, features) of a grid of another size, as the family interpolates them."""
        if tuple(grid.shape[1:3]) == (rows, columns):
            return grid
        family = self.config.family
        picture = (grid.float() if family.startswith("dinov2") else grid).permute(0, 3, 1, 2)
        antialias = family == "dinov2_with_registers"
        resized = functional.interpolate(picture, (rows, columns), mode="bicubic", antialias=antialias)
        return resized.to(grid.dtype).permute(0, 2, 3, 1)

    def _classify(self, hidden: Tensor) -> Tensor | None:
        if self.classifier is None:
            return None
        first = hidden[:, 0]
        if self.config.head == "class-mean":
            first = torch.cat([first, hidden[:, self.config.num_special :].mean(1)], 1)
        logits: Tensor = self.classifier(first)
        if self.distillation_classifier is not None:
            logits = (logits + self.distillation_classifier(hidden[:, 1])) / 2
        return logits


def _relative(config: ViTConfig) -> list[nn.Module]:
    """Relative positions of each layer."""
    heads, grid = config.num_heads, (config.grid, config.grid)
    return [
        relative_positions(config.positions, heads, config.embed_dim // heads, grid) for _ in range(config.num_layers)
    ]


def _layer(config: ViTConfig) -> EncoderLayer:
    gated = GatedFeedForward(config.embed_dim, config.ffn_dim, config.activation, bias=True) if config.gated else None
    return EncoderLayer(
        config.embed_dim,
        config.num_heads,
        config.ffn_dim,
        norm="pre",
        activation=config.activation,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        norm_eps=config.norm_eps,
        feed_forward=gated,
        layer_scale=config.layer_scale,
        bias=config.query_bias,
        output_bias=True,
    )
