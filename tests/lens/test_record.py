"""The recorder sees what the attentions did, and leaves no trace."""

import pytest
import torch

import regard as rg
from regard.lens.record import record
from tests.lens.models import PATHS, model
from tests.models.inputs import lengths_of

SOURCE = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]])
TARGET = torch.tensor([[1, 11, 12], [1, 13, 14]])


@pytest.mark.parametrize("name", PATHS)
def test_every_attention_is_seen_and_outputs_stay_the_same(name: str) -> None:
    module = model(name)
    with torch.no_grad():
        plain = module(SOURCE, lengths_of(SOURCE), TARGET).logits
        with record(module) as seen:
            recorded = module(SOURCE, lengths_of(SOURCE), TARGET).logits
        after = module(SOURCE, lengths_of(SOURCE), TARGET).logits
    assert torch.allclose(recorded, plain, atol=1e-5)  # another backend may answer when weights are asked for
    assert torch.equal(after, plain)
    assert list(seen) == PATHS[name]
    assert len(seen) == len(PATHS[name])
    for path, attention in seen.items():
        keys = 3 if path.startswith("decoder") and "self" in path else 5
        rows = 5 if path.startswith("encoder") else 3
        assert attention.weights.shape[0] == 2
        assert attention.weights.shape[2:] == (rows, keys)
        assert torch.allclose(attention.weights.sum(-1)[0], torch.ones(rows), atol=1e-5)
        if "cross" in path:
            assert bool((attention.weights[1, ..., 3:] == 0).all())  # padding


@pytest.mark.parametrize("name", PATHS)
def test_steps_are_joined_to_what_the_whole_target_gives(name: str) -> None:
    module = model(name)
    with torch.no_grad():
        memory = module.encode(SOURCE, lengths_of(SOURCE))
        with record(module) as whole:
            module.decode(TARGET, memory)
        with record(module) as steps:
            state = module.start(memory)
            for t in range(TARGET.shape[1]):
                module.advance(TARGET[:, t, None], state)
    assert list(steps) == list(whole)
    for path in whole:
        assert torch.allclose(steps[path].weights, whole[path].weights, atol=1e-5), path


def test_summaries_of_several_calls_are_joined() -> None:
    layer = rg.MultiHeadAttention(8, 2)
    x, y = torch.randn(3, 5, 8), torch.randn(3, 2, 8)
    asked = rg.Summary(entropy=True, key_mass=True, top_k=1)
    with torch.no_grad(), record(layer, asked) as seen:
        layer(x)
        layer(y, x[:, :4])
    with torch.no_grad():  # with gradients a summary is computed in another way, and rounded otherwise
        once = [layer(*inputs, summary=asked)[1] for inputs in ((x,), (y, x[:, :4]))]
    joined = seen[""]
    assert joined.entropy.shape == (3, 2, 7)
    assert torch.equal(joined.entropy[:, :, 5:], once[1].entropy)
    assert joined.top_keys.shape == (3, 2, 7, 1)
    assert torch.allclose(joined.key_mass[..., :4], once[0].key_mass[..., :4] + once[1].key_mass)
    assert torch.equal(joined.key_mass[..., 4], once[0].key_mass[..., 4])
    assert joined.weights is None


def test_a_recording_can_be_read_while_it_goes_on() -> None:
    layer = rg.MultiHeadAttention(8, 2)
    with record(layer) as seen:
        assert list(seen) == []
        with pytest.raises(KeyError):
            seen[""]
        for calls in (1, 2, 3):
            layer(torch.randn(1, 4, 8))
            assert seen[""].weights.shape == (1, 2, 4 * calls, 4)


def test_gradients_go_through_what_is_recorded() -> None:
    layer = rg.MultiHeadAttention(8, 2)
    with record(layer, rg.Summary(entropy=True)) as seen:
        layer(torch.randn(1, 4, 8))
    seen[""].entropy.sum().backward()
    assert float(layer.query_proj.weight.grad.abs().sum()) > 0


def test_nothing_is_left_behind_after_an_error() -> None:
    layer = rg.MultiHeadAttention(8, 2)
    with pytest.raises(rg.errors.ShapeError), record(layer):
        layer(torch.randn(1, 4, 9))
    assert isinstance(layer(torch.randn(1, 4, 8)), torch.Tensor)
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks
