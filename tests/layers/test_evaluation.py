"""A model that runs in evaluation mode here stays in training mode for everybody else."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.layers.evaluation import in_evaluation
from regard.lens.see import look
from regard.tasks.encode import Encoder
from regard.tasks.translation import translate
from tests.checkpoints.published import word_pieces

TEXTS = ["A dog runs in the snow.", "Two men sit on a bench."]


class Tied(nn.Module):
    """One part in two places, buffers, a method kept as an attribute, and a part that is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
        self.again = self.first
        self.norm = nn.BatchNorm1d(3)
        self.none = None
        self.register_module("missing", None)
        self.run = self.whole

    def whole(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x) + self.again(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def test_the_copy_is_the_module_in_evaluation() -> None:
    torch.manual_seed(0)
    module, x = Tied(), torch.randn(5, 3)
    view = in_evaluation(module)
    assert isinstance(view, Tied)
    assert all(part.training for part in module.modules())
    assert not any(part.training for part in view.modules())
    assert view.first is view.again
    found = view(x)
    for mine, theirs in ((view.parameters(), module.parameters()), (view.buffers(), module.buffers())):
        assert [id(tensor) for tensor in mine] == [id(tensor) for tensor in theirs]
    with torch.no_grad():
        module.first[0].weight.mul_(2)
    changed = view(x)
    assert not torch.equal(changed, found)
    assert module.norm.num_batches_tracked == 0
    torch.testing.assert_close(changed, module.eval()(x))
    assert in_evaluation(module) is module


def test_a_part_alone_in_training_mode() -> None:
    module = Tied().eval()
    module.first[1].train()
    view = in_evaluation(module)
    assert view is not module
    assert not view.first[1].training
    assert module.first[1].training


def test_hooks_of_the_module_act_on_the_copy_and_not_the_other_way_round() -> None:
    module, recording = Tied(), list[str]()
    module.first.register_forward_hook(lambda *_: recording.append("module"))
    view = in_evaluation(module)
    view.first.register_forward_hook(lambda *_: recording.append("view"))
    view(torch.zeros(2, 3))
    assert recording == ["module", "view"] * 2
    module(torch.zeros(2, 3))
    assert recording[4:] == ["module"] * 2


def with_compiled_forward(module: nn.Module) -> nn.Module:
    module.forward = torch.compile(module.forward)  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize("compiled", [torch.compile, with_compiled_forward])
def test_a_compiled_module_runs_as_it_was_written(compiled: Callable[[nn.Module], nn.Module]) -> None:
    module, x = Tied(), torch.randn(5, 3)
    expected = in_evaluation(module)(x)
    torch.testing.assert_close(in_evaluation(compiled(module))(x), expected)


def jobs() -> dict[str, tuple[nn.Module, Callable[[], Any], Callable[[], Tensor]]]:
    """Of each job: the model, the job, and a loss of the model in training mode."""
    translator = rg.load()
    pair = translator.module
    source = torch.tensor([[*translator.tokenizer.encode(TEXTS[0]), 2]])
    target = source.roll(1, 1)
    bert = rg.Bert(rg.BertConfig(vocab_size=14, num_layers=2, max_positions=16, embed_dim=12, num_heads=3, ffn_dim=20))
    encoder = Encoder(bert, word_pieces())
    tokens = torch.tensor([[2, 5, 6, 7, 3]])
    gpt = rg.GPT(
        rg.GPTConfig(vocabulary=rg.Vocabulary(size=14), num_layers=2, max_length=32, embed_dim=12, num_heads=3)
    )

    def pair_loss() -> Tensor:
        return pair(source, None, target).logits.logsumexp(-1).sum()

    return {
        "translate": (pair, lambda: [str(one) for one in translator.translate(TEXTS)], pair_loss),
        "sample": (
            pair,
            lambda: [str(x) for x in translate(pair, translator.tokenizer, TEXTS, search=rg.Sample(seed=3))],
            pair_loss,
        ),
        "look": (
            pair,
            lambda: look(pair, translator.tokenizer, TEXTS[0], target[0, :5].tolist()).pharaoh(),
            pair_loss,
        ),
        "embed": (bert, lambda: encoder.embed(["the cat sat"]).tolist(), lambda: bert(tokens).logits.sum()),
        "fill": (bert, lambda: str(encoder.fill(["the [MASK] sat"])[0]), lambda: bert(tokens).logits.sum()),
        "generate": (gpt, lambda: rg.generate(gpt, [[5, 6]], max_length=4), lambda: gpt(tokens).logits.sum()),
    }


JOBS = ("translate", "sample", "look", "embed", "fill", "generate")


@pytest.mark.parametrize("name", JOBS)
def test_a_job_changes_no_mode_and_has_none_of_the_dropout(name: str) -> None:
    model, job, _ = jobs()[name]
    expected = job()  # in evaluation
    model.train()
    flips = list[bool]()
    for part in model.modules():  # every assignment of a mode would be seen
        part.train = lambda mode=True: flips.append(mode)  # type: ignore[method-assign]
    assert job() == expected
    assert not flips
    assert all(part.training for part in model.modules())


@pytest.mark.parametrize("name", JOBS)
def test_one_thread_trains_while_another_runs_a_job(name: str) -> None:
    model, job, loss = jobs()[name]
    expected = job()
    model.train()

    def train() -> list[float]:
        losses = []
        for step in range(12):
            torch.manual_seed(step)
            one = loss()
            one.backward()
            losses.append(float(one.detach()))
        return losses

    alone = train()
    assert len(set(alone)) > 1  # dropout
    stop, found = threading.Event(), list[Any]()

    def work() -> None:
        while not stop.is_set():
            found.append(job())

    worker = threading.Thread(target=work)
    worker.start()
    try:
        while not found and worker.is_alive():
            pass
        together = train()
    finally:
        stop.set()
        worker.join()
    assert together == alone
    assert found
    assert all(one == expected for one in found)


def test_a_recording_sees_its_own_thread() -> None:
    torch.manual_seed(0)
    layer, x = rg.MultiHeadAttention(8, 2), torch.randn(1, 3, 8)
    plain = layer(x)
    results: dict[str, Tensor] = {}

    def other() -> None:
        results["plain"] = layer(x)
        with rg.record(layer, weights=True) as mine:
            layer(x[:, :2])
        results["mine"] = mine[""].weights

    with rg.record(layer, weights=True) as recording:
        worker = threading.Thread(target=other)
        worker.start()
        worker.join()
        layer(x)
    assert torch.equal(results["plain"], plain)
    assert results["mine"].shape == (1, 2, 2, 2)
    assert recording[""].weights.shape == (1, 2, 3, 3)
