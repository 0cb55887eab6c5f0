"""Integrated gradients: an attribution with which attention's own can be compared."""

from collections.abc import Callable

import torch
from torch import Tensor

from regard.attention.check import check_integer


def integrated_gradients(
    function: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor, *, steps: int = 32
) -> Tensor:
    """Attribution of a function's value to its inputs, along the straight line from a baseline.

    The attributions sum to function(inputs) - function(baseline), up to the error of the sum over steps, which are the
    points of Gauss-Legendre quadrature.

    Args:
        function: from inputs (steps, L, D) to values (steps,), such as the logit of a class.
        inputs: (L, D), such as the embeddings of a text.
        baseline: (L, D), such as the embeddings of padding.
        steps: points on the line, >= 1.

    Returns:
        (L,): the sum over the features of each token.

    Raises:
        ConfigError: steps below 1.

    Source: Sundararajan et al. 2017, arXiv 1703.01365, equation 1.
    """
    import numpy as np

    check_integer("integrated_gradients", "steps", steps, 1)
    nodes, weights = (torch.from_numpy(x).to(inputs) for x in np.polynomial.legendre.leggauss(steps))
    shares = ((nodes + 1) / 2)[:, None, None]
    points = (baseline + shares * (inputs - baseline)).detach().requires_grad_()
    with torch.enable_grad():
        [gradients] = torch.autograd.grad(function(points).sum(), points)
    mean = (gradients * (weights / 2)[:, None, None]).sum(0)
    attributed: Tensor = ((inputs - baseline) * mean).sum(-1)
    return attributed
