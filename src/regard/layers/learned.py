"""Learned settings: attention values whose tensors are parameters of a layer.

A setting is plain data with two methods: `start` makes the initial tensors of its value for a number of heads, and
`build` makes the value from them. The layer owns the tensors (they are in its `state_dict`, trained and moved with it)
and builds the value in every `forward`. A user-defined setting is a frozen dataclass that derives from `Learned`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.bias import ALiBi, Bias, RelativeBias
from regard.attention.check import check_integer, is_number, show
from regard.attention.normalizer import Entmax, Normalizer, Sigmoid, Softmax
from regard.attention.score import Additive, Bilinear, Cosine, Location, Score
from regard.attention.value import Value
from regard.errors import ConfigError


class Learned(ABC):
    """Base class of the learned settings."""

    makes: ClassVar[type[Value]]  # class of the value that `build` returns

    @abstractmethod
    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        """Initial tensors, by name."""

    @abstractmethod
    def build(self, held: Mapping[str, Tensor]) -> Value:
        """Build the value from the current tensors."""

    @property
    def trained(self) -> bool:
        """Whether the tensors are parameters; otherwise they are buffers."""
        return True


@final
@dataclass(frozen=True)
class LearnedCosine(Learned):
    """`Cosine` with a learned scale for each head.

    Args:
        scale: initial value for each head.

    Source: Henry et al. 2020, arXiv 2010.04245, section 3, equation 4.
    """

    scale: float = 10.0

    makes = Cosine

    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        return {"scale": torch.full((num_heads,), self.scale)}

    def build(self, held: Mapping[str, Tensor]) -> Score:
        return Cosine(held["scale"])


@final
@dataclass(frozen=True)
class LearnedBilinear(Learned):
    """`Bilinear` with a learned matrix for each head, initialized to the scaled dot product.

    Source: Luong et al. 2015, arXiv 1508.04025, section 3.1, "general".
    """

    makes = Bilinear

    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        return {"weight": (torch.eye(head_dim) / math.sqrt(head_dim)).repeat(num_heads, 1, 1)}

    def build(self, held: Mapping[str, Tensor]) -> Score:
        return Bilinear(held["weight"])


@final
@dataclass(frozen=True)
class LearnedAdditive(Learned):
    """`Additive` with a learned vector for each head. The layer's query and key projections are the source's W and U.

    Args:
        activation: "tanh", "relu" or "sigmoid".

    Source: Bahdanau et al. 2014, arXiv 1409.0473, appendix A.1.2.
    """

    activation: str = "tanh"

    makes = Additive

    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        return {"vector": _xavier(num_heads, head_dim, 1).squeeze(-1)}

    def build(self, held: Mapping[str, Tensor]) -> Score:
        return Additive(held["vector"], self.activation)


@final
@dataclass(frozen=True)
class LearnedLocation(Learned):
    """`Location` with a learned row for each head and key position.

    Args:
        positions: number of key positions, >= 1.

    Raises:
        ConfigError: fewer than one position.

    Source: Luong et al. 2015, arXiv 1508.04025, section 3.1, equation 8.
    """

    positions: int

    makes = Location

    def __post_init__(self) -> None:
        check_integer("LearnedLocation", "positions", self.positions, 1)

    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        return {"weight": _xavier(num_heads, self.positions, head_dim)}

    def build(self, held: Mapping[str, Tensor]) -> Score:
        return Location(held["weight"])


@final
@dataclass(frozen=True)
class LearnedEntmax(Learned):
    """`Entmax` with a learned alpha for each head: alpha = 1.01 + softplus(raw), so that it stays above 1.

    Args:
        alpha: initial value for each head, above 1.01.

    Raises:
        ConfigError: an alpha that is not above 1.01.

    Source: Correia et al. 2019, arXiv 1909.00015, section 3, where alpha is bounded by 2 as well.
    """

    alpha: float = 1.5

    makes = Entmax
    MIN_ALPHA: ClassVar[float] = 1.01  # closer to 1, powers with exponent 1 / (alpha - 1) leave float32's range

    def __post_init__(self) -> None:
        if not (is_number(self.alpha) and self.alpha > self.MIN_ALPHA):
            raise ConfigError(
                f"LearnedEntmax: alpha={show(self.alpha)} must be above {self.MIN_ALPHA}, its lower bound in training"
            )

    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        return {"raw_alpha": torch.full((num_heads,), math.log(math.expm1(self.alpha - self.MIN_ALPHA)))}

    def build(self, held: Mapping[str, Tensor]) -> Normalizer:
        raw = held["raw_alpha"]
        return Entmax(self.MIN_ALPHA + functional.softplus(raw.to(torch.promote_types(raw.dtype, torch.float32))))


@final
@dataclass(frozen=True)
class LearnedSink(Learned):
    """`Softmax` with a learned sink for each head, so that a head may attend to nothing.

    Args:
        logit: initial value for each head; 0 is the "off by one" softmax.

    Source: OpenAI 2025, arXiv 2508.10925, section 2.2.
    """

    logit: float = 0.0

    makes = Softmax

    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        return {"sink": torch.full((num_heads,), self.logit)}

    def build(self, held: Mapping[str, Tensor]) -> Normalizer:
        return Softmax(sink=held["sink"])


@final
@dataclass(frozen=True)
class LearnedSigmoid(Learned):
    """`Sigmoid` with a learned bias for each head.

    Args:
        bias: initial value for each head; the source uses -log(S) for S keys.

    Source: Ramapuram et al. 2024, arXiv 2409.04431, section 2.
    """

    bias: float = 0.0

    makes = Sigmoid

    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        return {"bias": torch.full((num_heads,), self.bias)}

    def build(self, held: Mapping[str, Tensor]) -> Normalizer:
        return Sigmoid(held["bias"])


@final
@dataclass(frozen=True)
class LearnedRelativeBias(Learned):
    """`RelativeBias` with a learned table, as in T5, initialized to small random numbers.

    Args:
        num_buckets: number of rows of the table.
        bidirectional: True: half of the buckets are for keys after the query; False: these count as distance 0.
        max_distance: distance from which on all keys share the last bucket.

    Source: Raffel et al. 2019, arXiv 1910.10683, section 2.1.
    """

    num_buckets: int = 32
    bidirectional: bool = True
    max_distance: int = 128

    makes = RelativeBias

    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        return {"table": 0.02 * torch.randn(self.num_buckets, num_heads)}

    def build(self, held: Mapping[str, Tensor]) -> Bias:
        return RelativeBias(held["table"], bidirectional=self.bidirectional, max_distance=self.max_distance)


@final
@dataclass(frozen=True)
class ALiBiSlopes(Learned):
    """`ALiBi` with the slopes of the source for the layer's heads, constant or as initial values.

    Args:
        learned: whether the slopes are trained.

    Source: Press et al. 2021, arXiv 2108.12409, section 3, which finds that training them gains little.
    """

    learned: bool = False

    makes = ALiBi

    def start(self, num_heads: int, head_dim: int) -> dict[str, Tensor]:
        return {"slopes": ALiBi.for_heads(num_heads).slopes}

    def build(self, held: Mapping[str, Tensor]) -> Bias:
        return ALiBi(held["slopes"])

    @property
    def trained(self) -> bool:
        return self.learned


def _xavier(heads: int, rows: int, columns: int) -> Tensor:
    """Xavier-uniform matrix for each head (Glorot and Bengio 2010, equation 16)."""
    bound = math.sqrt(6 / (rows + columns))
    return torch.empty(heads, rows, columns).uniform_(-bound, bound)
