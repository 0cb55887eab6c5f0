"""Score functions of query and key: the logits before the normalizer.

A score maps queries (B, H, L, E) and keys (B, G, S, E) to scores (B, H, L, S), where G divides H: each key head is
shared by H / G query heads. Keys are not repeated for this; the query heads of a group are folded into rows instead.
"""

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from regard.attention.check import check_number, check_tensor, is_number, show
from regard.attention.value import Value, per_head, tensor_field, value
from regard.errors import ConfigError, ShapeError, nearest

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


class Score(Value, ABC):
    """Base class of the score functions."""

    @abstractmethod
    def scores(self, query_BHLE: Tensor, key_BGSE: Tensor) -> Tensor:
        """Scores (B, H, L, S) in the dtype of the queries."""

    def as_dot_product(self, query_BHLE: Tensor, key_BGSE: Tensor) -> tuple[Tensor, Tensor] | None:
        """Transformed queries and keys (B, G, S, E) whose dot products are the scores; None if there are none."""
        return None

    def check(self, num_heads: int, query_dim: int, key_dim: int) -> None:
        """Raise ShapeError if the score is incompatible with these sizes."""

    def at(self, key_start: int, num_keys: int) -> "Score":
        """The score restricted to keys at positions key_start to key_start + num_keys - 1."""
        return self

    def width(self, head_dim: int) -> int:
        """Number of intermediate elements per (query, key) pair at the peak of the computation."""
        return 1


@final
@value
class Dot(Score):
    """Scaled dot product: scale * q . k, optionally soft-capped to (-softcap, softcap).

    With a softcap c the score is c * tanh(scale * q . k / c).

    Args:
        scale: a number, or a tensor (H,) or (); 1 / sqrt(E) by default. Luong's plain dot is `Dot(scale=1.0)`.
        softcap: the cap, > 0; None for none.

    Raises:
        ConfigError: a scale that is not finite, or a softcap that is not a positive number.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1, equation 1; the softcap: Gemma Team 2024,
    arXiv 2408.00118, section 2.
    """

    scale: float | Tensor | None = tensor_field("H", default=None)
    softcap: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_number("Dot", "scale", self.scale, ", or None for 1 / sqrt(head_dim)")
        if self.softcap is not None and not (is_number(self.softcap) and self.softcap > 0):
            raise ConfigError(f"Dot: softcap={show(self.softcap)} must be a positive number, or None for no cap")

    def scores(self, query_BHLE: Tensor, key_BGSE: Tensor) -> Tensor:
        scores = products(*self.as_dot_product(query_BHLE, key_BGSE))
        return scores if self.softcap is None else self.softcap * torch.tanh(scores / self.softcap)

    def as_dot_product(self, query_BHLE: Tensor, key_BGSE: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled queries, and keys: their dot products are the scores before the softcap."""
        scale = 1 / math.sqrt(query_BHLE.shape[-1]) if self.scale is None else self.scale
        return query_BHLE * per_head(scale, query_BHLE.dtype), key_BGSE

    def check(self, num_heads: int, query_dim: int, key_dim: int) -> None:
        _check_same_dim("Dot", query_dim, key_dim)


@final
@value
class Cosine(Score):
    """Scaled cosine similarity of query and key: scale * (q . k) / (|q| |k|); 0 for a zero vector.

    Args:
        scale: a number, or a tensor (H,) or (); often learned, because a cosine is at most 1.

    Raises:
        ConfigError: a scale that is not finite.

    Source: Henry et al. 2020, arXiv 2010.04245, section 3, equation 4.
    """

    scale: float | Tensor = tensor_field("H")

    def __post_init__(self) -> None:
        check_number("Cosine", "scale", self.scale)

    def scores(self, query_BHLE: Tensor, key_BGSE: Tensor) -> Tensor:
        return products(*self.as_dot_product(query_BHLE, key_BGSE))

    def as_dot_product(self, query_BHLE: Tensor, key_BGSE: Tensor) -> tuple[Tensor, Tensor]:
        return _unit(query_BHLE) * per_head(self.scale, query_BHLE.dtype), _unit(key_BGSE)

    def check(self, num_heads: int, query_dim: int, key_dim: int) -> None:
        _check_same_dim("Cosine", query_dim, key_dim)


@final
@value
class Bilinear(Score):
    """Luong's "general" score: q^T W k.

    Args:
        weight: W, (E_query, E_key) or (H, E_query, E_key).

    Raises:
        ShapeError: a weight that is not 2D or 3D; in a call, one whose sizes differ from those of query and key.

    Source: Luong et al. 2015, arXiv 1508.04025, section 3.1, "general".
    """

    weight: Tensor = tensor_field("Hij")

    def __post_init__(self) -> None:
        check_tensor("Bilinear", "weight", self.weight)
        if self.weight.dim() not in (2, 3):
            raise ShapeError(
                f"Bilinear: weight has shape {tuple(self.weight.shape)}; expected (query dim, key dim) or "
                "(heads, query dim, key dim)"
            )

    def scores(self, query_BHLE: Tensor, key_BGSE: Tensor) -> Tensor:
        return products(*self.as_dot_product(query_BHLE, key_BGSE))

    def as_dot_product(self, query_BHLE: Tensor, key_BGSE: Tensor) -> tuple[Tensor, Tensor]:
        return query_BHLE @ self.weight.to(query_BHLE.dtype), key_BGSE

    def check(self, num_heads: int, query_dim: int, key_dim: int) -> None:
        if tuple(self.weight.shape[-2:]) != (query_dim, key_dim):
            raise ShapeError(
                f"Bilinear: weight has shape {tuple(self.weight.shape)}, but the query's last dimension is "
                f"{query_dim} and the key's {key_dim}; expected a weight (..., {query_dim}, {key_dim})"
            )


@final
@value
class Additive(Score):
    """Bahdanau's score, Luong's "concat": v . activation(q + k), for projected queries and keys.

    Bahdanau's a(s, h) = v^T tanh(W s + U h) is this with query = W s and key = U h; Luong's W [s; h] splits likewise.

    Args:
        vector: v, (E,) or (H, E).
        activation: "tanh", "relu" or "sigmoid".

    Raises:
        ConfigError: an unknown activation.
        ShapeError: a vector that is not 1D or 2D; in a call, one whose size is not head_dim.

    Source: Bahdanau et al. 2014, arXiv 1409.0473, appendix A.1.2; Luong et al. 2015, arXiv 1508.04025,
    section 3.1, "concat".
    """

    vector: Tensor = tensor_field("Hi")
    activation: str = "tanh"

    def __post_init__(self) -> None:
        if str(self.activation) not in ACTIVATIONS:
            raise ConfigError(
                f"Additive: unknown activation {self.activation!r}; {nearest(str(self.activation), ACTIVATIONS)}"
            )
        check_tensor("Additive", "vector", self.vector)
        if self.vector.dim() not in (1, 2):
            raise ShapeError(
                f"Additive: vector has shape {tuple(self.vector.shape)}; expected (head_dim,) or (heads, head_dim)"
            )

    def scores(self, query_BHLE: Tensor, key_BGSE: Tensor) -> Tensor:
        key_BHSE = repeated_keys(key_BGSE, query_BHLE.shape[1])
        hidden_BHLSE = ACTIVATIONS[self.activation](query_BHLE[:, :, :, None] + key_BHSE[:, :, None])
        vector_HE1 = self.vector.to(query_BHLE.dtype).reshape(-1, 1, self.vector.shape[-1], 1)
        return (hidden_BHLSE @ vector_HE1).squeeze(-1)

    def check(self, num_heads: int, query_dim: int, key_dim: int) -> None:
        check_additive_sizes("Additive", self.vector, query_dim, key_dim)

    def width(self, head_dim: int) -> int:
        return head_dim


@final
@value
class Location(Score):
    """Luong's location-based score: w_p . q for the key at position p, independent of the key itself.

    Args:
        weight: (positions, E) or (H, positions, E); row p scores the key at position p.

    Raises:
        ShapeError: a weight that is not 2D or 3D; in a call, one with too few positions for the keys.

    Source: Luong et al. 2015, arXiv 1508.04025, section 3.1, equation 8.
    """

    weight: Tensor = tensor_field("HSi")

    def __post_init__(self) -> None:
        check_tensor("Location", "weight", self.weight)
        if self.weight.dim() not in (2, 3):
            raise ShapeError(
                f"Location: weight has shape {tuple(self.weight.shape)}; expected (positions, head_dim) or "
                "(heads, positions, head_dim)"
            )

    def scores(self, query_BHLE: Tensor, key_BGSE: Tensor) -> Tensor:
        return query_BHLE @ self.weight.to(query_BHLE.dtype).transpose(-1, -2)

    def as_dot_product(self, query_BHLE: Tensor, key_BGSE: Tensor) -> tuple[Tensor, Tensor]:
        heads = query_BHLE.shape[1] if self.weight.dim() == 3 else key_BGSE.shape[1]
        weight = self.weight.to(query_BHLE.dtype)
        return query_BHLE, weight.expand(query_BHLE.shape[0], heads, *weight.shape[-2:])

    def at(self, key_start: int, num_keys: int) -> "Location":
        if key_start < 0 or key_start + num_keys > self.weight.shape[-2]:
            raise ShapeError(
                f"Location: weight has {self.weight.shape[-2]} positions, but the keys are at {key_start} to "
                f"{key_start + num_keys - 1}; give a weight with at least {key_start + num_keys} positions"
            )
        return Location(self.weight.narrow(-2, key_start, num_keys))

    def check(self, num_heads: int, query_dim: int, key_dim: int) -> None:
        if self.weight.shape[-1] != query_dim:
            raise ShapeError(
                f"Location: weight has shape {tuple(self.weight.shape)}, but the query's head_dim is {query_dim}; "
                f"expected a weight (..., positions, {query_dim})"
            )


def products(query_BHLE: Tensor, key_BGSE: Tensor) -> Tensor:
    """Dot products of all queries with the keys of their group, (B, H, L, S)."""
    batch, heads, rows, dim = query_BHLE.shape
    groups, columns = key_BGSE.shape[1:3]
    if heads == groups:
        return query_BHLE @ key_BGSE.transpose(-1, -2)
    if torch.compiler.is_compiling():  # torch.export cannot prove that the reshape below is valid for every L
        query_BGiLE = query_BHLE.unflatten(1, (groups, heads // groups))
        return torch.einsum("bgile,bgse->bgils", query_BGiLE, key_BGSE).flatten(1, 2)
    folded = query_BHLE.reshape(batch, groups, heads // groups * rows, dim)
    return (folded @ key_BGSE.transpose(-1, -2)).reshape(batch, heads, rows, columns)


def repeated_keys(key_BGSE: Tensor, num_heads: int) -> Tensor:
    """Keys of each query head, (B, H, S, E)."""
    group = num_heads // key_BGSE.shape[1]
    return key_BGSE.repeat_interleave(group, dim=1) if group > 1 else key_BGSE


def check_additive_sizes(name: str, vector: Tensor, query_dim: int, key_dim: int) -> None:
    """Raise ShapeError unless queries, keys and the vector of an additive score have the same size."""
    _check_same_dim(name, query_dim, key_dim)
    if vector.shape[-1] != query_dim:
        raise ShapeError(
            f"{name}: vector has shape {tuple(vector.shape)}, but queries and keys have head_dim {query_dim}; "
            f"expected a vector (..., {query_dim})"
        )


def _unit(x: Tensor) -> Tensor:
    """Unit vectors in the direction of x; a zero vector stays zero, with a finite gradient."""
    size = x.detach().abs().amax(-1, keepdim=True)  # divided out first, so that no square overflows or underflows
    scaled = x / torch.where(size > 0, size, 1.0)
    return scaled * scaled.square().sum(-1, keepdim=True).clamp(min=0.5).rsqrt()


def _check_same_dim(name: str, query_dim: int, key_dim: int) -> None:
    if query_dim != key_dim:
        raise ShapeError(
            f"{name}: the query's head_dim is {query_dim} and the key's {key_dim}; they must be equal "
            "(Bilinear scores vectors of different sizes)"
        )
