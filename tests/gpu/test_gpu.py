"""What a GPU gives is what the processor gives: the operator, every model, decoding, training, compiled code."""

import math

import pytest
import torch

import regard as rg
from regard.checkpoints import folder as folders
from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy, Sample, Search
from regard.train.run import train
from tests.checkpoints.language_models import own_completer
from tests.checkpoints.made import SENTENCES, translator
from tests.checkpoints.published import encoder
from tests.contract import cases
from tests.contract.bounds import error, expect, make_problem, outcome, poison
from tests.contract.cases import DTYPES, Case
from tests.models import language_models
from tests.models import test_every_model as every_model
from tests.train.made import SMALL, options

if not torch.cuda.is_available():
    pytest.skip("PyTorch sees no GPU here", allow_module_level=True)

GPU = torch.device("cuda")
CASES = [case for case in cases.sample() if case.backend != "native" and not cases.refused(case)]
SEARCHES = [Greedy(), Beam(3, n_best=2), Sample(seed=3)]


@pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS")  # which the first thread that multiplies does
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(case: Case) -> None:
    """Within the error that the processor's backends may have, the dropped entries of the same seed the same."""
    problem, visible = make_problem(case)
    expected = expect(problem, visible)
    leaves = problem.leaves(DTYPES[case.dtype])
    if problem.edge.poison:
        poison(problem, visible, leaves)
    leaves = {name: x.detach().to(GPU).requires_grad_(x.requires_grad) for name, x in leaves.items()}
    with GPU:  # where masks and positions that the case makes by itself are, too
        found = outcome(problem, lambda **arguments: rg.attend(**arguments, backend=case.backend), leaves)
    assert error(found.output.cpu(), expected.truth.output) <= expected.output
    for name, grad in found.gradients.items():
        assert error(grad.cpu(), expected.truth.gradients[name]) <= expected.gradients[name], name


@pytest.mark.parametrize("variant", every_model.VARIANTS)
def test_models_of_source_and_target(variant: str) -> None:
    model = every_model.made(variant)
    expected = model(every_model.SOURCE, every_model.TARGET).logits
    found = model.to(GPU)(every_model.SOURCE.to(GPU), every_model.TARGET.to(GPU)).logits
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("variant", every_model.VARIANTS)
def test_targets(variant: str, search: Search) -> None:
    sources = [[5, 9, 3, 7, 11, 4], [8, 6, 17], [12]]
    model = every_model.made(variant)
    expected = generate(model, sources, search=search, max_length=9)
    found = generate(model.to(GPU), sources, search=search, max_length=9)
    assert [[one.tokens for one in some] for some in found] == [[one.tokens for one in some] for some in expected]


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("variant", language_models.VARIANTS)
def test_language_models(variant: str, search: Search) -> None:
    prompts = [[5, 9, 3, 7, 11, 4, 8, 8, 1, 30], [8, 6, 17]]
    model = language_models.made(variant, torch.float64)
    expected = [generate(model, [prompt], search=search, max_length=9) for prompt in prompts]
    model.to(GPU)
    found = [generate(model, [prompt], search=search, max_length=9) for prompt in prompts]
    for [one], [other] in zip(found, expected, strict=True):
        assert [x.tokens for x in one] == [x.tokens for x in other]


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
def test_loaded_models(device: str, tmp_path) -> None:
    text = SENTENCES[0]
    translator().save(tmp_path / "translator")
    own_completer().save(tmp_path / "completer")
    encoder().save(tmp_path / "encoder")
    for name, run in (
        ("translator", lambda model: model.translate([text], search=Greedy())[0].text),
        ("completer", lambda model: model.complete([text], max_new_tokens=5)[0].text),
        ("encoder", lambda model: model.fill(["the [MASK] sat ."], top=1)[0].text),
    ):
        model = rg.load(tmp_path / name, device=device)
        assert next(model.module.parameters()).device.type == "cuda"
        assert run(model) == run(rg.load(tmp_path / name))
        assert model.see("the cat").weights.keys() == rg.load(tmp_path / name).see("the cat").weights.keys()
    found = rg.load(tmp_path / "encoder", device=device).embed(["the cat"])
    torch.testing.assert_close(found, encoder().embed(["the cat"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", SMALL)
def test_training(model: str, tmp_path) -> None:
    """Stopped and gone on with, in bfloat16; the result is read on the processor."""
    train(options(tmp_path, model, device="cuda", steps=60, evaluate_every=30, learning_rate=0.01))
    module, _, config = folders.read(tmp_path / "run")
    assert next(module.parameters()).device.type == "cpu"
    assert config["training"]["step"] == 60
    assert config["training"]["valid_loss"] < 0.9 * math.log(module.vocabulary.size)


@pytest.mark.skipif(torch.__version__ < "2.13", reason="PyTorch 2.11 does not trace values that are defaults")
@pytest.mark.parametrize("backend", ["reference", "chunked", "sdpa", "auto"])
@pytest.mark.parametrize("pattern", [rg.Causal(), rg.Causal() & rg.SlidingWindow(left=3)], ids=str)
def test_compiled(pattern: rg.Causal, backend: str) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    layer = rg.MultiHeadAttention(12, 3, pattern=pattern, backend=backend).to(GPU)
    x, lengths = torch.randn(3, 11, 12, device=GPU), torch.tensor([11, 1, 5], device=GPU)
    expected = layer(x, pattern=rg.KeyLengths(lengths))
    found = torch.compile(layer, fullgraph=True)(x, pattern=rg.KeyLengths(lengths))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
