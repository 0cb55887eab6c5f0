"""The pointer-generator against its equations, and what every encoder-decoder must do."""

import pytest
import torch
from torch import Tensor

from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy
from regard.layers.output_projection import IGNORED
from regard.models import pointer_generator
from regard.models.pointer_generator import PointerGenerator, PointerGeneratorConfig
from regard.models.seq2seq import Vocabulary

N = 11
SOURCE = torch.tensor([[5, 11, 7, 12, 11, 2], [8, 11, 2, 0, 0, 0]])  # 11 and 12 are words of the source alone
LENGTHS = torch.tensor([6, 3])
TARGET = torch.tensor([[1, 5, 12, 9], [1, 11, 8, 6]])


def made(dtype: torch.dtype = torch.float64, **changes: object) -> PointerGenerator:
    torch.manual_seed(0)
    config = PointerGeneratorConfig(vocabulary=Vocabulary(size=N), embed_dim=6, hidden_dim=5, dropout=0.0, **changes)
    model = PointerGenerator(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from zeros, which hide mistakes
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def by_the_equations(model: PointerGenerator, source: Tensor) -> Tensor:
    """Probabilities (T, N + 2) of the words after those of the first target, one step after the other."""
    attention, words = model.cross_attention, torch.where(source < N, source, 3)
    states, [(hidden, cell)] = model.encoder(model.embedding(words)[None], torch.tensor([len(words)]))
    s = torch.relu(model.first_hidden(hidden.flatten())), torch.relu(model.first_cell(cell.flatten()))
    covered, context, found = torch.zeros(len(source), dtype=states.dtype), torch.zeros_like(states[0, 0]), []
    for word in TARGET[0].tolist():
        x = model.input_proj(torch.cat([model.embedding.weight[word if word < N else 3], context]))
        s = tuple(y[0] for y in model.cell(x[None], (s[0][None], s[1][None])))
        both = torch.cat(s)
        told = states[0] @ attention.key_proj.weight.T + attention.query_proj(both)
        if attention.coverage is not None:
            told = told + covered[:, None] * attention.coverage
        weights = torch.softmax(torch.tanh(told) @ attention.vector, 0)
        context, covered = weights @ states[0], covered + weights
        features = model.readout(torch.cat([s[0], context]))
        generated = torch.softmax(features @ model.embedding.weight.T + model.output_bias, 0)
        gate = torch.sigmoid(model.gate(torch.cat([context, both, x])))
        total = torch.cat([gate * generated, torch.zeros(2, dtype=states.dtype)])
        for place, word in enumerate(source.tolist()):
            total[word] += (1 - gate[0]) * weights[place]
        found.append(total)
    return torch.stack(found)


@pytest.mark.parametrize("coverage", [True, False])
@torch.no_grad()
def test_the_equations(coverage: bool) -> None:
    model = made(coverage=coverage)
    probabilities = model(SOURCE, LENGTHS, TARGET).logits.exp()
    assert probabilities.shape == (2, 4, N + 2)
    torch.testing.assert_close(probabilities[0], by_the_equations(model, SOURCE[0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 4, dtype=torch.float64))
    assert not probabilities[1, :, 12].any()  # a word of the other source


@torch.no_grad()
def test_steps_are_the_whole_and_padding_changes_nothing() -> None:
    model = made()
    whole = model(SOURCE, LENGTHS, TARGET).logits.exp()
    state, _ = model.prefill(SOURCE, LENGTHS)
    steps = [model.step(tokens, state) for tokens in TARGET.split(1, 1)]
    torch.testing.assert_close(torch.cat(steps, 1).exp(), whole, rtol=0, atol=1e-12)
    alone = model(SOURCE[1:, :3], None, TARGET[1:]).logits.exp()
    torch.testing.assert_close(alone[0], whole[1, :, : N + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk", [N, 10**6])
def test_the_loss_and_its_gradients(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointer_generator, "CHUNK", chunk)
    labels = torch.tensor([[5, 12, 9, 2], [11, 8, IGNORED, IGNORED]])
    model = made(coverage_loss=0.5)
    output = model(SOURCE, LENGTHS, TARGET)
    loss = output.cross_entropy(labels)
    assert loss.count == 6
    counted = labels != IGNORED
    logs = output.logits[counted].gather(1, labels[counted][:, None])
    torch.testing.assert_close(loss.plain, -logs.sum())
    torch.testing.assert_close(loss.smoothed, loss.plain + 0.5 * output.coverage[counted].sum())
    parameters = list(model.parameters())
    expected = torch.autograd.grad(-logs.sum() + 0.5 * output.coverage[counted].sum(), parameters, retain_graph=True)
    for found, right in zip(torch.autograd.grad(loss.smoothed, parameters), expected, strict=True):
        torch.testing.assert_close(found, right)


def test_coverage_is_what_was_attended_to_before() -> None:
    output = made()(SOURCE, LENGTHS, TARGET)
    before = output.weights.cumsum(1) - output.weights
    torch.testing.assert_close(output.coverage, torch.minimum(before, output.weights).sum(-1))
    assert not output.coverage[:, 0].any()


@pytest.mark.parametrize("search", [Greedy(), Beam(3)], ids=str)
def test_a_source_is_summarized_alike_in_any_batch(search: Greedy | Beam) -> None:
    model = made(torch.float32)
    sources = [[5, 11, 7], [8, 9], [11, 12, 13, 5, 6], [4]]
    together = generate(model, sources, search=search, max_length=7)
    for source, hypotheses in zip(sources, together, strict=True):
        [alone] = generate(model, [source], search=search, max_length=7)
        assert alone[0].tokens == hypotheses[0].tokens
        assert all(token < N or token in source for token in alone[0].tokens)


def test_without_copying_there_is_no_gate() -> None:
    model = made(copy=False)
    output = model(SOURCE, LENGTHS, TARGET)
    assert model.gate is None
    assert bool((output.logits[..., N:] == -torch.inf).all())


def test_half_precision() -> None:
    model = made(torch.float32)
    labels = torch.tensor([[5, 12, 9, 2], [11, 8, 6, 2]])
    exact = model(SOURCE, LENGTHS, TARGET).cross_entropy(labels)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(SOURCE, LENGTHS, TARGET).cross_entropy(labels)
    low.smoothed.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(low.plain.float(), exact.plain, rtol=0.05, atol=0)
