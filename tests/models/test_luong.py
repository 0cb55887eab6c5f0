"""Luong's model against its paper's equations, one sentence and one word at a time, and PyTorch's LSTM."""

import pytest
import torch
from torch import Tensor, nn

from regard.layers.recurrent import LSTM, last, reverse
from regard.models.luong import Luong, LuongConfig
from regard.models.seq2seq import Vocabulary

N, SIZE, WINDOW = 11, 5, 2
SOURCE, TARGET = [5, 9, 3, 7, 8, 3, 10, 2], [1, 4, 8, 8, 6]


def torch_lstm(held: dict[str, Tensor], name: str, inputs: int) -> nn.LSTM:
    """PyTorch's with these weights; its gates stand in another order and it has two biases."""
    theirs = nn.LSTM(inputs, SIZE, 2, batch_first=True).double()

    def reordered(x: Tensor) -> Tensor:
        write, keep, read, inward = x.chunk(4)
        return torch.cat([write, keep, inward, read])

    for i in range(2):
        into, recurrent = f"{name}.input_projs.{i}", f"{name}.state_projs.{i}"
        getattr(theirs, f"weight_ih_l{i}").data = reordered(held[f"{into}.weight"])
        getattr(theirs, f"weight_hh_l{i}").data = reordered(held[f"{recurrent}.weight"])
        getattr(theirs, f"bias_ih_l{i}").data = reordered(held[f"{into}.bias"])
        getattr(theirs, f"bias_hh_l{i}").data.zero_()
    return theirs


@torch.no_grad()
@pytest.mark.parametrize("input_feeding", [True, False])
@pytest.mark.parametrize("window", ["global", "local-m", "local-p"])
@pytest.mark.parametrize("score", ["dot", "general", "concat", "location"])
def test_the_equations(score: str, window: str, input_feeding: bool) -> None:
    torch.manual_seed(0)
    config = LuongConfig(
        vocabulary=Vocabulary(size=N), embed_dim=4, hidden_dim=SIZE, score=score, window=window, window_size=WINDOW,
        input_feeding=input_feeding, max_length=9,
    )  # fmt: skip
    model = Luong(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    held = model.state_dict()
    vectors, length = held["embeddings.weight"], len(SOURCE)
    inputs = 10 * vectors  # of unit variance, as they are initialized

    memory, state = torch_lstm(held, "encoder", 4)(inputs[SOURCE][None])
    memory, decoder = memory[0], torch_lstm(held, "decoder", 8 if input_feeding else 4)
    fed, expected = torch.zeros(4, dtype=torch.float64), []
    for t, y in enumerate(TARGET):
        x = torch.cat([inputs[y], fed]) if input_feeding else inputs[y]
        top, state = decoder(x[None, None], state)
        h = top[0, 0]
        scores = torch.stack([scored(score, held, h, memory[s], s) for s in range(length)])
        center = {"global": 0.0, "local-m": float(t), "local-p": predicted(held, h, length)}[window]
        inside = [window == "global" or abs(s - center) <= WINDOW for s in range(length)]
        weights = torch.softmax(scores.masked_fill(~torch.tensor(inside), -torch.inf), 0)
        if window == "local-p":
            distance = torch.arange(length).double() - center
            weights = weights * torch.exp(-(distance**2) / (2 * (WINDOW / 2) ** 2))  # equation 10
        context = weights @ memory
        fed = torch.tanh(held["attentional.weight"] @ torch.cat([context, h]) + held["attentional.bias"])  # equation 5
        expected.append(vectors @ fed + held["embeddings.output_bias"])
    found = model(torch.tensor([SOURCE]), None, torch.tensor([TARGET])).logits[0]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)


def scored(score: str, held: dict[str, Tensor], h: Tensor, key: Tensor, position: int) -> Tensor:
    """Equations 7 and 8."""
    if score == "dot":
        return h @ key
    if score == "general":
        return h @ held["cross_attention.score.weight"][0] @ key
    if score == "location":
        return held["cross_attention.score.weight"][0, position] @ h
    query, bias = (held[f"cross_attention.query_proj.{name}"] for name in ("weight", "bias"))
    both = torch.cat([query, held["cross_attention.key_proj.weight"]], 1)  # W_a
    return held["cross_attention.score.vector"][0] @ torch.tanh(both @ torch.cat([h, key]) + bias)


def predicted(held: dict[str, Tensor], h: Tensor, length: int) -> float:
    """Equation 9."""
    if "center_proj.weight" not in held:
        return 0.0
    hidden = torch.tanh(held["center_proj.weight"] @ h)
    return float(length * torch.sigmoid(held["center_vector.weight"][0] @ hidden))


def test_the_predicted_position_learns() -> None:
    torch.manual_seed(0)
    model = Luong(LuongConfig(vocabulary=Vocabulary(size=N), embed_dim=4, hidden_dim=SIZE, window="local-p"))
    model(torch.tensor([SOURCE]), None, torch.tensor([TARGET])).logits.square().sum().backward()
    assert model.center_vector.weight.grad.abs().max() > 0
    assert model.center_proj.weight.grad.abs().max() > 0


def test_a_window_beyond_the_source_reads_nothing() -> None:
    torch.manual_seed(0)
    config = LuongConfig(vocabulary=Vocabulary(size=N), embed_dim=4, hidden_dim=SIZE, window="local-m", window_size=1)
    model = Luong(config).eval()
    contexts = []
    model.cross_attention.register_forward_hook(lambda module, inputs, output: contexts.append(output))
    model(torch.tensor([[5, 2]]), None, torch.tensor([TARGET]))
    assert [bool(context.any()) for context in contexts] == [True, True, True, False, False]


def test_a_bidirectional_encoder_reads_ahead() -> None:
    torch.manual_seed(0)
    config = LuongConfig(vocabulary=Vocabulary(size=N), embed_dim=4, hidden_dim=6, bidirectional=True, num_layers=2)
    model = Luong(config).double().eval()
    inputs, lengths = model.collate([SOURCE, SOURCE[:2]])
    memory = model.encode(inputs, lengths)
    assert memory.states.shape == (2, len(SOURCE) + 1, 6)
    changed = inputs.clone()
    changed[0, len(SOURCE) - 1] = 3 if inputs[0, len(SOURCE) - 1] != 3 else 4
    assert not torch.equal(model.encode(changed, lengths).states[0, 0], memory.states[0, 0])
    # padding changes nothing, and the decoder starts from the states of both directions of each layer
    alone = model.encode(*model.collate([SOURCE[:2]]))
    torch.testing.assert_close(memory.states[1, :3], alone.states[0])
    torch.testing.assert_close(memory.extra[1][1], alone.extra[1][0])
    targets = torch.tensor([TARGET, TARGET])
    logits = model(inputs, lengths, targets).logits
    state, tokens = model.prefill(inputs, lengths)
    torch.testing.assert_close(model.step(tokens[:, None], state)[:, 0], logits[:, 0])


def test_the_lstm_runs_on_where_it_stopped() -> None:
    torch.manual_seed(0)
    lstm = LSTM(3, SIZE, 2, dropout=nn.Identity()).double()
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    whole, history = lstm(x)
    _, before = lstm(x[:, :4])
    rest, _ = lstm(x[:, 4:], [(outputs[:, -1], cells[:, -1]) for outputs, cells in before])
    torch.testing.assert_close(rest, whole[:, 4:])
    assert [tuple(y.shape) for layer in history for y in layer] == [(2, 7, SIZE)] * 4


def test_reversed_within_its_length() -> None:
    x = torch.tensor([[[1.0], [2.0], [3.0], [0.0]], [[4.0], [5.0], [6.0], [7.0]], [[0.0], [0.0], [0.0], [0.0]]])
    lengths = torch.tensor([3, 4, 0])
    back = reverse(x, lengths)
    assert back[..., 0].tolist() == [[3, 2, 1, 0], [7, 6, 5, 4], [0, 0, 0, 0]]
    assert torch.equal(reverse(back, lengths), x)
    assert last(x, lengths)[:, 0].tolist() == [3, 7, 0]
