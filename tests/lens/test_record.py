"""The recorder sees what the attentions did, and changes no bit of what the model gives."""

import copy
import threading

import pytest
import torch
from torch import nn

import regard as rg
from regard.lens.record import record
from tests.lens.models import PATHS, model
from tests.models.inputs import lengths_of

SOURCE = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]])
TARGET = torch.tensor([[1, 11, 12], [1, 13, 14]])


@pytest.mark.parametrize("name", PATHS)
def test_every_attention_is_seen_and_no_bit_of_the_output_changes(name: str) -> None:
    module = model(name)
    full = SOURCE[:1].expand(2, -1)
    with torch.no_grad():
        plain = [module(x, lengths_of(x), TARGET).logits for x in (full, SOURCE)]
        with record(module):
            assert torch.equal(module(full, lengths_of(full), TARGET).logits, plain[0])
        with record(module, weights=True) as recording:
            recorded = module(SOURCE, lengths_of(SOURCE), TARGET).logits
    torch.testing.assert_close(recorded, plain[1], rtol=0, atol=1e-5)  # padding is not packed away while recorded
    assert sorted(recording) == sorted(PATHS[name])
    for path, attention in recording.items():
        keys = 3 if path.startswith("decoder") and "self" in path else 5
        rows = 5 if path.startswith("encoder") else 3
        assert attention.shape[0] == 2
        assert attention.weights.shape[2:] == (rows, keys)
        assert torch.allclose(attention.weights.sum(-1)[0], torch.ones(rows), atol=1e-5)
        if "cross" in path:
            assert bool((attention.weights[1, ..., 3:] == 0).all())  # padding
        assert attention.error < 1e-6


@pytest.mark.parametrize("name", PATHS)
def test_steps_are_joined_to_what_the_whole_target_gives(name: str) -> None:
    module = model(name)
    with torch.no_grad():
        memory = module.encode(SOURCE, lengths_of(SOURCE))
        with record(module, weights=True) as whole:
            module.decode(TARGET, memory)
        with record(module, weights=True) as steps:
            state = module.start(memory)
            for t in range(TARGET.shape[1]):
                module.advance(TARGET[:, t, None], state)
    assert sorted(steps) == sorted(whole)
    for path in whole:
        for field in ("weights", "grid", "entropy", "key_mass", "top_weights"):
            torch.testing.assert_close(getattr(steps[path], field), getattr(whole[path], field), rtol=0, atol=1e-5)


def test_summaries_are_those_of_the_weights() -> None:
    torch.manual_seed(3)
    layer = rg.MultiHeadAttention(8, 2, pattern=rg.Causal())
    with torch.no_grad(), record(layer, grid=4, top=3, weights=True) as recording:
        layer(torch.randn(2, 13, 8))
    attention = recording[""]
    weights = attention.weights
    assert attention.map.row_edges == attention.map.column_edges == [0, 4, 8, 12, 13]
    parts = [slice(0, 4), slice(4, 8), slice(8, 12), slice(12, 13)]
    for i, rows in enumerate(parts):
        for j, keys in enumerate(parts):
            expected = weights[:, :, rows, keys].sum(-1).mean(-1)
            torch.testing.assert_close(attention.grid[:, :, i, j], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(attention.key_mass, weights.sum(2), rtol=0, atol=1e-5)
    expected_key = weights @ torch.arange(13.0)
    torch.testing.assert_close(attention.expected_key, expected_key, rtol=0, atol=1e-5)
    torch.testing.assert_close(attention.distance, torch.arange(13.0) - expected_key, rtol=0, atol=1e-5)
    torch.testing.assert_close(attention.top_weights, weights.topk(3).values, rtol=0, atol=1e-6)
    entropy = -(weights * weights.clamp(min=1e-30).log()).sum(-1)
    torch.testing.assert_close(attention.entropy, entropy, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 700, 2**26])
def test_parts_of_the_queries_give_what_all_give(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window, padding of each sequence, and a bias, cut between any two queries."""
    torch.manual_seed(4)
    query, key, value = torch.randn(3, 2, 2, 11, 4)
    arguments = {
        "pattern": rg.SlidingWindow(left=3, right=1) & rg.KeyLengths(torch.tensor([11, 7])),
        "bias": torch.randn(2, 11, 11),
    }

    class Own(nn.Module):
        def forward(self, query: torch.Tensor) -> torch.Tensor:
            return rg.attend(query, key, value, **arguments)

    module = Own()
    with pytest.warns(UserWarning, match="no attention of Own"), record(Own()) as other:
        output = module(query)
    assert len(other) == 0  # another module than the one that is recorded
    monkeypatch.setattr("regard.lens.summaries.CHUNK", chunk)
    with record(module, grid=5, weights=True) as recording:
        assert torch.equal(module(query), output)
    _, expected = rg.attend(query, key, value, **arguments, summary=rg.Summary(weights=True, entropy=True))
    torch.testing.assert_close(recording[""].weights, expected.weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(recording[""].entropy, expected.entropy, rtol=0, atol=1e-5)
    torch.testing.assert_close(recording[""].key_mass, expected.weights.sum(2), rtol=0, atol=1e-5)
    assert recording[""].error < 1e-6


def test_a_recording_can_be_read_while_it_goes_on() -> None:
    layer = rg.MultiHeadAttention(8, 2)
    with record(layer) as recording:
        assert list(recording) == []
        with pytest.raises(KeyError):
            recording[""]
        for calls in (1, 2, 3):
            layer(torch.randn(1, 4, 8))
            assert recording[""].shape == (1, 2, 4 * calls, 4)


def test_maps_of_growing_calls_stay_exact() -> None:
    """Bins join as queries and keys come: their sums are those of the weights."""
    torch.manual_seed(5)
    layer = rg.MultiHeadAttention(8, 2)
    cache = rg.KeyValueCache.for_pattern(rg.Causal())
    with torch.no_grad(), record(layer, grid=4, weights=True) as recording:
        for length in (3, 1, 1, 5, 1):
            layer(torch.randn(1, length, 8), cache=cache, pattern=rg.Causal())
    attention = recording[""]
    assert attention.map.row_edges == attention.map.column_edges == [0, 4, 8, 11]
    weights = attention.weights
    assert weights.shape == (1, 2, 11, 11)
    expected = torch.stack(
        [weights[..., keys].sum(-1)[:, :, rows].mean(-1) for rows in (slice(0, 4), slice(4, 8), slice(8, 11))
         for keys in (slice(0, 4), slice(4, 8), slice(8, 11))], -1
    ).unflatten(-1, (3, 3))  # fmt: skip
    torch.testing.assert_close(attention.grid, expected, rtol=0, atol=1e-6)


def test_summaries_may_carry_gradients() -> None:
    layer = rg.MultiHeadAttention(8, 2)
    with record(layer, differentiable=True) as recording:
        layer(torch.randn(1, 4, 8))
    recording[""].entropy.sum().backward()
    assert float(layer.query_proj.weight.grad.abs().sum()) > 0


def test_gradients_of_outputs() -> None:
    """The gradient of weights is that of outputs times values: as autograd has it for plain operations."""
    torch.manual_seed(6)
    query, key, value = torch.randn(3, 1, 2, 5, 4, requires_grad=True)

    class Own(nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)

    module = Own()
    with record(module, weights=True, values=True, gradients=True) as recording:
        output = module()
    output.square().sum().backward()
    weights = torch.softmax(query @ key.mT / 2, -1).detach().requires_grad_()
    (weights @ value).square().sum().backward()
    found = recording[""].output_grad @ recording[""].value.mT
    torch.testing.assert_close(found, weights.grad, rtol=0, atol=1e-5)


def test_weights_beyond_the_budget_are_those_of_sampled_queries() -> None:
    torch.manual_seed(7)
    layer = rg.MultiHeadAttention(8, 2)
    x = torch.randn(1, 400, 8)
    with (
        torch.no_grad(),
        record(layer, weights=True) as whole,
        record(layer, weights=True, budget=50 * 2 * 400 * 4) as some,
    ):
        layer(x)
    rows = some[""].rows
    assert len(rows) == 50
    assert [int(row) // 8 for row in rows] == list(range(50))  # one of each stratum
    torch.testing.assert_close(some[""].weights, whole[""].weights[:, :, rows], rtol=0, atol=1e-6)
    largest = whole[""].weights[0, 0].max(-1).values
    mean, half = some[""].estimate(largest[rows])
    assert 0 < half < 0.1
    assert abs(mean - float(largest.mean())) < 2 * half
    assert whole[""].estimate(largest) == (float(largest.mean()), 0.0)


def test_calls_of_other_batches_cannot_be_joined() -> None:
    layer = rg.MultiHeadAttention(8, 2)
    with record(layer) as recording:
        layer(torch.randn(1, 4, 8))
        layer(torch.randn(2, 4, 8))
    with pytest.raises(rg.errors.ShapeError, match=r"ran 2 times, and calls of \(1, 2\) and \(2, 2\)"):
        recording[""]


def test_dropout_draws_what_it_draws_without_the_recorder() -> None:
    layer = rg.MultiHeadAttention(8, 2, dropout=0.5)
    plain = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    x = torch.randn(1, 6, 8)
    for module, run in ((layer, lambda: layer(x)), (plain, lambda: plain(x, x, x)[0])):
        torch.manual_seed(1)
        expected = [run(), run()]
        torch.manual_seed(1)
        with record(module) as recording:
            found = [run(), run()]
        assert all(map(torch.equal, found, expected))
        assert recording[""].error is None  # of other weights than those that were dropped
        torch.testing.assert_close(recording[""].grid.sum(-1), torch.ones_like(recording[""].grid[..., 0]))


def test_recorders_stand_in_each_other_and_leave_nothing() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    before = [dict(vars(part)) for part in encoder.modules()]
    with torch.no_grad(), record(encoder) as outer:
        encoder(torch.randn(1, 3, 8))
        with record(encoder) as inner:
            encoder(torch.randn(1, 4, 8))
    assert [record.calls for record in outer.values()] == [2, 2]
    assert [record.calls for record in inner.values()] == [1, 1]
    with pytest.raises(AssertionError), record(encoder):
        encoder(torch.randn(1, 4, 9))
    assert [dict(vars(part)) for part in encoder.modules()] == before
    assert all(not part._forward_hooks for part in encoder.modules())
    assert rg.attention.engine.observer.count == 0


def test_other_threads_are_not_recorded() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()
    x = torch.randn(1, 4, 8)

    def run() -> None:
        with torch.no_grad():
            encoder(x)

    with torch.no_grad(), record(encoder) as recording:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert len(recording) == 0
        encoder(x)
    assert [record.calls for record in recording.values()] == [1]


def test_a_module_without_attention_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="no attention of Linear was captured"), record(nn.Linear(2, 2)) as recording:
        pass
    assert "0 attentions of Linear recorded" in str(recording)


def test_copies_and_wrappers() -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(1, 5, 8)
    for module in (copy.deepcopy(layer), nn.DataParallel(layer), torch.compile(layer)):
        with torch.no_grad(), record(module) as recording:
            module(x, x, x)
        assert list(recording) == [""]
    assert "compiled" in str(recording)
