"""Two processes have the gradients of one on the same batches, and end with the same model."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from regard.data.sampler import Position, Rows
from regard.train.distributed import Group, joined
from regard.train.run import make_task, train
from regard.train.trainer import Trainer, make_optimizer
from tests.train.made import SMALL, options, weights

ROOT = Path(__file__).parents[2]
# Comparable to the last digits: bfloat16, the default where the processor has it, is not.
EXACT = {"optimizer": "sgd", "dropout": 0.0, "learning_rate": 0.1, "precision": "float32"}


def gradients(folder: Path, group: Group, model: str) -> dict[str, torch.Tensor]:
    """Of the first step."""
    run = options(folder, model, dropout=0.0, optimizer="sgd", accumulate=2)
    task = make_task(run)
    task.prepare(folder / f"data-{group.rank}", lambda *_: None)
    torch.manual_seed(0)
    module = task.build().double()
    trainer = Trainer(task, module, make_optimizer(module, run), run, group)
    batches = trainer.next_batches(Position())
    batches[0] = batches[0][:1]  # fewer rows than processes
    trainer.gradients(batches, 1)
    return {name: p.grad for name, p in module.named_parameters()}


def main(what: str, folder: Path) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    if what == "train":
        train(options(folder, **EXACT, out=str(folder / "two")))
        return
    if what == "killed":
        die_once(folder / "died")
        train(options(folder, **EXACT, out=str(folder / "two")))
        return
    with joined(torch.device("cpu")) as group:
        for model in SMALL:
            save_file(gradients(folder, group, model), folder / f"{model}-{group.rank}.safetensors")


def die_once(mark: Path) -> None:
    """The second process dies in the middle of the sixth step, as if by kill -9, unless it has died before."""
    whole = Trainer.gradients

    def step(self: Trainer, batches: list[Rows], number: int) -> float:
        if number == 6 and self.group.rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, batches, number)

    Trainer.gradients = step


def in_processes(what: str, folder: Path, count: int, *more: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--standalone", *more]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, __file__, what, str(folder)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("count", [2, 4])
def test_processes_have_the_gradients_of_one(count, tmp_path):
    expected = {model: gradients(tmp_path, Group(), model) for model in SMALL}
    in_processes("gradients", tmp_path, count)
    for model, alone in expected.items():
        for rank in range(count):
            together = load_file(tmp_path / f"{model}-{rank}.safetensors")
            assert together.keys() == alone.keys()
            for name, gradient in alone.items():
                torch.testing.assert_close(together[name], gradient, rtol=1e-9, atol=1e-12)


def test_a_run_whose_process_died_ends_with_the_same_weights(tmp_path):
    in_processes("train", tmp_path, 2)
    whole = weights(tmp_path / "two")
    shutil.rmtree(tmp_path / "two")
    in_processes("killed", tmp_path, 2, "--max-restarts", "1")
    assert (tmp_path / "died").exists()
    again = weights(tmp_path / "two")
    assert all(torch.equal(again[name], x) for name, x in whole.items())


def test_two_processes_train_the_model_of_one(tmp_path):
    train(options(tmp_path, **EXACT))
    in_processes("train", tmp_path, 2)
    one, two = weights(tmp_path / "run"), weights(tmp_path / "two")
    for name, x in one.items():
        torch.testing.assert_close(two[name], x, rtol=1e-4, atol=1e-5)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("run", "two")]
    assert lines == [3, 3]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
