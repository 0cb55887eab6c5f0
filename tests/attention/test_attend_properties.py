"""The operator over random shapes, strides and values: what goes by tiles equals the dense one in float64.

`make fuzz` tries many more of them, other ones each time.
"""

import os

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import regard as rg
from regard.attention.bias import Bias
from regard.attention.engine import tiling
from regard.attention.normalizer import Normalizer
from regard.attention.score import Score
from tests.attention.strategies import patterns

EXAMPLES = int(os.environ.get("REGARD_FUZZ", "0"))
BOUND = 1e-10  # float64, sums of at most 97 terms of size about 1; entmax's threshold is found to about 1e-15


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value with strides of many kinds."""
    batch, groups, group = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    length, keys = draw(st.sampled_from([1, 2, 5, 13, 40, 58])), draw(st.sampled_from([1, 3, 8, 29, 40, 97]))
    dims, values = draw(st.sampled_from([1, 3, 8])), draw(st.sampled_from([1, 2, 5]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def make(*shape: int) -> Tensor:
        kind = draw(st.sampled_from(["plain", "transposed", "sliced", "expanded"]))
        b, h, n, e = shape
        if kind == "transposed":  # (B, L, H, E), as layers make them
            return torch.randn(b, n, h, e, generator=generator, dtype=torch.float64).transpose(1, 2)
        if kind == "sliced":
            return torch.randn(b, h, 2 * n, e + 3, generator=generator, dtype=torch.float64)[:, :, ::2, 1 : e + 1]
        if kind == "expanded":
            return torch.randn(1, h, n, e, generator=generator, dtype=torch.float64).expand(shape)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return (
        make(batch, groups * group, length, dims),
        make(batch, groups, keys, dims),
        make(batch, groups, keys, values),
    )


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def scores(draw: st.DrawFn, heads: int, keys: int, dims: int) -> Score:
    seed = draw(st.integers(0, 99))
    return draw(
        st.sampled_from(
            [
                rg.Dot(),
                rg.Dot(scale=0.3, softcap=2.0),
                rg.Dot(scale=numbers(seed, heads)),
                rg.Cosine(3.0),
                rg.Bilinear(numbers(seed, heads, dims, dims)),
                rg.Additive(numbers(seed, dims)),
                rg.Additive(numbers(seed, heads, dims), activation="relu"),
                rg.Location(numbers(seed, heads, keys + 2, dims)),
                rg.LocationAware(numbers(seed, dims), numbers(seed, keys, 2), numbers(seed, heads, 2, dims)),
            ]
        )
    )


@st.composite
def normalizers(draw: st.DrawFn, batch: int, heads: int, queries: int, keys: int) -> Normalizer:
    seed = draw(st.integers(0, 99))
    center = numbers(seed, batch, heads, queries) * keys / 2
    return draw(
        st.sampled_from(
            [
                rg.Softmax(),
                rg.Softmax(sink=numbers(seed, heads)),
                rg.Softmax(prior=rg.Gaussian(center, 2.0)),
                rg.Softmax(sink=numbers(seed), prior=rg.Gaussian(center[0, 0], numbers(seed, heads).exp())),
                rg.Sparsemax(),
                rg.Entmax(1.5),
                # Up to 4: beyond, small weights react to the last digit of a score, which differs between backends.
                rg.Entmax(1.1 + numbers(seed, heads).square().clamp(max=2.9)),
                rg.Sigmoid(-1.0),
                rg.Sigmoid(numbers(seed, heads)),
                rg.NormalizedSigmoid(numbers(seed, heads)),
            ]
        )
    )


@st.composite
def biases(draw: st.DrawFn, batch: int, heads: int, queries: int, keys: int) -> Bias | None:
    seed = draw(st.integers(0, 99))
    shape = tuple(draw(st.sampled_from([1, n])) for n in (batch, heads, queries, keys))
    return draw(
        st.sampled_from(
            [
                None,
                rg.TensorBias(numbers(seed, *shape)),
                rg.TensorBias(numbers(seed, keys)),
                rg.ALiBi(numbers(seed, heads).exp()),
                rg.RelativeBias(numbers(seed, 8, heads), max_distance=16),
                rg.RelativeBias(numbers(seed, 6, heads), bidirectional=False, max_distance=20),
            ]
        )
    )


@pytest.mark.parametrize("backend", ["chunked", "native"])
@settings(
    max_examples=EXAMPLES or 50,
    deadline=None,
    derandomize=not EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_it_is_the_reference(backend: str, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    query, key, value = data.draw(inputs(), "inputs")
    batch, heads, queries, dims = query.shape
    keys = key.shape[2]
    spec = rg.AttentionSpec(
        score=data.draw(scores(heads, keys, dims), "score"),
        normalizer=data.draw(normalizers(batch, heads, queries, keys), "normalizer"),
        pattern=data.draw(patterns(batch, heads, queries, keys, depth=2), "pattern"),
        bias=data.draw(biases(batch, heads, queries, keys), "bias"),
        dropout=data.draw(st.sampled_from([0.0, 0.0, 0.4]), "dropout"),
    )
    assume(not (backend == "native" and isinstance(spec.normalizer, rg.NormalizedSigmoid)))  # refused by name
    starts = st.integers(0, 40)
    start = data.draw(
        st.one_of(starts, st.lists(starts, min_size=batch, max_size=batch).map(torch.tensor)), "query_start"
    )
    summary = {"expected_key": True, "key_mass": True, "grid": (1, 1), "top_k": 3, "weights": True}
    has = spec.normalizer
    summary["entropy"], summary["log_sum_exp"] = has.no_entropy is None, has.no_log_sum_exp is None
    tile = data.draw(st.sampled_from([1, 50, 400, 5000]), "numbers in a tile")
    options = {
        "seed": 5,
        "query_start": start,
        "key_start": data.draw(st.integers(0, 2)),
        "summary": rg.Summary(**summary),
    }

    expected, expected_seen = rg.attend(query, key, value, **spec.arguments(), **options, backend="reference")
    monkeypatch.setattr(tiling, "TILE", tile * batch * heads)
    output, result = rg.attend(query, key, value, **spec.arguments(), **options, backend=backend)

    close(output, expected)
    assert torch.isfinite(output).all()
    leaves = [x.detach().requires_grad_() for x in (query, key, value)]
    incoming, found = numbers(3, *output.shape), []
    for name in (backend, "reference"):
        again, _ = rg.attend(*leaves, **spec.arguments(), **options, backend=name)
        found.append(torch.autograd.grad(again, leaves, incoming, materialize_grads=True))
    # With alpha above 2 they grow without bound towards the threshold.
    bound = 1e-6 if isinstance(spec.normalizer, rg.Entmax) else BOUND
    for mine, right in zip(*found, strict=True):
        close(mine, right, bound)
    for name in (
        "expected_key",
        "key_variance",
        "key_mass",
        "grid",
        "weights",
        "top_weights",
        "entropy",
        "log_sum_exp",
    ):
        if getattr(expected_seen, name) is not None:
            close(getattr(result, name), getattr(expected_seen, name))
    # Which key is named may differ where two weigh the same; its weight may not.
    named = result.top_keys >= 0
    assert torch.equal(named, expected_seen.top_keys >= 0)
    column = (result.top_keys - options["key_start"]).clamp(min=0)
    close(torch.where(named, result.weights.gather(-1, column), 0.0), result.top_weights)


def close(x: Tensor, expected: Tensor, bound: float = BOUND) -> None:
    torch.testing.assert_close(
        x, expected, rtol=bound, atol=bound * max(1.0, float(expected.nan_to_num(0, 0, 0).abs().max()))
    )
