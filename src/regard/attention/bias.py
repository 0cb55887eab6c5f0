"""What is added to the scores, by position or by hand."""

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.check import check_integer, check_tensor
from regard.attention.value import Value, holds, per_head, value
from regard.errors import ConfigError, ShapeError


class Bias(Value, ABC):
    """What every bias can do."""

    @abstractmethod
    def bias(self, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype) -> Tensor:
        """What to add: broadcasts to (B, H, L, S). Positions of queries (B or 1, L) and keys (S,) are consecutive."""

    def by_offset(self, offset_BD: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What to add where the key stands so far after the query: (B or 1, H or 1, D); None if more counts."""
        return None


@final
@value
class TensorBias(Bias):
    """Any bias at all, as a tensor, trainable. Entries of -inf hide a key like a pattern.

    Args:
        tensor: floats that broadcast to (B, H, L, S), rows and columns of the call.

    Raises:
        ShapeError: a tensor that is not floating point, or has more than four dimensions.
    """

    tensor: Tensor = holds("BHLS")

    def __post_init__(self) -> None:
        check_tensor("TensorBias", "tensor", self.tensor)
        if not self.tensor.is_floating_point() or not 0 < self.tensor.dim() <= 4:
            raise ShapeError(
                f"TensorBias: got {self.tensor.dtype} of shape {tuple(self.tensor.shape)}; expected floats that "
                "broadcast to (batch, heads, queries, keys); booleans are pattern=Mask(...), True = may attend"
            )

    def bias(self, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype) -> Tensor:
        return self.tensor.to(dtype).reshape((1,) * (4 - self.tensor.dim()) + tuple(self.tensor.shape))


@final
@value
class ALiBi(Bias):
    """A penalty that grows with distance, at a slope of each head's own: -slope * |query - key|.

    Args:
        slopes: (H,) or (); `ALiBi.for_heads` makes the paper's.

    Raises:
        ShapeError: slopes that are not a tensor.

    Source: Press et al. 2021, arXiv 2108.12409, section 3.
    """

    slopes: Tensor = holds("H")

    def __post_init__(self) -> None:
        check_tensor("ALiBi", "slopes", self.slopes)

    @staticmethod
    def for_heads(num_heads: int) -> "ALiBi":
        """The paper's slopes: 2^(-8/n), 2^(-16/n), ... for n heads, where n is a power of 2.

        For another number, those of the power of 2 below it, then every second one of the power above.

        Args:
            num_heads: H, >= 1.

        Returns:
            The bias.

        Raises:
            ConfigError: fewer than one head.

        >>> ALiBi.for_heads(4).slopes
        tensor([0.2500, 0.0625, 0.0156, 0.0039])
        """
        check_integer("ALiBi", "num_heads", num_heads, 1)
        below = 2 ** int(math.log2(num_heads))
        slopes = [2 ** (-8 * (i + 1) / below) for i in range(below)]
        between = [2 ** (-4 * (i + 1) / below) for i in range(0, 2 * below, 2)]
        return ALiBi(torch.tensor(slopes + between[: num_heads - below]))

    def bias(self, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype) -> Tensor:
        distance_B1LS = (query_BL[:, None, :, None] - key_S).abs().to(dtype)
        return -per_head(self.slopes, dtype) * distance_B1LS

    def by_offset(self, offset_BD: Tensor, dtype: torch.dtype) -> Tensor:
        return -self.slopes.to(dtype)[..., None] * offset_BD[:, None].abs().to(dtype)


@final
@value
class RelativeBias(Bias):
    """T5's bias: one learned number for each head and bucket of distances, near ones exact, far ones by logarithm.

    Args:
        table: (buckets, H), as T5 stores it.
        bidirectional: half of the buckets for keys after the query; if not, those count as distance 0.
        max_distance: distances from here on share the last bucket.

    Raises:
        ShapeError: a table that is not of two dimensions.
        ConfigError: too few buckets, or a max_distance within the exact ones.

    Source: Raffel et al. 2019, arXiv 1910.10683, section 2.1.
    """

    table: Tensor = holds("iH")
    bidirectional: bool = True
    max_distance: int = 128

    def __post_init__(self) -> None:
        check_tensor("RelativeBias", "table", self.table)
        check_integer("RelativeBias", "max_distance", self.max_distance, 1)
        if self.table.dim() != 2:
            raise ShapeError(f"RelativeBias: table has shape {tuple(self.table.shape)}; expected (buckets, heads)")
        if self._exact < 1 or self.max_distance <= self._exact:
            raise ConfigError(
                f"RelativeBias: {self.table.shape[0]} buckets and max_distance={self.max_distance}: expected at least "
                f"{4 if self.bidirectional else 2} buckets and a max_distance above the {self._exact} exact distances"
            )

    @property
    def _exact(self) -> int:
        """How many distances have a bucket of their own."""
        return self.table.shape[0] // (4 if self.bidirectional else 2)

    def bucket(self, offset: Tensor) -> Tensor:
        """The bucket of each offset.

        Args:
            offset: key position minus query position, integers of any shape.

        Returns:
            Rows of the table, the same shape.
        """
        count = self.table.shape[0] // (2 if self.bidirectional else 1)
        distance = offset.abs() if self.bidirectional else (-offset).clamp(min=0)
        # float32 and this order of operations decide which bucket a boundary falls in; trained tables rely on it
        octaves = torch.log(distance.float() / self._exact) / math.log(self.max_distance / self._exact)
        far = (self._exact + (octaves * (count - self._exact)).nan_to_num(0, 0, 0).long()).clamp(max=count - 1)
        bucket = torch.where(distance < self._exact, distance, far)
        return bucket + count * (offset > 0) if self.bidirectional else bucket

    def by_offset(self, offset_BD: Tensor, dtype: torch.dtype) -> Tensor:
        return functional.embedding(self.bucket(offset_BD), self.table.to(dtype)).transpose(1, 2)

    def bias(self, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype) -> Tensor:
        rows, columns = query_BL.shape[1], key_S.shape[0]
        # One number for each offset that occurs, repeated as rows; read with a row one shorter, each row starts one
        # offset earlier than the one above. No gather over L x S, so the gradient is a sum in fixed order.
        offset_BD = torch.arange(1 - rows, columns + 1, device=key_S.device) + (key_S[0] - query_BL[:, :1])
        by_offset_BHD = self.by_offset(offset_BD, dtype)
        width = rows + columns
        repeated = by_offset_BHD[:, :, None].expand(-1, -1, rows, -1).flatten(2)
        shifted = repeated.narrow(2, rows - 1, rows * (width - 1))
        return shifted.reshape(*shifted.shape[:2], rows, width - 1)[..., :columns]
