"""`replace_sdpa` against PyTorch's own function, over whatever forms its arguments take."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention as by_another_name

import regard as rg
from regard.integrations.plans import plans


@st.composite
def calls(draw):
    """Inputs of two to five dimensions that broadcast, any mask, and options: all that PyTorch's function takes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    rows, columns, dim, value_dim = (draw(st.sampled_from(sizes)) for sizes in ((1, 5), (1, 6), (3, 8), (3, 7)))
    leading = draw(st.sampled_from([(), (4,), (2, 4), (3, 2, 4)]))
    grouped = len(leading) > 0 and draw(st.booleans())

    def some(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def lead():
        """The leading dimensions, some of them left to broadcasting."""
        kind = draw(st.sampled_from(["whole", "whole", "ones", "fewer"]))
        if kind == "ones":
            return tuple(draw(st.sampled_from([1, n])) for n in leading)
        return leading[1:] if kind == "fewer" else leading

    if grouped:
        of_query, groups = lead() or leading, draw(st.sampled_from([1, 2, 4]))
        of_query, of_key = (*of_query[:-1], 4), (*leading[:-1], groups)
        of_value = of_key
    else:
        of_query, of_key, of_value = lead(), lead(), lead()
    query, key, value = (
        some((*of_query, rows, dim)),
        some((*of_key, columns, dim)),
        some((*of_value, columns, value_dim)),
    )
    options = {}
    if grouped:
        options["enable_gqa"] = True
    if draw(st.booleans()):
        options["scale"] = draw(st.sampled_from([0.3, 1, 0.0, -2.0]))
    weights = torch.broadcast_shapes(of_query, (*of_key[:-1], 1) if grouped else of_key)
    kind = draw(st.sampled_from(["none", "causal", "bool", "float", "infinite", "least"]))
    if kind == "causal":
        options["is_causal"] = True
    elif kind != "none":
        full = (*weights, rows, columns)
        shape = full[draw(st.integers(0, len(full) - 2)) :]
        shape = tuple(draw(st.sampled_from([1, n])) for n in shape)
        mask = torch.rand(shape, generator=generator) < 0.6
        if kind != "bool":
            hidden = {"float": -0.5, "infinite": -torch.inf, "least": torch.finfo(torch.float64).min}[kind]
            mask = torch.where(mask, some(shape), hidden)
        options["attn_mask"] = mask
    return (query, key, value), options


def test_a_mask_of_four_dimensions_beside_inputs_of_five():
    inputs = torch.randn(3, 3, 2, 4, 5, 8, dtype=torch.float64)
    mask = torch.rand(2, 1, 5, 1) < 0.6
    expected = functional.scaled_dot_product_attention(*inputs, mask)
    with rg.replace_sdpa():
        torch.testing.assert_close(functional.scaled_dot_product_attention(*inputs, mask), expected)


@given(call=calls())
def test_outputs_and_gradients_are_pytorchs(call):
    inputs, options = call
    inputs = [x.requires_grad_() for x in inputs]
    mask = options.get("attn_mask")
    if mask is not None and mask.is_floating_point():
        inputs.append(mask.requires_grad_())
    expected = functional.scaled_dot_product_attention(*inputs[:3], **options)
    with plans() as collected, rg.replace_sdpa():
        found = functional.scaled_dot_product_attention(*inputs[:3], **options)
    assert len(collected) == 1
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    weights = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = [torch.autograd.grad((y * weights).sum(), inputs, allow_unused=True) for y in (found, expected)]
    for x, y in zip(*gradients, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-10)


PASSED = {
    "empty batch": lambda: (torch.randn(0, 2, 3, 4), torch.randn(0, 2, 5, 4), torch.randn(0, 2, 5, 6), {}),
    "no keys": lambda: (torch.randn(2, 3, 4), torch.randn(2, 0, 4), torch.randn(2, 0, 6), {}),
    "no features": lambda: (torch.ones(2, 3, 0), torch.ones(2, 5, 0), torch.ones(2, 5, 6), {}),
    "all dropped": lambda: (*torch.randn(3, 2, 5, 4), {"dropout_p": 1.0}),
    "meta": lambda: (*torch.randn(3, 2, 5, 4, device="meta"), {}),
    "nested": lambda: (*(nested(),) * 3, {}),
    "no numbers": lambda: (*torch.randn(3, 2, 5, 4), {"scale": float("nan")}),
}


@pytest.mark.parametrize("shape", [(), (1,), (6,)])
def test_masks_of_fewer_dimensions(shape):
    """Of which PyTorch's kernels take some."""
    query, key, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 6, 4), torch.randn(2, 3, 6, 7)
    mask = torch.randn(shape)
    expected = functional.scaled_dot_product_attention(query, key, value, mask.expand(5, 6))
    with rg.replace_sdpa():
        found = functional.scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(found, expected)


def nested():
    torch.manual_seed(0)
    return torch.nested.nested_tensor([torch.randn(n, 2, 8) for n in (3, 4)], layout=torch.jagged).transpose(1, 2)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", list(PASSED))
def test_what_attend_does_not_mean_passes_through(name):
    torch.manual_seed(0)
    *inputs, options = PASSED[name]()
    expected = functional.scaled_dot_product_attention(*inputs, **options)
    with plans() as collected, rg.replace_sdpa():
        found = functional.scaled_dot_product_attention(*inputs, **options)
    assert collected == []
    assert found.shape == expected.shape
    if name not in ("meta", "nested"):
        torch.testing.assert_close(found, expected, equal_nan=True)


WRONG = {
    "one dimension": lambda: (torch.randn(4), torch.randn(5, 4), torch.randn(5, 4), {}),
    "sizes": lambda: (torch.randn(2, 3, 4), torch.randn(2, 5, 3), torch.randn(2, 5, 4), {}),
    "heads": lambda: (torch.randn(1, 4, 3, 4), torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4), {}),
    "groups": lambda: (
        torch.randn(1, 5, 3, 4), torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4), {"enable_gqa": True},
    ),
    "both masks": lambda: (
        *torch.randn(3, 2, 5, 4), {"is_causal": True, "attn_mask": torch.ones(5, 5, dtype=torch.bool)},
    ),
    "integers": lambda: (*torch.ones(3, 2, 5, 4, dtype=torch.int64), {}),
    "mask of integers": lambda: (*torch.randn(3, 2, 5, 4), {"attn_mask": torch.ones(5, 5, dtype=torch.int64)}),
    "mask of another precision": lambda: (*torch.randn(3, 2, 5, 4), {"attn_mask": torch.zeros(5, 5).double()}),
    "mask of another size": lambda: (*torch.randn(3, 2, 5, 4), {"attn_mask": torch.zeros(5, 4)}),
    "mixed": lambda: (torch.randn(2, 5, 4), torch.randn(2, 5, 4).double(), torch.randn(2, 5, 4), {}),
    "no tensor": lambda: ([1.0], torch.randn(2, 5, 4), torch.randn(2, 5, 4), {}),
    "unknown option": lambda: (*torch.randn(3, 2, 5, 4), {"causal": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_errors_are_pytorchs(name):
    *inputs, options = WRONG[name]()
    with pytest.raises((RuntimeError, TypeError)) as expected:
        functional.scaled_dot_product_attention(*inputs, **options)
    with rg.replace_sdpa(), pytest.raises(type(expected.value)):
        functional.scaled_dot_product_attention(*inputs, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "float32"])
def test_lesser_precisions(dtype, mask):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 17, 8, dtype=dtype)
    given = {
        "none": None,
        "bool": torch.rand(17, 17) < 0.6,
        "float": torch.randn(2, 1, 17, 17, dtype=dtype),
        "float32": torch.randn(17, 17),
    }[mask]
    exact = functional.scaled_dot_product_attention(
        *(x.double() for x in (query, key, value)), given.double() if given is not None and mask != "bool" else given
    )
    theirs = functional.scaled_dot_product_attention(query, key, value, given)
    with plans() as collected, rg.replace_sdpa():
        ours = functional.scaled_dot_product_attention(query, key, value, given)
    assert len(collected) == 1
    assert ours.dtype == dtype
    assert (ours - exact).abs().max() <= 2 * (theirs - exact).abs().max() + 8 * torch.finfo(dtype).eps


def test_autocast_computes_in_the_lower_precision():
    query, key, value = torch.randn(3, 2, 3, 9, 8)
    mask = torch.randn(9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        expected = functional.scaled_dot_product_attention(query, key.bfloat16(), value, mask)
        with plans() as collected, rg.replace_sdpa():
            found = functional.scaled_dot_product_attention(query, key.bfloat16(), value, mask)
    assert len(collected) == 1
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


def test_dropout_is_attends():
    query, key, value = torch.randn(3, 2, 3, 9, 8)
    torch.manual_seed(3)
    with rg.replace_sdpa():
        found = functional.scaled_dot_product_attention(query, key, value, dropout_p=0.3)
    torch.manual_seed(3)
    torch.testing.assert_close(found, rg.attend(query, key, value, dropout=0.3))


def test_a_query_that_sees_nothing_gets_nothing_in_both():
    query, key, value = torch.randn(3, 1, 2, 4, 8)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1] = False
    for form in (mask, torch.where(mask, 0.0, -torch.inf)):
        with rg.replace_sdpa():
            found = functional.scaled_dot_product_attention(query, key, value, form)
        expected = functional.scaled_dot_product_attention(query, key, value, form)
        assert (found[:, :, 1] == 0).all()
        assert (expected[:, :, 1] == 0).all()


def count(run):
    """How many calls went through `attend`."""
    with plans() as collected:
        run()
    return len(collected)


def once():
    functional.scaled_dot_product_attention(*torch.randn(3, 1, 2, 4, 8))


def test_the_block_begins_and_ends():
    assert count(once) == 0
    with rg.replace_sdpa():
        assert count(once) == 1
        assert count(lambda: by_another_name(*torch.randn(3, 1, 2, 4, 8))) == 1
    assert count(once) == 0


def test_blocks_stand_in_each_other():
    with rg.replace_sdpa():
        with rg.replace_sdpa():
            assert count(once) == 1
        assert count(once) == 1
    assert count(once) == 0


def test_the_block_ends_with_an_error():
    with pytest.raises(TypeError), rg.replace_sdpa():
        functional.scaled_dot_product_attention()
    assert count(once) == 0


def test_one_block_can_be_entered_again():
    block = rg.replace_sdpa()
    for _ in range(2):
        with block:
            assert count(once) == 1
    assert count(once) == 0


def test_other_threads_are_left_alone():
    inside, done, found = threading.Event(), threading.Event(), []

    def other():
        inside.wait()
        found.append(count(once))
        with rg.replace_sdpa():
            found.append(count(once))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with rg.replace_sdpa():
        inside.set()
        done.wait()
        found.append(count(once))
    thread.join()
    assert found == [0, 1, 1]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("default_device", [False, True])
def test_transformer_layers_leave_their_fused_path(training, default_device):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 3, 40, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().train(training)
    x, padding = torch.randn(2, 7, 24, dtype=torch.float64), torch.arange(7) >= torch.tensor([[7], [4]])
    with torch.set_grad_enabled(training):
        expected = model(x, src_key_padding_mask=padding)
        with torch.device("cpu") if default_device else rg.replace_sdpa(), plans() as collected, rg.replace_sdpa():
            found = model(x, src_key_padding_mask=padding)
    assert len(collected) == 2
    torch.testing.assert_close(found[~padding], expected[~padding], rtol=0, atol=1e-10)


def test_multihead_attention_calls_it_only_without_weights():
    module, x = nn.MultiheadAttention(24, 3, batch_first=True).eval(), torch.randn(2, 7, 24)
    with rg.replace_sdpa():
        assert count(lambda: module(x, x, x, need_weights=False)) == 1
        assert count(lambda: module(x, x, x)) == 0


def test_a_transform_passes_through():
    query, key, value = torch.randn(3, 5, 2, 4, 8)
    with rg.replace_sdpa():
        found = torch.vmap(functional.scaled_dot_product_attention)(query, key, value)
        gradient = torch.func.grad(lambda x: functional.scaled_dot_product_attention(x, key, value).sum())(query)
    torch.testing.assert_close(found, functional.scaled_dot_product_attention(query, key, value))
    assert gradient.shape == query.shape


def test_a_trace_holds_pytorchs_own():
    query, key, value = torch.randn(3, 1, 2, 4, 8)

    def run(q):
        return functional.scaled_dot_product_attention(q, key, value)

    with rg.replace_sdpa():
        traced = torch.jit.trace(run, query)
    other = torch.randn_like(query)
    torch.testing.assert_close(traced(other), run(other))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
def test_compiled_code_gives_the_same():
    query, key, value = torch.randn(3, 1, 2, 4, 8)
    mask = torch.rand(4, 4) < 0.7

    def run(q, m):
        return functional.scaled_dot_product_attention(q, key, value, m) * 2

    with rg.replace_sdpa():
        found = torch.compile(run, backend="aot_eager")(query, mask)
    torch.testing.assert_close(found, run(query, mask))
