"""A run goes on for longer than it was begun for, and with the same pairs wherever they stand."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from regard.errors import ConfigError
from regard.train import checkpoint
from regard.train.length import SPARE, Length
from regard.train.run import train
from regard.train.schedule import Schedule
from regard.train.trainer import Trainer
from tests.train.made import options, pairs, weights


class Killed(BaseException):
    """Ends a run where it stands."""


def killed_at(number, monkeypatch):
    """The next run ends in the middle of this step: gradients taken, the optimizer not yet called."""
    whole = Trainer.gradients

    def gradients(self, batches, step):
        loss = whole(self, batches, step)
        if step == number:
            raise Killed
        return loss

    monkeypatch.setattr(Trainer, "gradients", gradients)


def run_until(step, monkeypatch, given):
    with monkeypatch.context() as patch:
        killed_at(step, patch)
        with pytest.raises(Killed):
            train(given)


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def last(folder: Path) -> dict[str, float]:
    found = checkpoint.newest(folder / "checkpoints")
    assert found is not None
    return found.state


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_run_goes_on_at_the_rates_of_the_longer_one(tmp_path, capsys):
    folder = train(options(tmp_path))
    train(options(tmp_path, steps=14))
    assert [row["step"] for row in records(folder)] == [4, 8, 9, 12, 14]
    longer = Schedule(kind="linear", peak=1e-3, warmup=Schedule.default_warmup(14), steps=14)
    assert records(folder)[-2]["learning_rate"] == longer.rate(12)
    assert last(folder)["step"] == 14
    said = capsys.readouterr().err
    assert "extended from 9 to 14 steps" in said
    train(options(tmp_path, steps=14))
    assert "is finished" in capsys.readouterr().err


def test_an_extended_run_that_was_killed_ends_with_the_same_weights(tmp_path, monkeypatch):
    for name in ("run", "whole"):
        run_until(5, monkeypatch, options(tmp_path, out=str(tmp_path / name)))
    train(options(tmp_path, steps=14, out=str(tmp_path / "whole")))
    run_until(8, monkeypatch, options(tmp_path, steps=14))
    train(options(tmp_path, steps=14))
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("length", [{"steps": 6}, {"steps": None, "epochs": 0.2}, {"steps": None, "minutes": 1e-5}])
def test_a_length_that_is_behind_is_refused(length, tmp_path):
    folder = train(options(tmp_path))
    before = (folder / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=r"has taken 9 steps; the new length is [1-9]: give"):
        train(options(tmp_path, **length))
    assert (folder / "run.json").read_bytes() == before


def test_a_length_of_another_kind(tmp_path):
    folder = train(options(tmp_path))
    train(options(tmp_path, steps=None, epochs=2))
    epoch = json.loads((folder / "run.json").read_text())["steps"] / 2
    assert last(folder)["step"] == 2 * epoch > 9


def test_minutes_are_extended_at_the_pace_so_far(tmp_path, monkeypatch):
    clock = [0.0]
    step = Trainer.step

    def slow(self, *arguments):
        clock[0] += 2.0
        return step(self, *arguments)

    for module in ("run", "length", "progress"):
        monkeypatch.setattr(f"regard.train.{module}.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(Length, "_steps_in", lambda *_: (6, 3))
    monkeypatch.setattr(Trainer, "step", slow)
    folder = train(options(tmp_path, steps=None, minutes=12.01 / 60 / SPARE))
    assert (last(folder)["step"], last(folder)["seconds"]) == (6, 12.0)
    train(options(tmp_path, steps=None, minutes=20.01 / 60 / SPARE))
    assert (last(folder)["step"], last(folder)["seconds"]) == (10, 20.0)


def test_more_patience(tmp_path):
    settings = {"steps": 40, "evaluate_every": 1, "learning_rate": 1e-9, "schedule": "constant"}
    folder = train(options(tmp_path, patience=2, **settings))
    ended = last(folder)["step"]
    train(options(tmp_path, patience=4, **settings))
    assert ended < last(folder)["step"] <= 40


def test_a_mean_of_checkpoints_stays_the_best_until_a_better_model(tmp_path, monkeypatch):
    losses = iter([5.0, 5.0, 5.0, 4.0, 4.5, 4.6])  # three evaluations and the mean; one more, and the mean again
    monkeypatch.setattr(Trainer, "evaluate", lambda *_: {"loss": next(losses)})
    folder = train(options(tmp_path, average=3))
    best = (folder / "model.safetensors").read_bytes()
    train(options(tmp_path, average=3, steps=10))
    assert next(losses, None) is None
    assert json.loads((folder / "config.json").read_text())["training"]["valid_loss"] == 4.0
    assert (folder / "model.safetensors").read_bytes() == best


def test_the_same_pairs_under_another_path(tmp_path, monkeypatch, capsys):
    train(options(tmp_path, out=str(tmp_path / "whole")))
    run_until(5, monkeypatch, options(tmp_path))
    content = Path(options(tmp_path).files[0]).read_bytes()
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / "others.tsv.gz"
    moved.write_bytes(gzip.compress(content))
    train(options(tmp_path, files=(str(moved),)))
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    copy = tmp_path / "moved" / "copy.tsv.gz"
    copy.write_bytes(moved.read_bytes())
    train(options(tmp_path, files=(str(copy),)))
    assert "is finished" in capsys.readouterr().err
    pairs(copy.with_name("changed.tsv"), rows=120)
    with pytest.raises(ConfigError, match=r"is finished, and was trained on other records than those of .*changed"):
        train(options(tmp_path, files=(str(copy.with_name("changed.tsv")),)))


def test_what_cannot_change_is_named(tmp_path):
    train(options(tmp_path))
    with pytest.raises(ConfigError) as caught:
        train(options(tmp_path, steps=20, batch_tokens=256))
    assert "batch_tokens was 128, now 256" in str(caught.value)
    assert "steps was" not in str(caught.value)
    assert "may change only minutes, steps, epochs and patience" in str(caught.value)


def test_a_run_with_the_former_name_of_its_file_resumes(tmp_path, monkeypatch):
    run_until(5, monkeypatch, options(tmp_path))
    (tmp_path / "run/run.json").rename(tmp_path / "run/plan.json")
    with pytest.raises(ConfigError, match="was started with other options"):
        train(options(tmp_path, batch_tokens=77))
    folder = train(options(tmp_path))
    assert last(folder)["step"] == 9
    assert (folder / "run.json").exists()
