"""The layer against PyTorch's, against itself step by step, and against its formula."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import regard as rg

BATCH, QUERIES, KEYS, EMBED_DIM, HEADS = 3, 5, 7, 12, 4


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def torch_layer(**options: object) -> nn.MultiheadAttention:
    module = nn.MultiheadAttention(EMBED_DIM, HEADS, batch_first=True, dtype=torch.float64, **options)
    with torch.no_grad():
        for x in module.parameters():  # biases too, which start at 0
            x.normal_()
    return module


@pytest.mark.parametrize("backend", ["auto", "reference", "chunked", "sdpa"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dims", [{}, {"kdim": 11}, {"vdim": 13}, {"kdim": 11, "vdim": 13}], ids=str)
def test_cross_attention_is_torchs(dims: dict[str, int], bias: bool, backend: str) -> None:
    module = torch_layer(bias=bias, **dims)
    layer = rg.MultiHeadAttention.from_torch(module)
    layer.backend = backend
    query, key = draw(BATCH, QUERIES, EMBED_DIM), draw(BATCH, KEYS, dims.get("kdim", EMBED_DIM))
    value = draw(BATCH, KEYS, dims.get("vdim", EMBED_DIM))
    torch.testing.assert_close(layer(query, key, value), module(query, key, value)[0], rtol=0, atol=1e-12)


def test_self_attention_and_weights_are_torchs() -> None:
    module = torch_layer()
    layer, x = rg.MultiHeadAttention.from_torch(module), draw(BATCH, QUERIES, EMBED_DIM)
    output, weights = module(x, x, x, average_attn_weights=False)
    mine, result = layer(x, summary=rg.Summary(weights=True))
    torch.testing.assert_close(mine, output, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.weights, weights, rtol=0, atol=1e-12)


def test_sequence_first_modules_have_the_same_weights() -> None:
    module = torch_layer()
    layer, x = rg.MultiHeadAttention.from_torch(module), draw(BATCH, QUERIES, EMBED_DIM)
    module.batch_first = False
    turned = x.transpose(0, 1)
    torch.testing.assert_close(layer(x).transpose(0, 1), module(turned, turned, turned)[0], rtol=0, atol=1e-12)


def test_masks_are_torchs() -> None:
    """The polarity of its masks enters through `Mask.from_hidden`; floats are added to the scores."""
    module = torch_layer()
    layer = rg.MultiHeadAttention.from_torch(module)
    query, key = draw(BATCH, QUERIES, EMBED_DIM), draw(BATCH, KEYS, EMBED_DIM)
    padding = torch.arange(KEYS) >= torch.tensor([7, 4, 6])[:, None]
    hidden = torch.rand(QUERIES, KEYS) < 0.4
    hidden[:, 0] = False
    added = draw(QUERIES, KEYS)
    padded, masked = rg.Mask.from_hidden(padding[:, None, None]), rg.Mask.from_hidden(hidden)
    pairs = [
        ({"key_padding_mask": padding}, {"pattern": padded}),
        ({"key_padding_mask": padding}, {"pattern": rg.KeyLengths(torch.tensor([7, 4, 6]))}),
        ({"attn_mask": hidden}, {"pattern": masked}),
        ({"attn_mask": hidden, "key_padding_mask": padding}, {"pattern": masked & padded}),
        ({"attn_mask": added}, {"bias": added}),
    ]
    for theirs, mine in pairs:
        expected = module(query, key, key, need_weights=False, **theirs)[0]
        torch.testing.assert_close(layer(query, key, **mine), expected, rtol=0, atol=1e-12)


def test_gradients_are_torchs() -> None:
    module = torch_layer(kdim=11)
    layer = rg.MultiHeadAttention.from_torch(module)
    query, key, value = draw(BATCH, QUERIES, EMBED_DIM), draw(BATCH, KEYS, 11), draw(BATCH, KEYS, EMBED_DIM)
    layer(query, key, value).square().sum().backward()
    module(query, key, value)[0].square().sum().backward()
    torch.testing.assert_close(layer.query_proj.weight.grad, module.q_proj_weight.grad)
    torch.testing.assert_close(layer.key_proj.weight.grad, module.k_proj_weight.grad)
    torch.testing.assert_close(layer.value_proj.bias.grad, module.in_proj_bias.grad[2 * EMBED_DIM :])
    torch.testing.assert_close(layer.output_proj.weight.grad, module.out_proj.weight.grad)


def test_from_torch_takes_over_copies_and_settings() -> None:
    module = torch_layer(dropout=0.25).eval()
    layer = rg.MultiHeadAttention.from_torch(module)
    assert (layer.dropout, layer.training, layer.query_proj.weight.dtype) == (0.25, False, torch.float64)
    with torch.no_grad():
        module.in_proj_weight.zero_()
    assert layer.query_proj.weight.abs().sum() > 0


CAUSAL = rg.Causal()
CACHED = {
    "rotary": {"positions": rg.Rotary(4), "pattern": CAUSAL},
    "window": {"positions": rg.Rotary(4, interleaved=False), "pattern": CAUSAL & rg.SlidingWindow(left=3)},
    "grouped": {"positions": rg.Rotary(4), "num_kv_heads": 2, "query_key_norm": True, "pattern": CAUSAL},
    "alibi": {"position_bias": rg.ALiBiSlopes(), "pattern": CAUSAL & rg.SlidingWindow(left=5)},
    "buckets": {"position_bias": rg.LearnedRelativeBias(8, bidirectional=False, max_distance=9), "pattern": CAUSAL},
    "location": {"score": rg.LearnedLocation(23), "pattern": CAUSAL & rg.SlidingWindow(left=4)},
    "entmax": {"normalizer": rg.LearnedEntmax(), "pattern": CAUSAL & rg.Dilated(dilation=2, left=3)},
}


@pytest.mark.parametrize("steps", [[1] * 23, [14] + [1] * 9, [5, 1, 9, 8]], ids=["one by one", "prompt", "prompts"])
@pytest.mark.parametrize("name", CACHED)
def test_decoding_is_the_whole_sequence(name: str, steps: list[int]) -> None:
    layer = rg.MultiHeadAttention(16, 4, **CACHED[name]).double().eval()
    x = draw(BATCH, 23, 16)
    cache = rg.KeyValueCache.for_pattern(layer.pattern)
    with torch.no_grad():
        pieces = [layer(part, cache=cache) for part in x.split(steps, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, 1), layer(x), rtol=0, atol=1e-12)


def test_cross_attention_keeps_its_memory() -> None:
    layer = rg.MultiHeadAttention(EMBED_DIM, HEADS, key_dim=8).double().eval()
    x, memory = draw(BATCH, QUERIES, EMBED_DIM), draw(BATCH, KEYS, 8)
    cache, lengths = rg.KeyValueCache(), rg.KeyLengths(torch.tensor([7, 4, 6]))
    with torch.no_grad():
        first = layer(x[:, :1], memory, pattern=lengths, cache=cache)
        others = [layer(x[:, i : i + 1], memory[:, :0], pattern=lengths, cache=cache) for i in range(1, QUERIES)]
        torch.testing.assert_close(
            torch.cat([first, *others], 1), layer(x, memory, pattern=lengths), rtol=0, atol=1e-12
        )


def test_rotary_follows_the_starts_of_the_call() -> None:
    """Where all stands later, nothing changes; where the queries alone do, each is as if in its place."""
    layer = rg.MultiHeadAttention(16, 4, positions=rg.Rotary(4), pattern=CAUSAL).double()
    x = draw(BATCH, 9, 16)
    whole = layer(x)
    torch.testing.assert_close(layer(x, query_start=40, key_start=40), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(x[:, 6:], x), whole[:, 6:], rtol=0, atol=1e-12)
    starts = torch.tensor([0, 6, 3])
    rows = torch.stack([x[i, s : s + 3] for i, s in enumerate(starts)])
    expected = torch.stack([whole[i, s : s + 3] for i, s in enumerate(starts)])
    torch.testing.assert_close(layer(rows, x, query_start=starts), expected, rtol=0, atol=1e-12)


def test_the_layer_is_its_formula() -> None:
    """Head by head, with grouped heads, query-key norm and a head size of its own."""
    layer = rg.MultiHeadAttention(
        EMBED_DIM, 6, num_kv_heads=2, head_dim=5, query_key_norm=True, score=rg.Cosine(3.0), normalizer=rg.Sparsemax()
    ).double()
    with torch.no_grad():
        for x in layer.parameters():
            x.normal_()
    x = draw(BATCH, QUERIES, EMBED_DIM)

    def normed(y: Tensor, norm: nn.RMSNorm) -> Tensor:
        return y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight

    heads = []
    for h in range(6):
        own, shared = slice(5 * h, 5 * h + 5), slice(5 * (h // 3), 5 * (h // 3) + 5)
        q = normed(layer.query_proj(x)[..., own], layer.query_norm)
        k = normed(layer.key_proj(x)[..., shared], layer.key_norm)
        v = layer.value_proj(x)[..., shared]
        heads.append(
            rg.attend(q[:, None], k[:, None], v[:, None], score=rg.Cosine(3.0), normalizer=rg.Sparsemax())[:, 0]
        )
    torch.testing.assert_close(layer(x), layer.output_proj(torch.cat(heads, -1)), rtol=0, atol=1e-12)


def test_the_calls_pattern_joins_the_layers() -> None:
    layer = rg.MultiHeadAttention(EMBED_DIM, HEADS, pattern=CAUSAL)
    plain = rg.MultiHeadAttention(EMBED_DIM, HEADS)
    plain.load_state_dict(layer.state_dict())
    x, lengths = torch.randn(BATCH, QUERIES, EMBED_DIM), rg.KeyLengths(torch.tensor([5, 1, 3]))
    assert torch.equal(layer(x, pattern=lengths), plain(x, pattern=CAUSAL & lengths))
    assert torch.equal(layer(x), plain(x, pattern=CAUSAL))


def test_dropout_is_for_training() -> None:
    layer = rg.MultiHeadAttention(EMBED_DIM, HEADS, dropout=0.5)
    x = torch.randn(BATCH, QUERIES, EMBED_DIM)
    assert torch.equal(layer(x, seed=3), layer(x, seed=3))
    assert not torch.equal(layer(x, seed=3), layer(x, seed=4))
    layer.eval()
    assert torch.equal(layer(x, seed=3), layer(x, seed=4))


def test_projections_start_as_xavier() -> None:
    """Uniform within sqrt(6 / (inputs + outputs)), so of variance 2 / (inputs + outputs); biases 0, gains 1."""
    layer = rg.MultiHeadAttention(256, 4, num_kv_heads=1, query_key_norm=True)
    for projection in (layer.query_proj, layer.key_proj, layer.value_proj, layer.output_proj):
        bound = (6 / sum(projection.weight.shape)) ** 0.5
        assert projection.weight.abs().max() <= bound
        assert float(projection.weight.detach().var()) == pytest.approx(bound**2 / 3, rel=0.05)
        assert not projection.bias.any()
    assert torch.equal(layer.key_norm.weight, torch.ones(64))


def test_a_whole_layer_trains() -> None:
    """To say which token came first, which needs every one of its parameters but the key bias to move."""
    torch.manual_seed(0)
    layer = rg.MultiHeadAttention(16, 2, positions=rg.Rotary(8), query_key_norm=True, normalizer=rg.LearnedEntmax())
    x = torch.randn(8, 6, 16)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = (layer(x) - x[:, :1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("name", CACHED)
def test_layers_can_be_copied_and_saved(name: str) -> None:
    layer = rg.MultiHeadAttention(16, 4, **CACHED[name]).eval()
    x = torch.randn(BATCH, QUERIES, 16)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))


def test_it_says_what_it_is() -> None:
    layer = rg.MultiHeadAttention(8, 4, num_kv_heads=2, pattern=CAUSAL, normalizer=rg.LearnedSink())
    assert layer.extra_repr() == "heads=(4, 2), head_dim=2, dropout=0.0, score=Dot(), pattern=Causal(), backend=auto"
    assert "LearnedSink(logit=0.0)" in str(layer)


def test_the_output_may_have_no_bias_of_its_own() -> None:
    layer = rg.MultiHeadAttention(6, 2, output_bias=False)
    assert layer.output_proj.bias is None
    assert layer.query_proj.bias is not None
    assert layer(torch.randn(1, 3, 6)).shape == (1, 3, 6)
