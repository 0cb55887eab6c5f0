"""Bahdanau's model against its paper's equations, one sentence and one word at a time."""

import pytest
import torch
from torch import Tensor

from regard.models.rnn import RNN, RNNConfig
from regard.models.seq2seq import Vocabulary

N = 11
SOURCE, TARGET = [5, 9, 3, 7, 2], [1, 4, 8, 8, 6]


def made(**changes: object) -> tuple[RNN, dict[str, Tensor]]:
    torch.manual_seed(0)
    options = {"embed_dim": 6, "hidden_dim": 5, "align_dim": 7, "share_embeddings": False, "tie_output": False}
    model = RNN(RNNConfig(vocabulary=Vocabulary(size=N), **options, **changes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model, model.state_dict()


def unit(held: dict[str, Tensor], name: str, x: Tensor, state: Tensor, context: Tensor | None = None) -> Tensor:
    """Appendix A.1.1 and A.2.2, in the paper's names."""
    w_z, w_r, w = held[f"{name}.input_proj.weight"].chunk(3)
    b_z, b_r, b = held[f"{name}.input_proj.bias"].chunk(3)
    u_z, u_r = held[f"{name}.gate_proj.weight"].chunk(2)
    u = held[f"{name}.state_proj.weight"]
    if context is None:
        in_z = in_r = in_h = torch.zeros(5, dtype=torch.float64)
    else:
        in_z, in_r, in_h = (c @ context for c in held[f"{name}.context_proj.weight"].chunk(3))
    z = torch.sigmoid(w_z @ x + u_z @ state + in_z + b_z)
    r = torch.sigmoid(w_r @ x + u_r @ state + in_r + b_r)
    candidate = torch.tanh(w @ x + u @ (r * state) + in_h + b)
    return (1 - z) * state + z * candidate


def linear(held: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return held[f"{name}.weight"] @ x + held[f"{name}.bias"]


def run(held: dict[str, Tensor], name: str, words: Tensor) -> list[Tensor]:
    state, states = torch.zeros(5, dtype=torch.float64), []
    for x in words:
        state = unit(held, name, x, state)
        states.append(state)
    return states


def read(held: dict[str, Tensor], state: Tensor, word: Tensor, context: Tensor) -> Tensor:
    """Appendix A.2.2: t_i = the larger of each two of t~_i, then W_o t_i."""
    readout = linear(held, "readout", torch.cat([state, word, context]))
    pairs = torch.stack([torch.maximum(readout[2 * j], readout[2 * j + 1]) for j in range(6)])
    return held["embeddings.output_weight"] @ pairs + held["embeddings.output_bias"]


def test_the_equations() -> None:
    model, held = made()
    words = 10 * held["embeddings.weight"][SOURCE]
    forward = run(held, "encoder", words)
    backward = run(held, "backward_encoder", words.flip(0))[::-1]
    annotations = [torch.cat(pair) for pair in zip(forward, backward, strict=True)]
    state, expected = torch.tanh(linear(held, "first_proj", backward[0])), []
    for y in TARGET:
        word = 10 * held["embeddings.target_weight"][y]
        v, u = held["cross_attention.score.vector"][0], held["cross_attention.key_proj.weight"]
        asked = linear(held, "cross_attention.query_proj", state)
        weights = torch.softmax(torch.stack([v @ torch.tanh(asked + u @ h) for h in annotations]), 0)
        context = sum(w * h for w, h in zip(weights, annotations, strict=True))
        state = unit(held, "cell", word, state, context)
        expected.append(read(held, state, word, context))
    found = model(torch.tensor([SOURCE]), None, torch.tensor([TARGET])).logits[0]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)


def test_the_fixed_context() -> None:
    """Cho et al. 2014, appendix A: c = tanh(V h_S), s_0 = tanh(V' c)."""
    model, held = made(context="fixed")
    context = torch.tanh(linear(held, "context_proj", run(held, "encoder", 10 * held["embeddings.weight"][SOURCE])[-1]))
    state, expected = torch.tanh(linear(held, "first_proj", context)), []
    for y in TARGET:
        word = 10 * held["embeddings.target_weight"][y]
        state = unit(held, "cell", word, state, context)
        expected.append(read(held, state, word, context))
    found = model(torch.tensor([SOURCE]), None, torch.tensor([TARGET])).logits[0]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shared", "tied", "matrices"), [(True, True, 1), (False, True, 2), (False, False, 3)])
def test_embeddings_are_kept_once(shared: bool, tied: bool, matrices: int) -> None:
    model = RNN(RNNConfig(vocabulary=Vocabulary(size=N), share_embeddings=shared, tie_output=tied))
    assert sum(tensor.shape == (N, 256) for tensor in model.state_dict().values()) == matrices


def test_keys_are_projected_once_a_sentence() -> None:
    model, calls = made()[0], []
    model.cross_attention.key_proj.register_forward_hook(lambda *call: calls.append(call))
    model(torch.tensor([SOURCE]), None, torch.tensor([TARGET]))
    assert len(calls) == 1
