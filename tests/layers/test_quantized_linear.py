"""Layers in int8: near the floats, replaced and restored, copied, saved, and refused where gradients are needed."""

import copy
import io

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import regard as rg
from regard.errors import ConfigError, ShapeError, UnsupportedError
from regard.layers.quantization import quantizable, quantize_maps, restore_maps
from regard.layers.quantized_linear import QuantizedEmbedding, QuantizedLinear, is_quantized
from regard.layers.transformer_layer import EncoderLayer

ROWS, INPUTS, OUTPUTS = 11, 97, 83


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(INPUTS, OUTPUTS)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    shared = nn.Linear(80, 80)
    return nn.Sequential(nn.Linear(INPUTS, 80), nn.ReLU(), shared, shared, nn.Linear(80, 3)).eval()


def test_near_the_floats() -> None:
    exact, x = linear(), torch.randn(ROWS, INPUTS)
    y = QuantizedLinear.of(exact)(x)
    # Each number is rounded by at most half a code: of x to max|x| / 254, of W likewise.
    x_half, w_half = x.abs().amax(1, keepdim=True) / 254, exact.weight.abs().amax(1) / 254
    bound = x_half * exact.weight.abs().sum(1) + w_half * x.abs().sum(1, keepdim=True) + INPUTS * x_half * w_half
    assert (y - exact(x)).abs().max() > 0
    assert ((y - exact(x)).abs() <= 1.001 * bound + 1e-6).all()


def test_weight_and_embedding_are_the_codes_times_the_scales() -> None:
    embedding = nn.Embedding(300, 33)
    quantized = QuantizedEmbedding.of(embedding)
    tokens = torch.tensor([[0, 299, 17], [15, 16, 31]])
    assert quantized(tokens).shape == (2, 3, 33)
    assert torch.equal(quantized(tokens), quantized.weight[tokens])
    half = embedding.weight.abs().amax(1, keepdim=True) / 254
    assert ((quantized.weight - embedding.weight).abs() <= 1.001 * half).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_output_has_the_dtype_of_the_input(dtype: torch.dtype) -> None:
    layer, x = QuantizedLinear.of(linear()), torch.randn(2, ROWS, INPUTS).to(dtype)
    y = layer(x)
    assert (y.shape, y.dtype) == ((2, ROWS, OUTPUTS), dtype)
    assert torch.equal(y, layer(x.float()).to(dtype))


def test_small_and_unusual_maps_stay() -> None:
    hooked, subclass = nn.Linear(80, 80), type("Own", (nn.Linear,), {})(80, 80)
    hooked.register_forward_hook(lambda *_: None)
    infinite = nn.Linear(80, 80)
    infinite.weight.data[0, 0] = torch.inf
    module = nn.ModuleDict(
        {"few": nn.Linear(80, 3), "hooked": hooked, "own": subclass, "infinite": infinite, "usual": nn.Linear(80, 80)}
    )
    assert list(quantizable(module, embeddings=True)) == ["usual"]


def test_replaced_and_restored() -> None:
    module, x = network(), torch.randn(5, INPUTS)
    text, parts, state = str(module), list(module), {name: t.clone() for name, t in module.state_dict().items()}
    expected = module(x)
    assert rg.accelerate(module, dtype="int8") is module
    assert [is_quantized(part) for part in module] == [True, False, True, True, False]
    assert module[2] is module[3]
    with torch.no_grad():
        assert 0 < (module(x) - expected).abs().max() < 0.1
    assert rg.restore(module) is module
    assert str(module) == text
    assert list(module) == parts
    assert all(torch.equal(t, state[name]) for name, t in module.state_dict().items())
    assert torch.equal(module(x), expected)


def test_another_dtype_undoes_int8() -> None:
    module, x = network(), torch.randn(40, INPUTS)
    with torch.no_grad():
        expected = module(x)
        rg.accelerate(rg.accelerate(module, dtype="int8"))
        assert torch.allclose(module(x), expected, atol=1e-5)


def test_a_linear_map_itself() -> None:
    exact = linear()
    layer = rg.accelerate(exact, dtype="int8")
    assert isinstance(layer, QuantizedLinear)
    assert rg.restore(layer) is exact


def test_skipped_by_name() -> None:
    module = quantize_maps(network(), skip=["2"])
    assert [is_quantized(part) for part in module] == [True, False, False, False, False]
    with pytest.raises(ConfigError, match="skip='9' is no linear map of the module"):
        quantize_maps(network(), skip=["9"])


def test_copies_and_state_dicts() -> None:
    module, x = quantize_maps(network()), torch.randn(5, INPUTS)
    expected = module(x)
    assert torch.equal(copy.deepcopy(module)(x), expected)
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    other = network()
    for parameter in other.parameters():
        parameter.data.mul_(2)
    other = quantize_maps(other)
    other.load_state_dict(torch.load(buffer))
    assert torch.equal(other(x), expected)
    assert sorted(dict(module.named_parameters())) == ["4.bias", "4.weight"]


def test_scales_stay_float32() -> None:
    layer, x = QuantizedLinear.of(linear()), torch.randn(ROWS, INPUTS)
    expected = layer(x)
    layer.half()
    assert {layer.codes.dtype, layer.scales.dtype, layer.bias.dtype} == {torch.int8, torch.float32}
    assert torch.equal(layer(x), expected)


def test_gradients_and_training_are_refused() -> None:
    module, x = quantize_maps(network()), torch.randn(5, INPUTS, requires_grad=True)
    with pytest.raises(UnsupportedError, match=r"int8 weights have no gradients.*restore"):
        module(x)
    with torch.no_grad():
        module(x)
    with pytest.raises(UnsupportedError, match=r"cannot be trained.*restore"):
        module.train()
    module.eval()


def test_a_wrong_number_of_features() -> None:
    with pytest.raises(ShapeError, match=r"of 97 features in int8 got .*; expected \(\.\.\., 97\)"):
        QuantizedLinear.of(linear())(torch.randn(2, 5))


def test_data_parallel_training_is_refused(tmp_path: object) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(nn.Sequential(nn.Linear(INPUTS, INPUTS), quantize_maps(network())))
        with pytest.raises(UnsupportedError, match="int8"):
            parallel.train()
        with pytest.raises(UnsupportedError, match="int8"):
            parallel(torch.randn(5, INPUTS))
    finally:
        dist.destroy_process_group()


def test_attention_of_a_padded_batch_is_bitwise_that_of_each() -> None:
    torch.manual_seed(0)
    layer = quantize_maps(EncoderLayer(64, 1, 128, dropout=0).eval())
    x, lengths = torch.randn(3, 70, 64), torch.tensor([70, 9, 33])
    with torch.inference_mode():
        together = layer(x, rg.KeyLengths(lengths))
        for i, length in enumerate(lengths.tolist()):
            alone = layer(x[i : i + 1, :length], rg.KeyLengths(lengths[i : i + 1]))
            assert torch.equal(together[i, :length], alone[0])
            assert torch.equal(layer(x[i : i + 1, :length], rg.Full()), alone)


def test_restore_without_originals_changes_nothing() -> None:
    module = quantize_maps(network())
    assert is_quantized(restore_maps(module)[0])


def test_hooks_of_projections_are_called() -> None:
    torch.manual_seed(0)
    layer = quantize_maps(rg.MultiHeadAttention(64, 2).eval())
    x, seen = torch.randn(2, 9, 64), []
    expected = layer(x)
    layer.key_proj.register_forward_hook(lambda *call: seen.append(call[2]))
    assert torch.equal(layer(x), expected)
    assert len(seen) == 1
