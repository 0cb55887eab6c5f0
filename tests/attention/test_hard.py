"""Hard attention: what is chosen, with which probability, and the three gradients."""

import pytest
import torch

import regard as rg
from regard.errors import ConfigError, UnsupportedError

SAMPLES = [rg.StraightThrough(), rg.Reinforce(), rg.Gumbel()]


def inputs(*, queries: int = 1, keys: int = 3, dim: int = 2, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Query, key and value of one sequence and head."""
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(1, 1, n, dim, generator=generator, dtype=dtype) for n in (queries, keys, keys)]


def test_the_first_largest_score_is_chosen() -> None:
    query, key = torch.tensor([[[[1.0]]]]), torch.tensor([[[[2.0], [3.0], [3.0], [1.0]]]])
    value = torch.arange(4.0).reshape(1, 1, 4, 1)
    for backend in ("reference", "chunked", "native"):
        output, result = rg.attend(
            query, key, value, normalizer=rg.Hard(), backend=backend,
            summary=rg.Summary(top_k=1, log_prob=backend != "native"),
        )  # fmt: skip
        assert output.item() == 1.0
        assert result.top_keys.item() == 1
        if backend == "native":
            continue
        torch.testing.assert_close(result.log_prob.item(), torch.tensor([2.0, 3.0, 3.0, 1.0]).log_softmax(0)[1].item())


def test_samples_have_the_probabilities_of_softmax() -> None:
    query, key, value = inputs(queries=2)
    scores = query @ key.transpose(-1, -2) * 2**-0.5
    many = 4000
    query, key, value = (x.expand(many, -1, -1, -1) for x in (query, key, value))
    for temperature in (1.0, 0.5):
        _, result = rg.attend(
            query, key, value, normalizer=rg.Hard(sample=rg.Reinforce(), temperature=temperature), seed=1,
            summary=rg.Summary(top_k=1),
        )  # fmt: skip
        counts = torch.nn.functional.one_hot(result.top_keys[..., 0], 3).double().mean(0)
        expected = (scores / temperature).softmax(-1)[0]
        assert float((counts - expected).abs().max()) < 4 * (0.25 / many) ** 0.5


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_backend_draws_the_same(sample: object) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 70, 4)
    normalizer = rg.Hard(sample=sample, temperature=0.8)
    options = {"normalizer": normalizer, "pattern": rg.Causal(), "seed": 7}
    backends = ["reference", "chunked", *([] if sample == rg.Gumbel() else ["native"])]
    one, *others = (rg.attend(query, key, value, backend=name, **options) for name in backends)
    for other in others:
        torch.testing.assert_close(one, other)
    again = rg.attend(query, key, value, normalizer=normalizer, pattern=rg.Causal(), seed=8)
    assert not torch.allclose(one, again)


def test_draws_differ_from_those_of_dropout_and_by_default() -> None:
    query, key, value = inputs(queries=30, keys=30)
    first, second = (rg.attend(query, key, value, normalizer=rg.Hard(sample="reinforce")) for _ in range(2))
    assert not torch.equal(first, second)  # a seed of its own each time
    dropped, plain = (
        rg.attend(query, key, value, normalizer=rg.Hard(sample="reinforce"), seed=1, dropout=p) for p in (0.5, 0.0)
    )
    is_kept = (dropped != 0).any(-1)
    torch.testing.assert_close(dropped[is_kept], 2 * plain[is_kept])
    assert 5 < int(is_kept.sum()) < 25


def test_straight_through_has_the_gradient_of_softmax() -> None:
    query, key, value = inputs(queries=4, keys=5)
    incoming = torch.randn(1, 1, 4, 2, dtype=torch.float64)
    temperature = 0.6
    query.requires_grad_()
    hard = rg.attend(
        query, key, value, normalizer=rg.Hard(sample=rg.StraightThrough(), temperature=temperature), seed=3
    )
    soft = rg.attend(query, key, value, score=rg.Dot(scale=2**-0.5 / temperature))
    ours, expected = (torch.autograd.grad(output, query, incoming)[0] for output in (hard, soft))
    torch.testing.assert_close(ours, expected)
    assert not torch.allclose(hard, soft)


def test_reinforce_is_the_gradient_of_the_expectation() -> None:
    """Sum over keys of p f grad(log p) against finite differences of sum p f."""
    query, key, value = inputs()
    reward = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def expectation(query: torch.Tensor) -> torch.Tensor:
        return ((query @ key.transpose(-1, -2))[0, 0, 0] * 2**-0.5).softmax(0) @ reward

    query.requires_grad_()
    estimate, met = torch.zeros_like(query), {}
    for seed in range(40):
        output, result = rg.attend(
            query, key, value, normalizer=rg.Hard(sample=rg.Reinforce()), seed=seed,
            summary=rg.Summary(log_prob=True, top_k=1),
        )  # fmt: skip
        assert not output.requires_grad
        met.setdefault(int(result.top_keys), result.log_prob)
    assert set(met) == {0, 1, 2}
    for chosen, log_prob in met.items():
        (gradient,) = torch.autograd.grad(log_prob, query, torch.ones_like(log_prob))
        estimate += log_prob.detach().exp() * reward[chosen] * gradient
    step = 1e-6
    for i in range(2):
        shift = torch.zeros_like(query)
        shift[..., i] = step
        difference = (expectation(query.detach() + shift) - expectation(query.detach() - shift)) / (2 * step)
        torch.testing.assert_close(estimate[0, 0, 0, i], difference, rtol=1e-6, atol=1e-8)


def test_gumbel_is_the_gradient_of_the_expectation() -> None:
    """The mean over draws of a function of the relaxed output, and of its gradients, with the same draws."""
    many = 50
    query, key, value = (x.expand(many, -1, -1, -1) for x in inputs())
    temperature = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)

    def mean(query: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        normalizer = rg.Hard(sample=rg.Gumbel(), temperature=temperature)
        return rg.attend(query, key, value, normalizer=normalizer, seed=5).square().sum(-1).mean()

    assert torch.autograd.gradcheck(mean, (query.clone().requires_grad_(), temperature))


@pytest.mark.parametrize("sample", SAMPLES)
def test_compiled(sample: object) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 9, 4)
    seed = torch.tensor(11)

    def call(query: torch.Tensor, seed: torch.Tensor, backend: str) -> torch.Tensor:
        return rg.attend(query, key, value, normalizer=rg.Hard(sample=sample), seed=seed, backend=backend)

    for backend in ["chunked"] if sample == rg.Gumbel() else ["chunked", "native"]:
        compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(query, seed, backend), call(query, seed, backend))


SHAPES = [(1, 5, 4), (70, 130, 4), (67, 203, 64)]  # queries, keys, head_dim: one query, several tiles, int8 tiles


@pytest.mark.parametrize(("queries", "keys", "dim"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sample", [None, rg.Reinforce()])
def test_native_copies_the_value_of_the_key(queries: int, keys: int, dim: int, dtype: torch.dtype, sample) -> None:
    """Whole numbers as scores, of which many are equal and all are exact: bitwise the output of the reference."""
    generator = torch.Generator().manual_seed(1)
    query, key = (torch.randint(-2, 3, (2, 4, n, dim), generator=generator).to(dtype) for n in (queries, keys))
    key, value = key[:, :2], torch.randn(2, 2, keys, 3, generator=generator).to(dtype)
    options = {"score": rg.Dot(scale=0.25), "pattern": rg.Causal(), "normalizer": rg.Hard(sample=sample), "seed": 5}
    expected = rg.attend(query, key, value, backend="reference", **options)
    assert torch.equal(rg.attend(query, key, value, backend="native", **options), expected)


@pytest.mark.parametrize("sample", [None, rg.Reinforce(), rg.StraightThrough()])
def test_native_by_rows_batches_and_threads(sample: object) -> None:
    """A row is bitwise the same alone, in a batch and on two threads."""
    generator = torch.Generator().manual_seed(2)
    query, key, value = torch.randn(3, 2, 3, 130, 64, generator=generator)
    options = {"normalizer": rg.Hard(sample=sample, temperature=0.7), "seed": 3, "backend": "native"}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = rg.attend(query, key, value, **options)
        torch.set_num_threads(2)
        assert torch.equal(rg.attend(query, key, value, **options), expected)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(rg.attend(query[:1], key[:1], value[:1], **options), expected[:1])
    some = rg.attend(query[:, :, :70], key, value, query_start=0, **options)
    assert torch.equal(some, expected[:, :, :70])


@pytest.mark.parametrize("pattern", [rg.Dilated(2, left=20, right=3), rg.Full()])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_native_gradients_of_the_values(pattern: object, dropout: float) -> None:
    """First and second derivatives go to the chosen values, with the factor of dropout."""
    query, key, value = inputs(queries=40, keys=40)
    value.requires_grad_()
    query.requires_grad_()
    options = {"normalizer": rg.Hard(sample="reinforce"), "seed": 9, "pattern": pattern, "dropout": dropout}
    results = []
    for backend in ("reference", "native"):
        output = rg.attend(query, key, value, backend=backend, **options)
        (grad,) = torch.autograd.grad(output.square().sum(), value, create_graph=True)
        results.append((output, grad, *torch.autograd.grad(grad.square().sum(), value)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        assert torch.equal(rg.attend(query, key, value, backend="native", **options), results[1][0])


def test_layers_sample_in_training_only() -> None:
    torch.manual_seed(0)
    layer = rg.MultiHeadAttention(8, 2, normalizer=rg.Hard(sample="straight-through"))
    x = torch.randn(2, 12, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    config = rg.AttentionConfig.from_plain({"normalizer": {"kind": "hard", "sample": "reinforce", "temperature": 0.5}})
    assert config.normalizer == rg.Hard(sample=rg.Reinforce(), temperature=0.5)
    assert rg.AttentionConfig.from_plain(config.to_plain()) == config


def test_misuse() -> None:
    query, key, value = inputs()
    with pytest.raises(ConfigError, match="unknown sample 'gumble'"):
        rg.Hard(sample="gumble")
    with pytest.raises(ConfigError, match="sample=3 is not a GradientEstimator"):
        rg.Hard(sample=3)
    with pytest.raises(ConfigError, match=r"temperature=0\.0 must be above 0"):
        rg.Hard(temperature=0.0)
    with pytest.raises(ConfigError, match="noise is given without a sample"):
        rg.Hard(noise=torch.zeros(1, 1, 1, 3))
    with pytest.raises(
        UnsupportedError, match=r"log_prob=True\) is undefined for Hard.*a relaxed sample chooses no key"
    ):
        rg.attend(query, key, value, normalizer=rg.Hard(sample="gumbel"), summary=rg.Summary(log_prob=True))
    with pytest.raises(UnsupportedError, match="Softmax chooses no key"):
        rg.attend(query, key, value, summary=rg.Summary(log_prob=True))
    with pytest.raises(UnsupportedError, match="its weights are a choice"):
        rg.attend(query, key, value, normalizer=rg.Hard(), summary=rg.Summary(entropy=True))
    for normalizer, summary, reason in (
        (rg.Hard(sample="gumbel"), None, "computes samples of one key only, not Hard"),
        (
            rg.Hard(sample="reinforce", noise=torch.zeros(1, 1, 1, 3, dtype=torch.float64)),
            None,
            "draws its noise from the seed only",
        ),
        (rg.Hard(), rg.Summary(log_prob=True), "summary: does not compute log_prob"),
    ):
        with pytest.raises(UnsupportedError, match=reason):
            rg.attend(query, key, value, normalizer=normalizer, summary=summary, backend="native")
