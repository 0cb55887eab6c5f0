"""float32 of trained Transformers, in which some features are a thousand times as large as the others.

Errors against float64 are at most 4 times those of PyTorch's own attention and linear maps, in any instruction set:
of the outputs and gradients as a whole, and of the features that are not outliers.

Source: such features: Sun et al. 2024, "Massive Activations in Large Language Models", arXiv 2402.17762, section 2.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import regard as rg
from regard.layers.linear import has_int8_split, int8_split, int8_split_linear, linear

LENGTH, SIZE, AT = 256, 64, 7  # queries and keys, features, and the outlier among them
MOST = 4.0  # times PyTorch's error
# By what the outlier is multiplied in queries, keys, values and the output's gradient.
ATTENTION = {
    "none": (1, 1, 1, 1),
    "keys, a little": (1 / 30, 30, 1, 1),
    "keys": (1e-3, 1e3, 1, 1),
    "keys, far": (1e-4, 1e4, 1, 1),
    "queries": (1e3, 1e-3, 1, 1),
    "values, a little": (1, 1, 30, 1),
    "values": (1, 1, 1e4, 1),
    "values, and their gradients": (1, 1, 1e4, 1e-4),
    "gradients": (1, 1, 1, 1e4),
}


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by its definition."""
    return (query @ key.mT * SIZE**-0.5).softmax(-1) @ value


def with_gradients(run, inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = run(*leaves)
    output.backward(gradient)
    return [output.detach(), *(x.grad for x in leaves)]


def errors(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """The largest error of all features, and of those that are not the outlier, each over the largest number."""
    off, rest = (found.double() - truth).abs(), torch.arange(truth.shape[-1]) != AT
    return tuple(float(x.max() / y.max()) for x, y in ((off, truth.abs()), (off[..., rest], truth[..., rest].abs())))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    torch.manual_seed(0)
    *inputs, gradient = torch.randn(4, 1, 2, LENGTH, SIZE)
    for x, factor in zip((*inputs, gradient), ATTENTION[name], strict=True):
        x[..., AT] *= factor
    truth = with_gradients(plain, [x.double() for x in inputs], gradient.double())
    theirs = [with_gradients(run, inputs, gradient) for run in (functional.scaled_dot_product_attention, plain)]
    ours = with_gradients(lambda *x: rg.attend(*x, backend="native"), inputs, gradient)
    for part, mine, expected, *others in zip(("output", "query", "key", "value"), ours, truth, *theirs, strict=True):
        limits = [max(pair) for pair in zip(*(errors(x, expected) for x in others), strict=True)]
        for found, limit in zip(errors(mine, expected), limits, strict=True):
            assert found <= MOST * limit, (part, found, limit)


@pytest.mark.parametrize("factor", [1, 30, 3e3, 1e5])
@pytest.mark.parametrize("size", [64, 384, 768])
def test_linear(size: int, factor: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(256, size), torch.randn(96, size) * size**-0.5
    x[:, AT] *= factor
    weight[:, AT] /= factor
    truth = functional.linear(x.double(), weight.double())
    theirs = functional.linear(x, weight)
    mine = int8_split_linear(x, int8_split(weight), weight, None) if has_int8_split() else linear(x, weight)
    assert errors(mine, truth)[0] <= MOST * errors(theirs, truth)[0]
