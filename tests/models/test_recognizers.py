"""What every speech recognizer must do, whatever it is made of."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.errors import ConfigError, ShapeError
from regard.models.joint_ctc import ctc_loss, ctc_positions
from regard.models.registry import build, config_from_plain, config_to_plain
from regard.models.seq2seq import Seq2Seq, Vocabulary
from regard.tasks.registry import RECOGNIZERS

N, MELS = 19, 10
SMALL: dict[str, dict[str, Any]] = {
    "listener": {
        "hidden_dim": 12, "embed_dim": 7, "align_dim": 5, "encoder_layers": 2, "kernel_size": 3, "num_filters": 2,
    },
    "speech-transformer": {
        "embed_dim": 8, "num_heads": 2, "ffn_dim": 11, "encoder_layers": 2, "decoder_layers": 2, "channels": 3,
    },
}  # fmt: skip
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "listener, content": ("listener", {}),
    "listener, content, smoothing, no CTC": ("listener", {"smoothing": True, "ctc_weight": 0.0}),
    "listener, location": ("listener", {"attention_kind": "location", "decoder_layers": 2}),
    "listener, location, smoothing, window": (
        "listener", {"attention_kind": "location", "smoothing": True, "window": 2},
    ),
    "listener, flat": ("listener", {"reduction": 1}),
    "listener, 8 frames": ("listener", {"reduction": 8, "encoder_layers": 3}),
    "speech-transformer": ("speech-transformer", {}),
    "speech-transformer, post-norm, no CTC": ("speech-transformer", {"norm": "post", "ctc_weight": 0.0}),
}  # fmt: skip
torch.manual_seed(0)
SOUNDS = torch.randn(3, 23, MELS, dtype=torch.float64)
LENGTHS = torch.tensor([23, 14, 5])
TARGET = torch.tensor([[1, 13, 5, 9], [1, 3, 3, 18], [1, 7, 14, 8]])
LABELS = torch.tensor([[13, 5, 9, 2], [3, 3, 2, -100], [7, 2, -100, -100]])


def made(variant: str, dtype: torch.dtype = torch.float64) -> Seq2Seq:
    torch.manual_seed(1)
    name, changes = VARIANTS[variant]
    plain = {"vocabulary": {"size": N}, "num_mels": MELS, **SMALL[name], **changes}
    model = build(config_from_plain(name, plain)).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from zeros and ones, which hide mistakes
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_every_recognizer_is_here() -> None:
    assert {name for name, _ in VARIANTS.values()} == set(RECOGNIZERS)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_are_the_whole(variant: str, dtype: torch.dtype, error: float) -> None:
    model = made(variant, dtype)
    with torch.no_grad():
        whole = model(SOUNDS.to(dtype), LENGTHS, TARGET)
        assert whole.logits.shape == (3, 4, N)
        assert whole.logits.std() > 0.01
        state, tokens = model.prefill(SOUNDS.to(dtype), LENGTHS)
        assert tokens.tolist() == [1, 1, 1]
        steps = torch.cat([model.step(tokens, state) for tokens in TARGET.split(1, 1)], 1)
    torch.testing.assert_close(steps, whole.logits, rtol=0, atol=error)


@pytest.mark.parametrize("variant", VARIANTS)
def test_hypotheses_go_their_own_ways(variant: str) -> None:
    """Each ends as if its tokens alone had been read, whatever was split and dropped on the way."""
    model = made(variant)
    first, second = torch.tensor([[4, 5], [6, 7], [8, 9]]), torch.tensor([[10, 11], [12, 13], [14, 15]])
    parents, stay = torch.tensor([[1, 0], [1, 1], [0, 1]]), torch.tensor([0, 2])
    with torch.no_grad():
        state, tokens = model.prefill(SOUNDS, LENGTHS)
        model.step(tokens[:, None], state)
        state.reorder(torch.zeros(3, 2, dtype=torch.int64))
        model.step(first, state)
        state.reorder(parents)
        state.keep(stay)
        logits = model.step(second[stay], state)
        for row, k in itertools.product(range(2), range(2)):
            utterance = int(stay[row])
            before = first[utterance, parents[utterance, k]]
            target = torch.tensor([[1, before, second[utterance, k]]])
            alone = model(SOUNDS[utterance : utterance + 1], LENGTHS[utterance : utterance + 1], target).logits[0, -1]
            torch.testing.assert_close(logits[row, k], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant: str) -> None:
    """Neither outputs nor gradients, not even if it is NaN; and each utterance is as it is alone."""
    model, poisoned = made(variant), SOUNDS.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        poisoned[row, length:] = float("nan")
    outputs, gradients = [], []
    for sounds in (SOUNDS, poisoned):
        output = model(sounds, LENGTHS, TARGET)
        loss = output.cross_entropy(LABELS)
        gradients.append(torch.autograd.grad(loss.smoothed, list(model.parameters())))
        outputs.append(output)
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(SOUNDS[row : row + 1, :length], None, TARGET[row : row + 1])
        torch.testing.assert_close(outputs[0].logits[row : row + 1], alone.logits, rtol=0, atol=1e-10)
        states = int(outputs[0].memory.lengths[row])
        assert states == alone.memory.states.shape[1] == -(-length // model.config.reduction)
        together = outputs[0].memory.states[row : row + 1, :states]
        torch.testing.assert_close(together, alone.memory.states, rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_slopes(variant: str) -> None:
    model = made(variant)
    parameters = list(model.parameters())

    def loss() -> Tensor:
        return model(SOUNDS, LENGTHS, TARGET).cross_entropy(LABELS, label_smoothing=0.1).smoothed

    gradients = torch.autograd.grad(loss(), parameters)
    directions = [torch.randn_like(parameter) for parameter in parameters]
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    size, values = 1e-6, []
    before = copy.deepcopy(parameters)
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, start, direction in zip(parameters, before, directions, strict=True):
                parameter.copy_(start + sign * size * direction)
        values.append(float(loss().detach()))
    assert (values[0] - values[1]) / (2 * size) == pytest.approx(expected, rel=1e-5)
    assert sum(bool(g.abs().sum() > 0) for g in gradients) >= len(gradients) - 2  # softmax ignores biases of keys


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_token_sees_those_after_it(variant: str) -> None:
    model, other = made(variant), TARGET.clone()
    other[:, 3] = 4
    with torch.no_grad():
        one, two = (model(SOUNDS, LENGTHS, target).hidden for target in (TARGET, other))
    torch.testing.assert_close(one[:, :3], two[:, :3], rtol=0, atol=1e-12)
    assert not torch.equal(one[:, 3], two[:, 3])


@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast(variant: str) -> None:
    model = made(variant, torch.float32)
    sounds = SOUNDS.float()
    exact = model(sounds, LENGTHS, TARGET).hidden
    with torch.autocast("cpu", torch.bfloat16):
        output = model(sounds, LENGTHS, TARGET)
        output.cross_entropy(LABELS).smoothed.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert (output.hidden.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_the_ctc_loss_by_enumeration() -> None:
    """Over all paths of 3 states that give "5" or "5 5": the log of the sum of their probabilities."""
    torch.manual_seed(2)
    vocabulary = Vocabulary(size=6)
    logits = torch.randn(2, 4, 6, dtype=torch.float64)
    labels = torch.tensor([[5, 2, -100], [5, 5, 2]])
    lengths = torch.tensor([2, 3])
    log_probs = logits.log_softmax(-1)
    expected = 0.0
    for row, text in enumerate(([5], [5, 5])):
        total = torch.zeros((), dtype=torch.float64)
        for path in itertools.product(range(6), repeat=int(lengths[row])):
            collapsed = [token for token, _ in itertools.groupby(path) if token != 0]
            if collapsed == text:
                total += log_probs[row, range(len(path)), path].sum().exp()
        expected -= float(total.log())
    assert float(ctc_loss(logits, lengths, labels, vocabulary)) == pytest.approx(expected)
    assert ctc_positions([5, 5]) == 3
    # one state less, and there is no path: the loss of this row is 0
    shorter = ctc_loss(logits, torch.tensor([2, 2]), labels, vocabulary)
    assert float(shorter) == pytest.approx(float(ctc_loss(logits[:1], lengths[:1], labels[:1], vocabulary)))


def test_the_loss_is_that_of_the_decoder_and_ctc() -> None:
    weighted, without = (made(variant) for variant in ("listener, content", "listener, content, smoothing, no CTC"))
    output = weighted(SOUNDS, LENGTHS, TARGET)
    loss = output.cross_entropy(LABELS)
    assert loss.count == 9
    # 5 frames are 2 states: enough for "7"
    ctc = ctc_loss(output.ctc_logits, output.memory.lengths, LABELS, weighted.vocabulary)
    assert ctc > 0
    torch.testing.assert_close(loss.smoothed, loss.plain + 0.3 * ctc)
    with torch.no_grad():
        evaluated = weighted(SOUNDS, LENGTHS, TARGET).cross_entropy(LABELS)
    torch.testing.assert_close(evaluated.smoothed, loss.plain)
    assert without(SOUNDS, LENGTHS, TARGET).ctc_logits is None


def test_a_window_hides_what_is_far_from_the_previous_weights() -> None:
    model = made("listener, location, smoothing, window")
    seen = []

    def ask(module: Any, inputs: Any, options: Any) -> Any:
        return inputs, {**options, "summary": rg.Summary(weights=True)}

    def take(module: Any, inputs: Any, output: Any) -> Any:
        seen.append(output[1].weights[:, 0, 0])
        return output[0]

    model.cross_attention.register_forward_pre_hook(ask, with_kwargs=True)
    model.cross_attention.register_forward_hook(take)
    sounds = torch.randn(1, 80, MELS, dtype=torch.float64)
    with torch.no_grad():
        model(sounds, None, torch.tensor([[1, 4, 5, 6]]))
    median = torch.zeros(1)
    for weights in seen:
        [hidden] = (weights == 0).nonzero(as_tuple=True)[1:]
        assert len(hidden) >= 20 - 5
        assert ((hidden - median).abs() > 2).all()
        median = (weights.cumsum(-1) < 0.5).sum(-1)


@pytest.mark.parametrize("name", RECOGNIZERS)
def test_configurations_come_back(name: str) -> None:
    config = config_from_plain(name, {"vocabulary": {"size": N}, **SMALL[name], "ctc_weight": 0.5})
    assert config_from_plain(name, config_to_plain(config)) == config


def test_misuse() -> None:
    def config(name: str, **fields: Any) -> Any:
        return config_from_plain(name, {"vocabulary": {"size": N}, **fields})

    for name in RECOGNIZERS:
        with pytest.raises(ConfigError, match=r"ctc_weight=-0\.1 must be at least 0"):
            config(name, ctc_weight=-0.1)
        model = build(config(name, num_mels=MELS, **SMALL[name]))
        for inputs in (torch.zeros(2, 5, MELS + 1), torch.zeros(2, 0, MELS), torch.zeros(2, 5, dtype=torch.int64)):
            with pytest.raises(ShapeError, match=rf"\(batch, frames, {MELS}\) with at least one frame"):
                model(inputs, None, torch.ones(2, 1, dtype=torch.int64))
    with pytest.raises(ConfigError, match="reduction=3 with encoder_layers=3; expected a power of 2 from 1 to 8"):
        config("listener", reduction=3)
    with pytest.raises(ConfigError, match="reduction=16 with encoder_layers=3"):
        config("listener", reduction=16)
    with pytest.raises(ConfigError, match="hidden_dim=33; expected an even number"):
        config("listener", hidden_dim=33)
    with pytest.raises(ConfigError, match="window=5 with attention_kind='content'"):
        config("listener", window=5)
    with pytest.raises(ConfigError, match="kernel_size=50 must be odd"):
        config("listener", kernel_size=50)
    with pytest.raises(ConfigError, match="unknown attention_kind 'place'"):
        config("listener", attention_kind="place")
    with pytest.raises(ConfigError, match="unknown activation 'rleu'; did you mean 'relu'"):
        config("speech-transformer", activation="rleu")
