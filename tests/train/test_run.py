"""A run's folder, its length, and that a run that was stopped ends as if it had not been."""

import errno
import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import regard as rg
from regard.checkpoints import folder as folders
from regard.data.store import RecordStore
from regard.errors import CheckpointError, ConfigError
from regard.train import checkpoint
from regard.train.length import SPARE, Length
from regard.train.run import _Run, train
from regard.train.trainer import Trainer
from tests.train.made import SMALL, options, pairs, weights

TIMES = ("seconds", "tokens_per_second")


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


def raising(*_):
    raise Killed


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("model", SMALL)
def test_a_run_that_was_killed_ends_with_the_same_weights(model, tmp_path, monkeypatch):
    train(options(tmp_path, model, out=str(tmp_path / "whole")))
    for step in (2, 5, 9):
        with monkeypatch.context() as patch:
            killed_at(step, patch)
            with pytest.raises(Killed):
                train(options(tmp_path, model))
    train(options(tmp_path, model))
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    records = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("run", "whole")]
    for mine, expected in zip(*records, strict=True):
        assert {k: v for k, v in json.loads(mine).items() if k not in TIMES} == {
            k: v for k, v in json.loads(expected).items() if k not in TIMES
        }


def test_the_folder_explains_itself(tmp_path, capsys):
    folder = train(options(tmp_path))
    config = json.loads((folder / "config.json").read_text())
    assert config["training"]["options"]["steps"] == 9
    assert config["training"]["data"]["train"] + config["training"]["data"]["valid"] == 160
    assert config["training"]["length_ratio"] == pytest.approx(1, abs=0.1)  # the same words in the other order
    assert config["training"]["target_excess"] == 0
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 9]
    said = capsys.readouterr().err
    assert "step 9: loss" in said
    assert "output:" in said
    module, tokenizer, _ = folders.read(folder)
    assert module.vocabulary.size == tokenizer.size
    train(options(tmp_path))
    assert "is finished" in capsys.readouterr().err


@pytest.mark.parametrize(("turned", "whole"), [(False, True), (True, False)])
def test_how_long_targets_are_is_kept_for_running(turned, whole, tmp_path):
    """Of a model that shortens, and of one that writes much of little."""
    sides = [(f"red green blue {'white ' * 9}{i}", f"{i % 10} red") for i in range(120)]
    lines = ["\t".join(reversed(side) if turned else side) + "\n" for side in sides]
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    folder = train(options(tmp_path, steps=1, evaluate_every=1))
    model = rg.load(folder)
    training, store = model.config["training"], RecordStore(folder / "data" / "train")
    assert training["length_ratio"] == store.lengths("target").sum() / store.lengths("source").sum()
    assert model.whole == whole
    excess = max(0, int((store.lengths("target") - 2 * store.lengths("source")).max()) + 1)
    assert training["target_excess"] == excess
    assert (excess > 0) == turned
    [found] = model.translate(["3 red"], search=rg.Greedy())
    most = 2 * len(model.tokenizer.encode("3 red")) + 16 + excess
    assert found.finished or len(found.candidates[0].tokens[0]) == most


def test_a_damaged_checkpoint_is_passed_over(tmp_path, monkeypatch):
    train(options(tmp_path, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        killed_at(8, patch)
        with pytest.raises(Killed):
            train(options(tmp_path))
    newest, before = sorted((tmp_path / "run/checkpoints").glob("step-*"), reverse=True)[:2]
    os.truncate(newest / "optimizer.safetensors", 1000)
    found = checkpoint.newest(tmp_path / "run/checkpoints")
    assert found is not None
    assert found.folder == before
    train(options(tmp_path))
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    train(options(tmp_path, out=str(tmp_path / "whole")))
    put, calls = checkpoint._put, []

    def full(path, content):
        calls.append(path)
        if len(calls) == 5:  # within the second checkpoint
            put(path, content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_put", full)
        with pytest.raises(CheckpointError, match=r"step-00000006.*No space left"):
            train(options(tmp_path))
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000003"]
    train(options(tmp_path))
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("average", [1, 3])  # a checkpoint that Ctrl-C made counts in no mean
def test_ctrl_c_ends_the_step_and_keeps_it(average, tmp_path, monkeypatch):
    train(options(tmp_path, out=str(tmp_path / "whole"), average=average))
    whole = Trainer.gradients

    def gradients(self, batches, step):
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        return whole(self, batches, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "gradients", gradients)
        with pytest.raises(KeyboardInterrupt):
            train(options(tmp_path, average=average))
    assert checkpoint.newest(tmp_path / "run/checkpoints").state["step"] == 5
    train(options(tmp_path, average=average))
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    name = "model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_options_are_refused_and_named(tmp_path):
    train(options(tmp_path))
    with pytest.raises(ConfigError, match=r"dropout was 0.2, now 0.1"):
        train(options(tmp_path, dropout=0.1))
    train(options(tmp_path, threads=1))  # which may differ


def test_minutes_become_steps_once(tmp_path, monkeypatch):
    timed = {"minutes": 0.5, "steps": None}
    with monkeypatch.context() as patch:
        patch.setattr(_Run, "_train", raising)
        with pytest.raises(Killed):
            train(options(tmp_path, **timed))
    plan = tmp_path / "run/run.json"
    kept = json.loads(plan.read_text())
    assert kept["steps"] > 1
    plan.write_text(json.dumps({**kept, "steps": 4}))
    monkeypatch.setattr(Trainer, "seconds_per_step", lambda *_: pytest.fail("measured again"))
    train(options(tmp_path, **timed))
    assert checkpoint.newest(tmp_path / "run/checkpoints").state["step"] == 4


def timed(monkeypatch, seconds):
    """A clock that only steps move, so many seconds each; 12 of a second, with evaluations after 3, are planned."""
    clock = [0.0]
    step = Trainer.step

    def slow(self, *arguments):
        clock[0] += seconds
        return step(self, *arguments)

    for module in ("run", "length", "progress"):
        monkeypatch.setattr(f"regard.train.{module}.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(Length, "_steps_in", lambda *_: (12, 3))
    monkeypatch.setattr(Trainer, "step", slow)


@pytest.mark.parametrize(("seconds", "steps"), [(4.0, 3), (2.0, 6), (0.5, 24)])
def test_minutes_are_kept_when_steps_take_longer_or_shorter(seconds, steps, tmp_path, monkeypatch):
    timed(monkeypatch, seconds)
    folder = train(options(tmp_path, minutes=12.01 / 60 / SPARE, steps=None))
    last = checkpoint.newest(folder / "checkpoints").state
    assert (last["step"], last["seconds"]) == (steps, 12.0)
    assert list(json.loads((folder / "run.json").read_text())["fits"].values())[-1] == steps


def test_resumed_in_minutes(tmp_path, monkeypatch):
    minutes = {"minutes": 12.01 / 60 / SPARE, "steps": None}
    with monkeypatch.context() as patch:
        timed(patch, 0.8)
        train(options(tmp_path, out=str(tmp_path / "whole"), **minutes))
        for step in (4, 8):
            with monkeypatch.context() as inner:
                killed_at(step, inner)
                with pytest.raises(Killed):
                    train(options(tmp_path, **minutes))
    timed(monkeypatch, 5.0)  # what was found before counts
    train(options(tmp_path, **minutes))
    plans = [json.loads((tmp_path / name / "run.json").read_text())["fits"] for name in ("run", "whole")]
    assert plans[0]["3"] == plans[1]["3"] == 15
    assert plans[0]["6"] == plans[1]["6"]
    assert checkpoint.newest(tmp_path / "run/checkpoints").state["step"] == plans[0]["9"] < plans[1]["9"]


def test_evaluation_does_not_change_the_weights(tmp_path, monkeypatch):
    def measured(self, minutes):
        self.trainer.seconds_per_step(2)
        return 3, 4

    monkeypatch.setattr(Length, "_steps_in", measured)
    train(options(tmp_path, minutes=1.0, steps=None))
    train(options(tmp_path, steps=3, out=str(tmp_path / "plain")))
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "plain"))


def test_fine_tuning_goes_on_from_the_weights(tmp_path):
    folder = train(options(tmp_path))
    tuned = train(
        options(
            tmp_path,
            start=str(folder),
            model=None,
            model_settings=None,
            dropout=None,
            vocab_size=None,
            out=str(tmp_path / "tuned"),
            learning_rate=1e-12,
            steps=1,
        )
    )
    before, after = weights(folder), weights(tmp_path / "tuned")
    module, _, _ = folders.read(folder)
    best = dict(module.named_parameters())
    assert all(torch.allclose(best[name], x, atol=1e-6) for name, x in after.items())
    assert before.keys() == after.keys()
    assert (tuned / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_the_mean_of_checkpoints(tmp_path):
    train(options(tmp_path, average=3))
    folders_of = sorted((tmp_path / "run/checkpoints").glob("step-*"))
    assert len(folders_of) == 3
    kept = [checkpoint.Checkpoint(path, {}) for path in folders_of]
    module, _, _ = folders.read(tmp_path / "run")
    checkpoint.average(kept, module)
    for name, parameter in module.named_parameters():
        parts = torch.stack([load_file(path / "model.safetensors")[name] for path in folders_of]).double()
        torch.testing.assert_close(parameter.detach(), parts.mean(0).float())


def test_patience_ends_a_run_early(tmp_path):
    train(options(tmp_path, steps=40, evaluate_every=1, patience=2, learning_rate=1e-9, schedule="constant"))
    ended = checkpoint.newest(tmp_path / "run/checkpoints").state["step"]
    assert ended < 40
    before = (tmp_path / "run/metrics.jsonl").read_text()
    assert before.count("\n") == ended
    train(options(tmp_path, steps=40, evaluate_every=1, patience=2, learning_rate=1e-9, schedule="constant"))
    assert (tmp_path / "run/metrics.jsonl").read_text() == before  # a finished run stays as it is


def test_tensorboard_gets_the_records(tmp_path):
    pytest.importorskip("tensorboard")
    train(options(tmp_path, tensorboard=True))
    assert list((tmp_path / "run/tensorboard").iterdir())


def test_minutes_that_cover_little_are_said(tmp_path, monkeypatch, capsys):
    def said(**changes):
        train(options(tmp_path, steps=None, minutes=5.0, **changes))
        return capsys.readouterr().err

    monkeypatch.setattr(Length, "_steps_in", lambda *_: (6, 50))
    few = said()
    found = re.search(r"^5 minutes: about 6 steps, (0\.\d) epochs$", few, re.MULTILINE)
    assert found is not None
    assert f"warning: {found[1]} epochs are few for random weights; give more --minutes, a smaller --size, or a" in few
    tuned = {"start": str(tmp_path / "run"), "model": None, "model_settings": None, "dropout": None, "vocab_size": None}
    assert re.search(r"^warning: \d\d% of the rows will be seen", said(out=str(tmp_path / "a"), **tuned), re.MULTILINE)
    monkeypatch.setattr(Length, "_steps_in", lambda *_: (200, 300))
    assert "warning" not in said(out=str(tmp_path / "b"))


def test_a_start_that_is_no_translator_is_refused(tmp_path):
    from tests.checkpoints.language_models import completer

    completer().save(tmp_path / "gpt")
    tuned = {"start": str(tmp_path / "gpt"), "model": None, "model_settings": None, "dropout": None, "vocab_size": None}
    with pytest.raises(ConfigError, match="is for another job; expected one to translate"):
        train(options(tmp_path, **tuned))


def test_how_a_table_was_read_is_said_each_time(tmp_path, capsys):
    rows = (tmp_path / "pairs.tsv", tmp_path / "pairs.csv")
    lines = Path(pairs(rows[0])).read_text().splitlines()
    rows[1].write_text("English;Italian\n" + "".join(line.replace("\t", ";") + "\n" for line in lines))
    train(options(tmp_path, steps=3))
    assert "read as" not in capsys.readouterr().err
    for steps in (3, 4):
        train(options(tmp_path, steps=steps, files=(str(rows[1]),), out=str(tmp_path / "csv")))
        note = "read as CSV, delimiter ';', fields 'English' and 'Italian' of its header"
        assert f"{rows[1]}: {note}\n" in capsys.readouterr().err
    config = json.loads((tmp_path / "csv/config.json").read_text())
    assert config["training"]["data"]["read_as"] == {str(rows[1]): note}
