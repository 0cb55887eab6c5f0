"""Location-aware attention against a loop in plain PyTorch; windows, hypotheses and padding."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import regard as rg
from regard.layers.location_aware_attention import LocationAwareAttention
from regard.models.hypothesis_state import HypothesisState
from regard.models.seq2seq import Memory

B, S, Q, D, STEPS = 3, 11, 5, 7, 4
LENGTHS = torch.tensor([11, 6, 2])


def attention(**options: object) -> LocationAwareAttention:
    torch.manual_seed(0)
    layer = LocationAwareAttention(Q, D, **{"align_dim": 6, "num_filters": 3, "kernel_size": 5, **options}).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def steps(layer: LocationAwareAttention, queries: Tensor, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Contexts (B, STEPS, D) and weights (B, STEPS, S) of queries (B, STEPS, Q)."""
    key, weights = layer.project_key(states), layer.initial_weights(states)[:, None]
    contexts, rows = [], []
    for query in queries.split(1, 1):
        context, weights = layer(query, key, states, weights, pattern=rg.KeyLengths(lengths))
        contexts.append(context)
        rows.append(weights)
    return torch.cat(contexts, 1), torch.cat(rows, 1)


def plain(layer: LocationAwareAttention, queries: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """The same for one utterance without padding, (STEPS, D) and (STEPS, S), by the equations of the paper."""
    weights = torch.zeros(len(states), dtype=torch.float64)
    weights[0] = 1
    contexts, rows = [], []
    for query in queries:
        around = functional.pad(weights, (2, 2)).unfold(0, 5, 1)  # (S, 5)
        hidden = layer.query_proj.weight @ query + layer.query_proj.bias + states @ layer.key_proj.weight.T
        scores = torch.tanh(hidden + around @ layer.filters.T @ layer.location_proj) @ layer.vector
        if layer.window is not None:
            middle = int((weights.cumsum(0) >= 0.5 * weights.sum()).nonzero()[0])
            far = (torch.arange(len(states)) - middle).abs() > layer.window
            scores = scores.masked_fill(far, -torch.inf)
        if layer.sigmoid_bias is None:
            weights = scores.softmax(0)
        else:
            weights = torch.sigmoid(scores + layer.sigmoid_bias) / torch.sigmoid(scores + layer.sigmoid_bias).sum()
        contexts.append(weights @ states)
        rows.append(weights)
    return torch.stack(contexts), torch.stack(rows)


@pytest.mark.parametrize("smoothing", [False, True], ids=["softmax", "smoothing"])
@pytest.mark.parametrize("window", [None, 2, 0])
def test_steps_are_those_of_a_loop(window: int | None, smoothing: bool) -> None:
    layer, states = attention(window=window, smoothing=smoothing), numbers(B, S, D)
    queries = numbers(B, STEPS, Q)
    contexts, weights = steps(layer, queries, states, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        expected = plain(layer, queries[row], states[row, :length])
        torch.testing.assert_close(contexts[row], expected[0])
        torch.testing.assert_close(weights[row, :, :length], expected[1])
        assert not weights[row, :, length:].any()
        grads = torch.autograd.grad(expected[0].square().sum(), list(layer.parameters()), materialize_grads=True)
        found = torch.autograd.grad(
            contexts[row].square().sum(), list(layer.parameters()), retain_graph=True, materialize_grads=True
        )
        for x, y in zip(found, grads, strict=True):
            torch.testing.assert_close(x, y)


def test_the_window_follows_the_median() -> None:
    layer = attention(window=1)
    previous = torch.tensor([[[0.3, 0.1, 0.0, 0.2, 0.0, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    states = numbers(1, S, D)
    _, weights = layer(numbers(1, 1, Q), layer.project_key(states), states, previous)  # half of it by key 3
    assert weights[0, 0].nonzero().flatten().tolist() == [2, 3, 4]


def test_padding_may_hold_anything() -> None:
    layer, states, queries = attention(), numbers(B, S, D), numbers(B, STEPS, Q)
    expected = steps(layer, queries, states, LENGTHS)
    poisoned = states.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        poisoned[row, length:] = torch.nan
    for x, y in zip(steps(layer, queries, poisoned, LENGTHS), expected, strict=True):
        torch.testing.assert_close(x, y)
    alone = steps(layer, queries[1:2], states[1:2, :6], LENGTHS[1:2])
    torch.testing.assert_close(alone[0], expected[0][1:2])
    torch.testing.assert_close(alone[1], expected[1][1:2, :, :6])


def test_hypotheses_are_reordered_with_their_weights() -> None:
    layer, states, query = attention(window=3), numbers(B, S, D), numbers(B, 2, Q)
    pattern, key = rg.KeyLengths(LENGTHS), layer.project_key(states)
    state = HypothesisState(Memory(states, LENGTHS, (key,)), layer.initial_weights(states))
    first = state.tensors[0].expand(-1, 2, -1)
    context, weights = layer(query, key, states, first, pattern=pattern)
    assert context.shape == (B, 2, D)
    state.advance(weights)
    state.reorder(torch.tensor([[1, 0], [1, 1], [0, 0]]))
    again, _ = layer(query, key, states, state.tensors[0], pattern=pattern)
    for row, parents in enumerate([(1, 0), (1, 1), (0, 0)]):
        for k, parent in enumerate(parents):
            one = slice(row, row + 1)
            single, _ = layer(
                query[one, k : k + 1], key[one], states[one], weights[one, parent : parent + 1],
                pattern=rg.KeyLengths(LENGTHS[one]),
            )  # fmt: skip
            torch.testing.assert_close(again[row, k], single[0, 0])


def test_gradients() -> None:
    layer, states, query = attention(smoothing=True), numbers(1, 4, D), numbers(1, 2, Q)
    previous = torch.rand(1, 2, 4, dtype=torch.float64)

    def run(query: Tensor, states: Tensor, previous: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(dict(layer.named_parameters()), parameters, strict=True))
        key = states @ named["key_proj.weight"].T
        context, weights = torch.func.functional_call(layer, named, (query, key, states, previous))
        return context, weights

    inputs = [x.requires_grad_() for x in (query, states, previous)]
    assert torch.autograd.gradcheck(run, (*inputs, *layer.parameters()))


def test_a_summary_comes_beside_the_output() -> None:
    layer, states, query = attention(), numbers(B, S, D), numbers(B, 1, Q)
    arguments = query, layer.project_key(states), states, layer.initial_weights(states)[:, None]
    attended, seen = layer(*arguments, summary=rg.Summary(entropy=True))
    torch.testing.assert_close(attended.weights, layer(*arguments).weights)
    torch.testing.assert_close(seen.entropy[:, 0], -(attended.weights * attended.weights.log()).sum(-1))


def test_bfloat16_keeps_its_weights_in_float32() -> None:
    layer, states = attention(smoothing=True).bfloat16(), numbers(B, S, D).bfloat16()
    previous = layer.initial_weights(states)[:, None]
    context, weights = layer(numbers(B, 1, Q).bfloat16(), layer.project_key(states), states, previous)
    assert context.dtype == torch.bfloat16
    assert previous.dtype == weights.dtype == torch.float32
