"""Measures of attention, each on a case worked by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import regard as rg
from regard.errors import ConfigError, DataError, ShapeError
from regard.lens.alignment_error import Gold, alignment_error, extract, ibm_model_1, read_gold
from regard.lens.faithfulness import deletion_curve, faithfulness, leave_one_out, random_scores
from regard.lens.heads import ablated, divergence, importance, redundant, states
from regard.lens.integrated_gradients import integrated_gradients
from regard.lens.record import record
from regard.lens.relevance import Attended, cross_relevance, relevance, weight_gradient
from regard.lens.rollout import cross_rollout, rollout
from regard.lens.value_norm import value_norms

FIRST = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])  # a head, causal
SECOND = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])


def test_rollout_by_hand() -> None:
    """(I + A1) / 2 = [[1, 0], [1/4, 3/4]], (I + A2) / 2 = [[1, 0], [1/2, 1/2]]; their product, last layer first."""
    expected = torch.tensor([[1.0, 0.0], [0.625, 0.375]])
    torch.testing.assert_close(rollout([FIRST, SECOND]), expected)
    torch.testing.assert_close(rollout([FIRST, SECOND], residual=0.0), SECOND[0] @ FIRST[0])
    torch.testing.assert_close(rollout([FIRST], residual=1.0), torch.eye(2))


def test_rows_of_rollout_sum_to_1() -> None:
    """Also of causal, grouped, windowed attention, and with a sink that takes a share of each row."""
    torch.manual_seed(0)
    model = nn.ModuleList(
        rg.MultiHeadAttention(16, 4, num_kv_heads=2, pattern=pattern, normalizer=normalizer)
        for pattern, normalizer in (
            (rg.Causal(), rg.Softmax()), (rg.SlidingWindow(left=2, right=0), rg.Sparsemax()),
            (rg.Causal(), rg.LearnedSink()),
        )
    )  # fmt: skip
    x = torch.randn(2, 9, 16)
    with torch.no_grad(), record(model, weights=True) as recording:
        for layer in model:
            x = layer(x)
    found = rollout([one.weights for one in recording.values()])
    assert found.shape == (2, 9, 9)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 9))
    assert bool((found.triu(1) == 0).all())
    cross = cross_rollout(
        [one.weights for one in recording.values()], [(recording["0"].weights, recording["2"].weights)] * 2
    )
    torch.testing.assert_close(cross.sum(-1), torch.ones(2, 9))


def test_rollout_refuses_what_is_no_stack() -> None:
    with pytest.raises(ConfigError, match="got no layers"):
        rollout([])
    with pytest.raises(ConfigError, match=r"residual=1.5"):
        rollout([FIRST], residual=1.5)
    with pytest.raises(ShapeError, match=r"rollout: weights \(1, 3, 3\); expected \(..., heads, 2, 2\)"):
        rollout([FIRST, torch.ones(1, 3, 3)])
    with pytest.raises(ConfigError, match="no decoder layers"):
        cross_rollout([FIRST], [])


def test_value_norms_by_hand() -> None:
    """Weights 0.5 of a vector of length 5, and of one of length 0; a projection that doubles the first feature."""
    weights, value = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[[[3.0, 4.0], [0.0, 0.0]]]])
    torch.testing.assert_close(value_norms(weights, value), torch.tensor([[[[2.5, 0.0]]]]))
    doubled = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(value_norms(weights, value, doubled), torch.tensor([[[[math.sqrt(52) / 2, 0.0]]]]))
    with pytest.raises(ShapeError, match="don't go together"):
        value_norms(weights, value[:, :, :1])
    with pytest.raises(ShapeError, match=r"output_proj \(2, 3\); expected \(D, 2\)"):
        value_norms(weights, value, torch.ones(2, 3))


def test_relevance_by_hand() -> None:
    """One head, one layer: the identity and the positive products."""
    attended = Attended(FIRST[None], torch.tensor([[[[2.0, 9.0], [-1.0, 3.0]]]]))
    torch.testing.assert_close(relevance([attended]), torch.tensor([[[3.0, 0.0], [0.0, 2.5]]]))
    twice = torch.tensor([[[9.0, 0.0], [0.0, 6.25]]])
    torch.testing.assert_close(relevance([attended, attended]), twice)
    with pytest.raises(ConfigError, match="got no layers"):
        relevance([])


def test_cross_relevance_by_hand() -> None:
    """A target of one position, two source words, no encoder layer: the positive products of cross-attention alone."""
    own = Attended(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    cross = Attended(torch.tensor([[[[0.25, 0.75]]]]), torch.tensor([[[[4.0, -1.0]]]]))
    torch.testing.assert_close(cross_relevance([], [(own, cross)]), torch.tensor([[[1.0, 0.0]]]))
    with pytest.raises(ConfigError, match="no decoder layers"):
        cross_relevance([], [])


def test_weight_gradients_are_autograds() -> None:
    torch.manual_seed(1)
    weights, value = torch.rand(2, 4, 3, 5, requires_grad=True), torch.randn(2, 2, 5, 6)
    output = weights @ value.repeat_interleave(2, 1)
    gradient = torch.randn_like(output)
    output.backward(gradient)
    torch.testing.assert_close(weight_gradient(gradient, value), weights.grad)


def test_integrated_gradients_are_complete() -> None:
    """Of a polynomial, exactly: x1^2 x2 from 0 to (1, 2) gives 2/3 x 2 and 1/3 x 2."""

    def function(points: torch.Tensor) -> torch.Tensor:
        return points[:, 0, 0].square() * points[:, 1, 0]

    inputs, baseline = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    found = integrated_gradients(function, inputs, baseline, steps=4)
    torch.testing.assert_close(found, torch.tensor([4 / 3, 2 / 3]))
    with pytest.raises(ConfigError, match="steps=0"):
        integrated_gradients(function, inputs, baseline, steps=0)


def test_importance_by_hand() -> None:
    output = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    gradient = torch.tensor([[[[1.0, -1.0]], [[2.0, 5.0]]]])
    torch.testing.assert_close(importance(output, gradient), torch.tensor([1.0, 6.0]))


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "regard"])
def test_ablated_heads_give_nothing(implementation: str) -> None:
    """In a model of another library: as if the rows of the output projection that read the head were 0."""
    transformers = pytest.importorskip("transformers")
    rg.integrate_transformers()
    torch.manual_seed(2)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=16
    )
    model = transformers.BertModel._from_config(config, attn_implementation=implementation).eval()
    tokens = torch.randint(0, 20, (2, 7))
    path = "encoder.layer.1.attention.self"
    with torch.no_grad():
        before = model(tokens).last_hidden_state
        with ablated(model, {path: [0, 2]}):
            found = model(tokens).last_hidden_state
        assert torch.equal(model(tokens).last_hidden_state, before)
        dense = model.encoder.layer[1].attention.output.dense.weight
        dense[:, :4] = 0
        dense[:, 8:] = 0
        torch.testing.assert_close(found, model(tokens).last_hidden_state, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match=r"'encoder.layer.9' did not run"), ablated(model, {"encoder.layer.9": [0]}):
        model(tokens)


def test_dead_and_redundant_heads() -> None:
    """One head uniform, one on its first key, one that looks at itself, and that one again."""
    itself = torch.eye(4)
    weights = torch.stack([torch.full((4, 4), 0.25), torch.tensor([1.0, 0, 0, 0]).repeat(4, 1), itself, itself])
    entropy = torch.special.entr(weights).sum(-1)
    found = states(entropy, weights.sum(1), torch.full((4,), 4))
    assert [state.dead for state in found] == [True, True, False, False]
    assert redundant(weights) == [(2, 3)]
    between = divergence(weights)
    assert float(between[1, 2]) == pytest.approx(0.75 * math.log(2))  # the first row is the same
    torch.testing.assert_close(between, between.T)


def test_alignment_error_by_hand() -> None:
    """|A and S| = 1, |A and P| = 2, |A| = 3, |S| = 2."""
    gold = read_gold("0-0 1-1 2?1")
    assert gold == Gold(frozenset({(0, 0), (1, 1)}), frozenset({(0, 0), (1, 1), (2, 1)}))
    found = alignment_error([frozenset({(0, 0), (2, 1), (3, 3)})], [gold])
    assert found.aer == pytest.approx(1 - 3 / 5)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(1 / 2)
    assert alignment_error([frozenset()], [read_gold("")]).aer == 1
    with pytest.raises(DataError, match="alignment '1:2' is no link"):
        read_gold("0-0 1:2")


def test_extraction_with_and_without_shift() -> None:
    weights = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.0, 0.0]])
    assert extract(weights) == {(0, 0), (1, 1)}
    assert extract(weights, shift=1) == {(1, 0)}


def test_ibm_model_1_learns_a_dictionary() -> None:
    pairs = [
        ("the house", "la casa"),
        ("the book", "il libro"),
        ("a house", "una casa"),
        ("a book", "un libro"),
        ("book", "libro"),
    ]
    found = ibm_model_1([(source.split(), target.split()) for source, target in pairs], iterations=30)
    assert (1, 1) in found[0]
    assert found[4] == {(0, 0)}


def test_faithfulness_by_hand() -> None:
    """A model that says what its tokens weigh: 0.6, 0.3, 0.1 and 0."""
    shares = torch.tensor([0.6, 0.3, 0.1, 0.0])

    def predict(kept: torch.Tensor) -> torch.Tensor:
        return (kept * shares).sum(1)

    best = faithfulness(predict, shares, shares=(0.25, 0.5))
    assert best.comprehensiveness == pytest.approx((0.6 + 0.9) / 2)
    assert best.sufficiency == pytest.approx((0.4 + 0.1) / 2)
    assert best.deletion == pytest.approx((0.7 + 0.25 + 0.05 + 0.0) / 4)  # trapezoids of 1, 0.4, 0.1, 0, 0
    worst = faithfulness(predict, -shares, shares=(0.25, 0.5))
    assert worst.comprehensiveness < best.comprehensiveness
    assert worst.deletion > best.deletion
    torch.testing.assert_close(leave_one_out(predict, 4), shares)
    torch.testing.assert_close(deletion_curve(predict, torch.arange(4)), torch.tensor([1.0, 0.4, 0.1, 0.0, 0.0]))
    assert torch.equal(random_scores(5, seed=1), random_scores(5, seed=1))
    with pytest.raises(ShapeError, match="expected one of each token"):
        faithfulness(predict, torch.ones(2, 2))


def test_relevance_of_a_recorded_model() -> None:
    """The whole way: weights, values and gradients of a run give each token's relevance."""
    torch.manual_seed(3)
    model = nn.ModuleList(rg.MultiHeadAttention(8, 2) for _ in range(2))
    x = torch.randn(1, 6, 8)
    with record(model, weights=True, values=True, gradients=True) as recording:
        hidden = x
        for layer in model:
            hidden = hidden + layer(hidden)
    functional.softmax(hidden[:, 0], -1)[0, 1].backward()
    layers = [Attended(one.weights, weight_gradient(one.output_grad, one.value)) for one in recording.values()]
    assert relevance(layers).shape == (1, 6, 6)
    assert float(importance(torch.ones_like(recording["0"].output_grad), recording["0"].output_grad).sum()) > 0
