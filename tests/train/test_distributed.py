"""Two processes have the gradients of one on the same batches, and end with the same model."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from regard.data.prepare import prepare
from regard.models.registry import build
from regard.train.distributed import Group, joined
from regard.train.loop import Order, Progress, Trainer, make_optimizer
from regard.train.run import train
from regard.train.setup import model_config, vocabulary_of
from tests.train.made import options, weights

ROOT = Path(__file__).parents[2]
# Comparable to the last digits: bfloat16, the default where the processor has it, is not.
EXACT = {"optimizer": "sgd", "dropout": 0.0, "learning_rate": 0.1, "precision": "float32"}


def gradients(folder: Path, group: Group) -> dict[str, torch.Tensor]:
    """Of the first step."""
    said = options(folder, dropout=0.0, optimizer="sgd", accumulate=2)
    data = prepare(said.files, folder / f"data-{group.rank}", vocab_size=said.vocab_size, max_tokens=said.max_tokens)
    torch.manual_seed(0)
    module = build(model_config(said, vocabulary_of(data.tokenizer))).double()
    trainer, order = Trainer(module, make_optimizer(module, said), said, group), Order(data.train, said)
    trainer.gradients(order, order.next(Progress()), 1)
    return {name: p.grad for name, p in module.named_parameters()}


def main(what: str, folder: Path) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    if what == "train":
        train(options(folder, **EXACT, out=str(folder / "two")))
        return
    with joined(torch.device("cpu")) as group:
        found = gradients(folder, group)
        save_file(found, folder / f"two-{group.rank}.safetensors")


def in_two(what: str, folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", __file__, what]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(folder)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_have_the_gradients_of_one(tmp_path):
    expected = gradients(tmp_path, Group())
    in_two("gradients", tmp_path)
    for rank in range(2):
        found = load_file(tmp_path / f"two-{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


def test_two_processes_train_the_model_of_one(tmp_path):
    train(options(tmp_path, **EXACT))
    in_two("train", tmp_path)
    one, two = weights(tmp_path / "run"), weights(tmp_path / "two")
    for name, x in one.items():
        torch.testing.assert_close(two[name], x, rtol=1e-4, atol=1e-5)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("run", "two")]
    assert lines == [3, 3]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
