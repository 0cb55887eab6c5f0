"""Location-aware score: an additive score that also sees where the previous query attended."""

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.check import check_tensor
from regard.attention.score import Score, check_additive_sizes, repeated_keys
from regard.attention.value import tensor_field, value
from regard.errors import ShapeError


@final
@value
class LocationAware(Score):
    """Additive score with location features: v . tanh(q + k + U f), for projected queries and keys.

    Chorowski's w^T tanh(W s + V h + U f + b) is this with v = w, query = W s + b and key = V h. The features f of a
    query and a key are a convolution of the previous query's weights around that key: `from_previous` makes the score
    from these weights. (`Location` is another thing: a score by the key's position alone.)

    Args:
        vector: v, (E,) or (H, E).
        features: f, (B, H, L, S, F), or smaller as it broadcasts: (B, H, 1, S, F) for one query, or shared by all.
        projection: U, (F, E) or (H, F, E).

    Raises:
        ShapeError: a tensor with a wrong number of dimensions, or F that differs; in a call, sizes that do not match
            its queries and keys.

    Source: Chorowski et al. 2015, arXiv 1506.07503, section 2.2, equations 8 and 9.
    """

    vector: Tensor = tensor_field("Hi")
    features: Tensor = tensor_field("BHLSi")
    projection: Tensor = tensor_field("Hij")

    def __post_init__(self) -> None:
        expected = {
            "vector": ((1, 2), "(head_dim,) or (heads, head_dim)"),
            "features": ((2, 3, 4, 5), "one that broadcasts to (batch, heads, queries, keys, features)"),
            "projection": ((2, 3), "(features, head_dim) or (heads, features, head_dim)"),
        }
        for name, (dims, shape) in expected.items():
            tensor = getattr(self, name)
            check_tensor("LocationAware", name, tensor)
            if tensor.dim() not in dims:
                raise ShapeError(f"LocationAware: {name} has shape {tuple(tensor.shape)}; expected {shape}")
        if self.features.shape[-1] != self.projection.shape[-2]:
            raise ShapeError(
                f"LocationAware: features have shape {tuple(self.features.shape)}, but projection has shape "
                f"{tuple(self.projection.shape)}; expected a projection (..., {self.features.shape[-1]}, head_dim)"
            )

    @staticmethod
    def from_previous(previous: Tensor, *, filters: Tensor, projection: Tensor, vector: Tensor) -> "LocationAware":
        """Make the score from the previous query's weights: f_j = sum over d of filters_d * previous_(j + d - r // 2).

        Weights before the first key and after the last one are 0.

        Args:
            previous: weights of the previous query, (B, H, L, S) or smaller as it broadcasts; (B, H, 1, S) in a step of
                decoding. They get their gradient.
            filters: F filters of r taps, r odd, (F, r) or (H, F, r).
            projection: as for `LocationAware`.
            vector: as for `LocationAware`.

        Returns:
            The score.

        Raises:
            ShapeError: tensors with a wrong number of dimensions, an even r, or as for `LocationAware`.

        >>> previous = torch.tensor([0.0, 1.0, 0.0, 0.0])                     # the second key
        >>> shift = torch.tensor([[1.0, 0.0, 0.0]])                           # one filter: the key before
        >>> ones = torch.ones(1)
        >>> LocationAware.from_previous(previous, filters=shift, projection=ones[None], vector=ones).features[:, 0]
        tensor([0., 0., 1., 0.])
        """
        return LocationAware(vector, _convolved(previous, filters), projection)

    def scores(self, query_BHLE: Tensor, key_BGSE: Tensor) -> Tensor:
        dtype = query_BHLE.dtype
        key_BHSE = repeated_keys(key_BGSE, query_BHLE.shape[1])
        hidden_BHLSE = torch.tanh(query_BHLE[:, :, :, None] + key_BHSE[:, :, None] + self._projected(dtype))
        vector_HE1 = self.vector.to(dtype).reshape(-1, 1, self.vector.shape[-1], 1)
        return (hidden_BHLSE @ vector_HE1).squeeze(-1)

    @property
    def by_query(self) -> bool:
        """Whether the features differ from query to query."""
        return self.features.dim() >= 3 and self.features.shape[-3] != 1

    def located(self, key_BGSE: Tensor, num_heads: int) -> Tensor:
        """Keys plus projected features, (B, H, S, E): `Additive(vector)` of them is this score, unless `by_query`."""
        return repeated_keys(key_BGSE, num_heads) + self._projected(key_BGSE.dtype).squeeze(-3)

    def check(self, num_heads: int, query_dim: int, key_dim: int) -> None:
        check_additive_sizes("LocationAware", self.vector, query_dim, key_dim)
        if self.projection.shape[-1] != query_dim:
            raise ShapeError(
                f"LocationAware: projection has shape {tuple(self.projection.shape)}, but queries and keys have "
                f"head_dim {query_dim}; expected a projection (..., {query_dim})"
            )

    def width(self, head_dim: int) -> int:
        return 2 * head_dim

    def _projected(self, dtype: torch.dtype) -> Tensor:
        """U f, (B, H, L, S, E) or as it broadcasts, with at least the dimensions (L, S, E)."""
        features = self.features if self.features.dim() > 2 else self.features[None]
        return features.to(dtype) @ self.projection.to(dtype).unsqueeze(-3)


def _convolved(previous: Tensor, filters: Tensor) -> Tensor:
    """Features (..., S, F) of weights (..., S): their convolution with each filter."""
    for name, tensor, dims, shape in (
        ("previous", previous, (1, 2, 3, 4), "one that broadcasts to (batch, heads, queries, keys)"),
        ("filters", filters, (2, 3), "(features, taps) or (heads, features, taps)"),
    ):
        check_tensor("LocationAware", name, tensor)
        if tensor.dim() not in dims:
            raise ShapeError(f"LocationAware: {name} has shape {tuple(tensor.shape)}; expected {shape}")
    taps = filters.shape[-1]
    if taps % 2 == 0:
        raise ShapeError(
            f"LocationAware: filters have shape {tuple(filters.shape)}, {taps} taps; expected an odd number, so that "
            "there is one for the key itself"
        )
    dtype = torch.promote_types(previous.dtype, filters.dtype)
    previous, filters = previous.to(dtype), filters.to(dtype)
    if previous.numel() == 0 or filters.numel() == 0:  # which conv1d refuses
        return previous.new_zeros(*previous.shape, filters.shape[-2])
    if filters.dim() == 2:
        features = functional.conv1d(previous.reshape(-1, 1, previous.shape[-1]), filters[:, None], padding=taps // 2)
        return features.mT.reshape(*previous.shape, len(filters))
    heads, count, _ = filters.shape
    previous = previous.reshape((1,) * (4 - previous.dim()) + tuple(previous.shape))
    batch, groups, rows, keys = previous.shape
    if groups not in (1, heads):
        raise ShapeError(
            f"LocationAware: filters have shape {tuple(filters.shape)}, but previous has shape "
            f"{tuple(previous.shape)}; expected {heads} heads, or 1"
        )
    by_row = previous.expand(-1, heads, -1, -1).transpose(1, 2).reshape(batch * rows, heads, keys)
    features = functional.conv1d(by_row, filters.reshape(heads * count, 1, taps), padding=taps // 2, groups=heads)
    return features.reshape(batch, rows, heads, count, keys).permute(0, 2, 1, 4, 3)
