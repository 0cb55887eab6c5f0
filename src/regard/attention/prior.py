"""Priors: factors on the weights after normalization, without renormalizing."""

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from regard.attention.check import check_number, check_tensor, smallest
from regard.attention.value import Value, per_head, tensor_field, value
from regard.errors import ConfigError, ShapeError


class Prior(Value, ABC):
    """Base class of the priors."""

    @abstractmethod
    def factor(self, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype) -> Tensor:
        """Factors that broadcast to (B, H, L, S), for queries and keys at the given positions."""


@final
@value
class Gaussian(Prior):
    """Gaussian window around a center for each query: exp(-(key - center)^2 / (2 sigma^2)).

    With sigma = D / 2 and the pattern `Around(center, left=D, right=D)` it is Luong's predictive local attention; the
    center gets its gradient through this prior.

    Args:
        center: positions, floats, broadcast to (B, H, L).
        sigma: standard deviation in positions, a number > 0, or a tensor (H,) or ().

    Raises:
        ConfigError: a sigma that is not positive.
        ShapeError: a center that is not floating point of one to three dimensions.

    Source: Luong et al. 2015, arXiv 1508.04025, section 3.2, equation 10.
    """

    center: Tensor = tensor_field("BHL")
    sigma: float | Tensor = tensor_field("H")

    def __post_init__(self) -> None:
        check_number("Gaussian", "sigma", self.sigma, " above 0, in positions")
        if not smallest(self.sigma) > 0:
            raise ConfigError(f"Gaussian: sigma={smallest(self.sigma)} must be above 0, in positions")
        check_tensor("Gaussian", "center", self.center)
        if not self.center.is_floating_point() or not 0 < self.center.dim() <= 3:
            raise ShapeError(
                f"Gaussian: center is {self.center.dtype} of shape {tuple(self.center.shape)}; expected floats that "
                "broadcast to (batch, heads, queries)"
            )

    def factor(self, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype) -> Tensor:
        distance = key_S - self.center.to(dtype)[..., None]
        factor = torch.exp(-0.5 * (distance / per_head(self.sigma, dtype)).square())
        return factor.reshape((1,) * (4 - factor.dim()) + tuple(factor.shape))
