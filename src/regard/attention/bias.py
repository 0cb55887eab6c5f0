"""Biases: terms added to the scores."""

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.check import check_integer, check_tensor
from regard.attention.value import Value, per_head, tensor_field, value
from regard.errors import ConfigError, ShapeError


class Bias(Value, ABC):
    """Base class of the biases."""

    @abstractmethod
    def bias(self, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype) -> Tensor:
        """Bias that broadcasts to (B, H, L, S), for consecutive query positions (B or 1, L) and key positions (S,)."""

    def by_offset(self, offset_BD: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Bias by key position minus query position, (B or 1, H or 1, D); None if it depends on more than that."""
        return None


@final
@value
class TensorBias(Bias):
    """Arbitrary, trainable bias tensor. An entry of -inf hides a key as a pattern does.

    Args:
        tensor: floats that broadcast to (B, H, L, S), rows and columns of the call.

    Raises:
        ShapeError: a tensor that is not floating point, or has more than four dimensions.
    """

    tensor: Tensor = tensor_field("BHLS")

    def __post_init__(self) -> None:
        check_tensor("TensorBias", "tensor", self.tensor)
        if not self.tensor.is_floating_point() or not 0 < self.tensor.dim() <= 4:
            raise ShapeError(
                f"TensorBias: got {self.tensor.dtype} of shape {tuple(self.tensor.shape)}; expected floats that "
                "broadcast to (batch, heads, queries, keys); for booleans use pattern=Mask(...), True = may attend"
            )

    def bias(self, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype) -> Tensor:
        return self.tensor.to(dtype).reshape((1,) * (4 - self.tensor.dim()) + tuple(self.tensor.shape))


@final
@value
class ALiBi(Bias):
    """Attention with linear biases: -slope * |query - key|, with one slope for each head.

    Args:
        slopes: (H,) or (); `ALiBi.for_heads` gives those of the paper.

    Raises:
        ShapeError: slopes that are not a tensor.

    Source: Press et al. 2021, arXiv 2108.12409, section 3.
    """

    slopes: Tensor = tensor_field("H")

    def __post_init__(self) -> None:
        check_tensor("ALiBi", "slopes", self.slopes)

    @staticmethod
    def for_heads(num_heads: int) -> "ALiBi":
        """ALiBi with the slopes of the paper: 2^(-8/n), 2^(-16/n), ... for n heads, where n is a power of 2.

        For another n: the slopes of the next lower power of 2, then every second slope of the next higher one.

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
    """T5's relative position bias: one learned value per head and bucket of distances, logarithmic for far ones.

    Args:
        table: (buckets, H), as T5 stores it.
        bidirectional: True: half of the buckets are for keys after the query; False: these count as distance 0.
        max_distance: distance from which on all keys share the last bucket.

    Raises:
        ShapeError: a table that is not of two dimensions.
        ConfigError: too few buckets, or a max_distance that is not above the exact distances.

    Source: Raffel et al. 2019, arXiv 1910.10683, section 2.1.
    """

    table: Tensor = tensor_field("iH")
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
        """Number of distances with a bucket each."""
        return self.table.shape[0] // (4 if self.bidirectional else 2)

    def bucket(self, offset: Tensor) -> Tensor:
        """Bucket index of each offset.

        Args:
            offset: key position minus query position, integers of any shape.

        Returns:
            Row indices of the table, in the same shape.
        """
        count = self.table.shape[0] // (2 if self.bidirectional else 1)
        distance = offset.abs() if self.bidirectional else (-offset).clamp(min=0)
        # float32 and the order of operations as in T5: they determine the bucket at boundaries
        octaves = torch.log(distance.float() / self._exact) / math.log(self.max_distance / self._exact)
        far = (self._exact + (octaves * (count - self._exact)).nan_to_num(0, 0, 0).long()).clamp(max=count - 1)
        bucket = torch.where(distance < self._exact, distance, far)
        return bucket + count * (offset > 0) if self.bidirectional else bucket

    def by_offset(self, offset_BD: Tensor, dtype: torch.dtype) -> Tensor:
        return functional.embedding(self.bucket(offset_BD), self.table.to(dtype)).transpose(1, 2)

    def bias(self, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype) -> Tensor:
        rows, columns = query_BL.shape[1], key_S.shape[0]
        # One value per offset, repeated for each row, then viewed with a row length one shorter, which shifts each row
        # by one offset against the row above. There is no gather over L x S, so the gradient is deterministic.
        offset_BD = torch.arange(1 - rows, columns + 1, device=key_S.device) + (key_S[0] - query_BL[:, :1])
        by_offset_BHD = self.by_offset(offset_BD, dtype)
        width = rows + columns
        repeated = by_offset_BHD[:, :, None].expand(-1, -1, rows, -1).flatten(2)
        shifted = repeated.narrow(2, rows - 1, rows * (width - 1))
        return shifted.reshape(*shifted.shape[:2], rows, width - 1)[..., :columns]
