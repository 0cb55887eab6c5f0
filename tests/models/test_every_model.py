"""What every model of source and target must do, whatever it is made of."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.layers.attention_config import AttentionConfig
from regard.models.registry import build, config_from_plain
from regard.models.seq2seq import Seq2Seq
from regard.tasks.text_to_text import TextToText
from tests.models.inputs import lengths_of

N = 19
SMALL = {
    "transformer": {"embed_dim": 8, "num_heads": 2, "ffn_dim": 11, "encoder_layers": 2, "decoder_layers": 2},
    "rnn": {"embed_dim": 6, "hidden_dim": 8, "align_dim": 5},
    "luong": {"embed_dim": 6, "hidden_dim": 8, "window_size": 2, "max_length": 13},
    "convs2s": {"embed_dim": 6, "hidden_dim": 8, "encoder_layers": 2, "decoder_layers": 2, "max_length": 13},
}
ENTMAX = {"normalizer": {"kind": "entmax", "alpha": 1.5}}
WINDOW = {"pattern": {"kind": "sliding-window", "left": 1, "right": 1}}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "transformer": ("transformer", {}),
    "rnn": ("rnn", {}),
    "rnn, fixed": ("rnn", {"context": "fixed", "share_embeddings": False, "tie_output": False}),
    "rnn, other values": ("rnn", {"attention": {"score": {"kind": "cosine", "scale": 3.0}, **ENTMAX, **WINDOW}}),
    "luong, dot": ("luong", {"score": "dot", "input_feeding": False}),
    "luong, general, local-m": ("luong", {"window": "local-m"}),
    "luong, concat, local-p": ("luong", {"score": "concat", "window": "local-p", "num_layers": 3}),
    "luong, dot, local-p": ("luong", {"score": "dot", "window": "local-p", "input_feeding": False}),
    "luong, location": ("luong", {"score": "location", "num_layers": 1}),
    "luong, other values": ("luong", {"window": "local-m", "attention": {"score": "additive", **ENTMAX, **WINDOW}}),
    "convs2s": ("convs2s", {"share_embeddings": False}),
    "convs2s, kernel 5": ("convs2s", {"kernel": 5, "tie_output": False}),
    "convs2s, other values": ("convs2s", {"attention": {"score": "additive", **ENTMAX, **WINDOW}}),
}
SOURCE = torch.tensor([[5, 9, 3, 7, 11, 4, 2], [8, 6, 17, 2, 0, 0, 0], [12, 2, 0, 0, 0, 0, 0]])
LENGTHS = lengths_of(SOURCE)
TARGET = torch.tensor([[1, 13, 5, 9, 4, 16], [1, 3, 3, 18, 10, 6], [1, 7, 14, 8, 15, 12]])


def made(variant: str, dtype: torch.dtype = torch.float64) -> Seq2Seq:
    torch.manual_seed(0)
    name, changes = VARIANTS[variant]
    config = config_from_plain(name, {"vocabulary": {"size": N}, **SMALL[name], **changes})
    model = build(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from zeros and ones, which hide mistakes
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def stepped(model: Seq2Seq, source: Tensor, target: Tensor) -> Tensor:
    state = model.start(model.encode(source, lengths_of(source)))
    return torch.cat([model.advance(tokens, state) for tokens in target.split(1, 1)], 1)


def test_every_architecture_is_here() -> None:
    assert {name for name, _ in VARIANTS.values()} == set(TextToText.models)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_are_the_whole(variant: str, dtype: torch.dtype, error: float) -> None:
    model = made(variant, dtype)
    with torch.no_grad():
        whole = model(SOURCE, LENGTHS, TARGET)
        assert whole.logits.shape == (3, 6, N)
        assert whole.logits.std() > 0.01
        torch.testing.assert_close(stepped(model, SOURCE, TARGET), whole.hidden, rtol=0, atol=error)


@pytest.mark.parametrize("variant", VARIANTS)
def test_hypotheses_of_a_sentence_go_their_own_ways(variant: str) -> None:
    """Each ends as if its tokens alone had been read, whatever was split, dropped and finished on the way."""
    model = made(variant)
    tokens = [torch.ones(3, 1, dtype=torch.int64)] + [torch.randint(3, N, (3, k)) for k in (3, 3, 2)]
    moves = [torch.tensor([[0, 0, 0]] * 3), torch.tensor([[2, 0, 0], [1, 1, 2], [0, 1, 2]])]
    moves += [torch.tensor([[1, 2], [0, 2], [2, 0]])]
    stay = torch.tensor([2, 0])
    with torch.no_grad():
        state, so_far = model.start(model.encode(SOURCE, LENGTHS)), tokens[0][..., None]
        model.advance(tokens[0], state)
        for parents, new in zip(moves, tokens[1:], strict=True):
            state.reorder(parents)
            found = model.advance(new, state)
            chosen = so_far.gather(1, parents[..., None].expand(-1, -1, so_far.shape[2]))
            so_far = torch.cat([chosen, new[..., None]], 2)
        state.keep(stay)
        new = torch.randint(3, N, (2, 2))
        found = model.advance(new, state)
        so_far = torch.cat([so_far[stay], new[..., None]], 2)
        for k in range(2):
            alone = model(SOURCE[stay], lengths_of(SOURCE[stay]), so_far[:, k]).hidden[:, -1]
            torch.testing.assert_close(found[:, k], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant: str) -> None:
    model = made(variant)
    with torch.no_grad():
        together = model(SOURCE, LENGTHS, TARGET).hidden
        for i, length in enumerate((7, 4, 2)):
            alone = model(SOURCE[i : i + 1, :length], None, TARGET[i : i + 1]).hidden
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-10)
        for parameter in model.parameters():  # whatever the vector of padding is
            if parameter.dim() == 2 and len(parameter) == N:
                parameter[model.vocabulary.pad] += 100
        torch.testing.assert_close(model(SOURCE, LENGTHS, TARGET).hidden, together, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_token_sees_those_after_it(variant: str) -> None:
    model, other = made(variant), TARGET.clone()
    other[:, 4] = 2
    with torch.no_grad():
        torch.testing.assert_close(
            model(SOURCE, LENGTHS, other).hidden[:, :4],
            model(SOURCE, LENGTHS, TARGET).hidden[:, :4],
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_source_of_padding_alone_is_finite(variant: str) -> None:
    with torch.no_grad():
        assert (
            made(variant)(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), TARGET)
            .logits.isfinite()
            .all()
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_slopes(variant: str) -> None:
    model = made(variant)
    parameters = list(model.parameters())
    weights = torch.randn(3, 6, N, dtype=torch.float64)

    def value() -> Tensor:
        return (torch.log_softmax(model(SOURCE, LENGTHS, TARGET).logits, -1) * weights).sum()

    gradients = torch.autograd.grad(value(), parameters)
    directions = [torch.randn_like(parameter) for parameter in parameters]
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    size, found = 1e-6, []
    with torch.no_grad():
        for sign in (1, -1):
            moved = copy.deepcopy(parameters)
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * size * direction
            found.append(float(value()))
            for parameter, before in zip(parameters, moved, strict=True):
                parameter.copy_(before)
    assert (found[0] - found[1]) / (2 * size) == pytest.approx(expected, rel=1e-5)
    used = [g.abs().sum() > 0 for g in gradients]
    assert sum(used) >= len(used) - 1  # softmax does not feel the bias of a key


@pytest.mark.parametrize("variant", VARIANTS)
def test_dropout_is_for_training_only(variant: str) -> None:
    model = made(variant)
    with torch.no_grad():
        assert torch.equal(model(SOURCE, LENGTHS, TARGET).logits, model(SOURCE, LENGTHS, TARGET).logits)
        model.train()
        assert not torch.equal(model(SOURCE, LENGTHS, TARGET).logits, model(SOURCE, LENGTHS, TARGET).logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast(variant: str) -> None:
    """Half precision is near full precision, forward, stepwise and backward."""
    model = made(variant, torch.float32)
    exact = model(SOURCE, LENGTHS, TARGET).hidden
    with torch.autocast("cpu", torch.bfloat16):
        output = model(SOURCE, LENGTHS, TARGET)
        with torch.no_grad():
            steps = stepped(model, SOURCE, TARGET)
    output.logits.float().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for found in (output.hidden, steps):
        assert (found.float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "rnn, fixed"])
def test_attention_can_be_seen_from_outside(variant: str) -> None:
    """As the lens does it: ask by a pre-hook, take the answer off by a hook; outputs stay as they are."""
    model, seen = made(variant), {}
    with torch.no_grad():
        plain = model(SOURCE, LENGTHS, TARGET).logits
    hooks = []
    for name, module in model.named_modules():
        if name.endswith("cross_attention"):
            seen[name] = []

            def ask(module: Any, inputs: Any, options: Any) -> Any:
                return inputs, {**options, "summary": rg.Summary(weights=True)}

            def take(module: Any, inputs: Any, output: Any, name: str = name) -> Any:
                seen[name].append(output[1].weights)
                return output[0]

            hooks += [module.register_forward_pre_hook(ask, with_kwargs=True), module.register_forward_hook(take)]
    with torch.no_grad():
        torch.testing.assert_close(model(SOURCE, LENGTHS, TARGET).logits, plain)
    assert seen
    for parts in seen.values():
        weights = torch.cat(parts, 2)  # (B, H, T, S)
        assert weights.shape[2:] == (6, 7)
        assert weights[1, :, :, 4:].abs().max() == 0  # padding
        if "local" not in variant and "values" not in variant:
            torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_weights_start_the_same_for_a_seed() -> None:
    for variant in VARIANTS:
        for (name, a), (_, b) in zip(
            made(variant).state_dict().items(), made(variant).state_dict().items(), strict=True
        ):
            assert torch.equal(a, b), name


def test_other_values_come_from_the_configuration() -> None:
    attention = AttentionConfig.from_plain({"score": {"kind": "cosine", "scale": 3.0}, **ENTMAX, **WINDOW})
    for name, small in SMALL.items():
        model = build(config_from_plain(name, {"vocabulary": {"size": N}, **small, "attention": attention}))
        [*modules] = [module for path, module in model.named_modules() if path.endswith("cross_attention")]
        assert modules
        for module in modules:
            assert (module.score, module.normalizer) == (rg.Cosine(3.0), rg.Entmax(1.5)) or name == "transformer"
