"""`accelerate` and the attention of `transformers`: the same outputs, where it is faster, and nothing else."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.integrations import inference
from regard.integrations.plans import plans
from tests.integrations.made import EAGER, MODELS, inputs, model, output, padding

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:transformers", "ignore::FutureWarning:transformers")
NAMES = [name for name in MODELS if name not in EAGER]


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()


@pytest.fixture(autouse=True)
def some_kernels(monkeypatch):
    """Whatever there are here."""
    monkeypatch.setattr(inference, "fast", lambda: True)


@pytest.fixture
def short(monkeypatch):
    """Short inputs count as long ones."""
    monkeypatch.setattr(inference, "MIN_QUERIES", 1)
    monkeypatch.setattr(inference, "MIN_QUERIES_DENSE", 1)


def implementation(model: nn.Module) -> str:
    return model.config._attn_implementation


def calls(model: nn.Module, name: str, given: dict[str, Tensor]) -> tuple[Tensor, int]:
    """The output, and how many attentions of it regard has computed."""
    with plans() as collected:
        return output(model, name, given), len(collected)


@pytest.mark.parametrize("side", ["none", "right", "left", "holes"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_outputs(name: str, side: str, short: None) -> None:
    made, given = model(name, "sdpa", torch.float64), inputs(name, padding(side))
    expected = output(made, name, given)
    assert rg.accelerate(made) is made
    found, count = calls(made, name, given)
    assert count >= 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert implementation(rg.restore(made)) == "sdpa"
    assert torch.equal(output(made, name, given), expected)
    assert calls(made, name, given)[1] == 0


def test_gradients_are_as_they_were(short: None) -> None:
    made, given = model("bert", "sdpa"), inputs("bert", padding("right"))
    expected = torch.autograd.grad(output(made, "bert", given).sum(), list(made.encoder.parameters()))
    found, count = calls(rg.accelerate(made), "bert", given)
    assert count == 0
    for x, y in zip(torch.autograd.grad(found.sum(), list(made.encoder.parameters())), expected, strict=True):
        assert torch.equal(x, y)


@torch.no_grad()
def test_decoding_goes_as_before_and_the_prompt_through_regard() -> None:
    made, tokens = model("mistral", "sdpa", max_position_embeddings=128), torch.randint(3, 61, (2, 70))
    mask = torch.ones_like(tokens)
    mask[1, :6] = 0
    given = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
    expected = made.generate(tokens, **given)
    with plans() as collected:
        assert torch.equal(rg.accelerate(made).generate(tokens, **given), expected)
    assert [plan.call.query.shape[2] for plan in collected] == [70, 70]  # in two layers


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@torch.no_grad()
def test_a_traced_model_is_the_librarys(short: None) -> None:
    made, given = rg.accelerate(model("bert", "sdpa", torch.float32)), inputs("bert", None, torch.float32)
    expected = output(made, "bert", given)
    traced = torch.jit.trace(made, (given["input_ids"],), strict=False)
    torch.testing.assert_close(traced(given["input_ids"])["last_hidden_state"], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_compiled_model_is_the_librarys(short: None) -> None:
    made, given = rg.accelerate(model("bert", "sdpa", torch.float32)), inputs("bert", None, torch.float32)
    expected = output(made, "bert", given)
    with plans() as collected:
        compiled = torch.compile(made, backend="eager", fullgraph=True)
        torch.testing.assert_close(output(compiled, "bert", given), expected, rtol=0, atol=1e-5)
    assert not collected


@torch.no_grad()
def test_a_model_inside_a_module() -> None:
    module = nn.ModuleDict({"text": model("bert", "sdpa"), "image": model("vit", "eager"), "head": nn.Linear(24, 3)})
    twin = copy.deepcopy(rg.accelerate(module))
    assert implementation(twin["text"]) == "regard-inference"
    assert implementation(twin["image"]) == "eager"
    assert implementation(rg.restore(twin)["text"]) == "sdpa"
    assert implementation(module["text"]) == "regard-inference"


def test_what_is_saved_says_nothing_of_it(tmp_path) -> None:
    rg.accelerate(model("bert", "sdpa")).save_pretrained(tmp_path)
    assert "regard" not in (tmp_path / "config.json").read_text()
    assert implementation(transformers.AutoModel.from_pretrained(tmp_path)) == "sdpa"


def test_code_that_asks_for_the_name_is_left_alone() -> None:
    """As some models of the library do, to choose between ways; here it is this file that has "sdpa" in it."""

    class Asking(transformers.BertModel):
        pass

    class Quiet(Asking):
        __module__ = "transformers.models.bert.modeling_bert"

    for kind in (Asking, Quiet):
        made = kind(transformers.BertConfig(hidden_size=24, num_attention_heads=3, num_hidden_layers=1))
        assert implementation(rg.accelerate(made)) == "sdpa"


@torch.no_grad()
def test_a_pickled_model_runs_in_another_process(tmp_path) -> None:
    made = rg.accelerate(model("bert", "sdpa", torch.float32))
    tokens = torch.randint(3, 61, (2, 70))
    torch.save({"model": made, "tokens": tokens, "expected": made(tokens).last_hidden_state}, tmp_path / "saved")
    code = (
        "import torch, transformers; found = torch.load('saved', weights_only=False);"
        "torch.set_grad_enabled(False); output = found['model'](found['tokens']).last_hidden_state;"
        "torch.testing.assert_close(output, found['expected'])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@torch.no_grad()
def test_what_attend_does_not_take_goes_to_the_library(short: None) -> None:
    """Tensors of another kind, and where weights are asked for, which the library's function does not give."""

    class Other(Tensor):
        pass

    made = rg.accelerate(model("bert", "sdpa"))
    layer, query = made.encoder.layer[0].attention.self, torch.randn(1, 3, 20, 8).as_subclass(Other)
    with plans() as collected:
        inference._attention(layer, query, query, query, None)
        made(torch.ones(1, 20, dtype=torch.int64), output_attentions=True)
    assert not collected


@torch.no_grad()
def test_a_mask_made_ahead_for_a_compiled_model(monkeypatch) -> None:
    monkeypatch.setattr(inference, "MIN_QUERIES", 5)
    made, tokens = model("llama", "sdpa", torch.float32), torch.randint(3, 61, (2, 9))
    given = {"max_new_tokens": 3, "do_sample": False, "cache_implementation": "static"}
    expected = made.generate(tokens, **given)
    rg.accelerate(made).forward = torch.compile(made.forward, backend="eager", fullgraph=True)
    assert torch.equal(made.generate(tokens, **given), expected)


def test_without_kernels_nothing_changes(monkeypatch) -> None:
    monkeypatch.setattr(inference, "fast", lambda: None)
    assert implementation(rg.accelerate(model("bert", "sdpa"))) == "sdpa"
