"""Models of `transformers` with regard's attention, against the library's own."""

from types import SimpleNamespace

import pytest
import torch

import regard as rg
from regard.errors import UnsupportedError
from regard.integrations.plans import plans
from tests.integrations.made import BOTH, MODELS, inputs, model, output, padding, pair

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:transformers", "ignore::FutureWarning:transformers")

# The library's eager attention takes the softmax in float32 there; in float64 its hidden scores become NaN by that.
SINGLE = ("gemma2",)
PADDED = [name for name in MODELS if name not in ("whisper", "vit")]
CASES = [(name, side) for name in PADDED for side in ("none", "right", "left", "holes")] + [
    ("whisper", "none"),
    ("vit", "none"),
]


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()


@pytest.mark.parametrize(("name", "side"), CASES)
def test_outputs_and_gradients_are_the_librarys(name, side):
    theirs, ours = pair(name, torch.float32 if name in SINGLE else torch.float64)
    given, tolerance = inputs(name, padding(side)), 1e-5 if name in SINGLE else 1e-10
    found = [output(m, name, given) for m in (theirs, ours)]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=tolerance)
    gradients = []
    for m, y in zip((theirs, ours), found, strict=True):
        y.square().sum().backward()
        gradients.append({n: p.grad for n, p in m.named_parameters()})
    some = 0
    for parameter, expected in gradients[0].items():
        if expected is not None:
            some += 1
            scale = max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(gradients[1][parameter], expected, rtol=0, atol=tolerance * scale)
    assert some > 5


@pytest.mark.parametrize("name", ["bert", "gpt2", "mistral", "t5", "whisper"])
def test_float32_outputs_are_near(name):
    theirs, ours = pair(name, torch.float32)
    given = inputs(name, padding("right"), torch.float32)
    expected, found = (output(m, name, given) for m in (theirs, ours))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_bfloat16_runs(name):
    theirs, ours = pair(name, torch.bfloat16)
    given = inputs(name, padding("right"))
    expected, found = (output(m, name, given) for m in (theirs, ours))
    assert found.dtype == torch.bfloat16
    assert (found - expected).abs().max() <= 0.05 * expected.abs().max()


PATTERNS = {
    "bert": {"Full()", "KeyLengths(lengths=Tensor(3))"},
    "gpt2": {"Causal()", "Causal() & KeyLengths(lengths=Tensor(3))"},
    "mistral": {
        "SlidingWindow(left=3) & Causal()",
        "SlidingWindow(left=3) & Causal() & KeyLengths(lengths=Tensor(3))",
    },
    "gemma2": {
        "SlidingWindow(left=3) & Causal()",
        "SlidingWindow(left=3) & Causal() & KeyLengths(lengths=Tensor(3))",
        "Causal()",
        "Causal() & KeyLengths(lengths=Tensor(3))",
    },
    "modernbert": {
        "SlidingWindow(left=3, right=3)",
        "SlidingWindow(left=3, right=3) & KeyLengths(lengths=Tensor(3))",
        "Full()",
        "KeyLengths(lengths=Tensor(3))",
    },
    "t5": {"Full()", "KeyLengths(lengths=Tensor(3))", "Causal()"},
    "marian": {"Full()", "KeyLengths(lengths=Tensor(3))", "Causal()"},
}


@pytest.mark.parametrize("name", list(PATTERNS))
def test_masks_become_patterns(name):
    ours = model(name, "regard")
    with plans() as collected, torch.no_grad():
        for side in ("none", "right"):
            ours(**inputs(name, padding(side)))
    assert {str(plan.call.spec.pattern) for plan in collected} == PATTERNS[name]


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_packed_documents_become_a_pattern(name):
    theirs, ours = pair(name)
    given = inputs(name, None)
    given["position_ids"] = torch.cat([torch.arange(4), torch.arange(7)])[None].expand(3, -1)
    with plans() as collected:
        found = ours(**given, use_cache=False).logits
    torch.testing.assert_close(found, theirs(**given, use_cache=False).logits, rtol=0, atol=1e-10)
    kinds = {str(plan.call.spec.pattern) for plan in collected}
    assert all("Documents(" in kind and "Causal()" in kind for kind in kinds)
    assert ("SlidingWindow" in kinds.pop()) == (name == "mistral")


@pytest.mark.parametrize("boolean", [True, False])
def test_a_mask_of_ones_own_is_dense(boolean):
    theirs, ours = pair("llama")
    mask = torch.rand(3, 1, 11, 11, generator=torch.Generator().manual_seed(0)) < 0.8
    mask |= torch.eye(11, dtype=torch.bool)
    given = {**inputs("llama", None), "attention_mask": mask if boolean else torch.where(mask, 0.0, -1e4).double()}
    with plans() as collected:
        found = ours(**given).logits
    torch.testing.assert_close(found, theirs(**given).logits, rtol=0, atol=1e-10)
    spec = collected[0].call.spec
    assert "Mask(tensor=Tensor(3, 1, 11, 11))" in collected[0].explain() if boolean else spec.bias is not None


WAYS = [{}, {"num_beams": 3}, {"cache_implementation": "static"}, {"use_cache": False}]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma2", "t5", "marian", "whisper"])
def test_generated_tokens_are_the_librarys(name, way):
    theirs, ours = pair(name, torch.float32 if name in SINGLE else torch.float64)
    given = {k: x for k, x in inputs(name, padding("left")).items() if k in ("input_ids", "attention_mask")}
    if name == "whisper":
        given = {"input_features": inputs(name, None)["input_features"]}
    options = {"max_new_tokens": 6, "do_sample": False, **way}
    with torch.no_grad():
        expected, found = (m.generate(**given, **options) for m in (theirs, ours))
    assert torch.equal(found, expected)


def test_a_prompt_in_pieces_gives_the_same_tokens():
    theirs, ours = pair("mistral")
    given = {k: x for k, x in inputs("mistral", padding("left")).items() if k != "position_ids"}
    with torch.no_grad():
        expected, found = (m.generate(**given, max_new_tokens=6, prefill_chunk_size=3) for m in (theirs, ours))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "marian"])
def test_attentions_are_the_librarys(name):
    theirs, ours = model(name, "eager"), model(name, "regard")
    given = inputs(name, padding("right"))
    expected, found = (m(**given, output_attentions=True) for m in (theirs, ours))
    kinds = ("encoder_attentions", "decoder_attentions", "cross_attentions") if name in BOTH else ("attentions",)
    for kind in kinds:
        assert len(found[kind]) == 2
        for x, y in zip(found[kind], expected[kind], strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "field"),
    [("bert", "attention_probs_dropout_prob"), ("gpt2", "attn_pdrop"), ("llama", "attention_dropout"),
     ("t5", "dropout_rate"), ("marian", "attention_dropout"), ("vit", "attention_probs_dropout_prob")],
)  # fmt: skip
def test_training_drops_weights(name, field):
    ours = model(name, "regard", **{field: 0.4}).train()
    given = inputs(name, padding("right"))

    def loss(seed):
        torch.manual_seed(seed)
        return output(ours, name, given).square().mean()

    with plans() as collected:
        first = loss(1)
    assert {plan.call.spec.dropout for plan in collected} == {0.4}
    assert torch.equal(first, loss(1))
    assert not torch.equal(first, loss(2))
    first.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ours.parameters())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_have_the_same_gradients(reentrant):
    gradients = []
    for checkpoint in (False, True):
        ours = model("llama", "regard", attention_dropout=0.3).train()
        if checkpoint:
            ours.gradient_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(5)
        given = inputs("llama", padding("left"))
        ours(**given, labels=given["input_ids"], use_cache=False).loss.backward()
        gradients.append([p.grad for p in ours.parameters()])
    for x, y in zip(*gradients, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
def test_a_compiled_model_gives_the_same():
    ours = model("llama", "regard")
    compiled = torch.compile(ours, backend="aot_eager")
    with torch.no_grad():
        for side in ("none", "left"):
            given = {**inputs("llama", padding(side)), "use_cache": False}
            torch.testing.assert_close(compiled(**given).logits, ours(**given).logits, rtol=0, atol=1e-12)


def test_queries_of_one_batch_meet_keys_of_another():
    attention = transformers.AttentionInterface()["regard"]
    query, key, value = torch.randn(1, 6, 4, 8), torch.randn(3, 2, 5, 8), torch.randn(3, 2, 5, 7)
    found, _ = attention(torch.nn.Identity(), query, key, value, None, is_causal=False)
    torch.testing.assert_close(found, rg.attend(query.expand(3, -1, -1, -1), key, value).transpose(1, 2))


def test_without_a_mask_a_causal_layer_counts_from_the_first_key():
    attention = transformers.AttentionInterface()["regard"]
    query, key, value = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    found, _ = attention(torch.nn.Identity(), query, key, value, None, is_causal=True)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_harmless_arguments_pass_and_others_are_refused_by_name():
    attention = transformers.AttentionInterface()["regard"]
    layer, query = SimpleNamespace(is_causal=False), torch.randn(1, 2, 3, 4)
    attention(layer, query, query, query, None, sliding_window=7, use_cache=True, indices=None)
    with pytest.raises(UnsupportedError, match=r"indices=Tensor\(torch.int64, \(3,\)\)"):
        attention(layer, query, query, query, None, indices=torch.arange(3))
