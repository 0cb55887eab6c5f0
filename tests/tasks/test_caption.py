"""Captions of made pictures: a colored square somewhere on noise, which a small model learns to describe."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import regard as rg
from regard.errors import ConfigError, DataError, ShapeError
from regard.models.show_attend_tell import ATTENTIONS, ShowAttendTell, ShowAttendTellConfig
from regard.tasks.caption import Captioner
from regard.train.options import TrainOptions
from regard.train.run import make_task, train
from tests.cli.run import regard

COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}
PLACES = {"top left": (0, 0), "top right": (0, 8), "bottom left": (8, 0), "bottom right": (8, 8)}
SMALL: dict[str, Any] = {"image_size": 16, "channels": 8, "embed_dim": 32, "hidden_dim": 48, "align_dim": 24}
FAST: dict[str, Any] = {"task": "caption", "threads": 1, "precision": "float32", "device": "cpu", "vocab_size": 300}


def scenes(folder: Path, count: int, *, seed: int = 0, places: bool = False) -> Path:
    """Pictures, and a table of them with their captions."""
    folder.mkdir(parents=True)
    random, lines = np.random.default_rng(seed), []
    for number in range(count):
        color, place = list(COLORS)[number % 3], list(PLACES)[number // 3 % 4]
        pixels = random.integers(90, 160, (16, 16, 3)).astype(np.uint8)
        top, left = np.array(PLACES[place]) + random.integers(0, 3, 2)
        pixels[top : top + 6, left : left + 6] = COLORS[color]
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png\t{color} at the {place}\n" if places else f"{number}.png\t{color} {color}\n")
    (folder / "captions.tsv").write_text("".join(lines), encoding="utf-8")
    return folder / "captions.tsv"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("scenes") / "train", 240)


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "captions"
    return train(
        TrainOptions(
            files=(str(table),),
            out=str(out),
            steps=200,
            learning_rate=4e-3,
            batch_tokens=400,
            model_settings=SMALL,
            label_smoothing=0.0,
            **FAST,
        )
    )


def test_learns_the_colors(trained: Path, tmp_path: Path) -> None:
    test = scenes(tmp_path / "test", 36, seed=5)
    measured = json.loads(regard("evaluate", str(test), "--model", str(trained), "--json").stdout)
    assert measured["exact"] > 0.9
    result = regard("caption", str(tmp_path / "test" / "0.png"), "--model", str(trained))
    assert result.stdout == "red red\n"
    (tmp_path / "bad.png").write_text("text")
    pictures = [str(tmp_path / "bad.png"), *(str(tmp_path / "test" / f"{i}.png") for i in range(2))]
    result = regard("caption", *pictures, "--model", str(trained), "--json")
    assert result.exit_code == 1
    assert "bad.png" in result.stderr
    assert [json.loads(line)["caption"].split()[1] for line in result.stdout.splitlines()] == ["red", "green"]
    again = regard("caption", pictures[1], pictures[2], pictures[1], "--model", str(trained), "--batch-size", "2")
    assert [line.split("\t")[0] for line in again.stdout.splitlines()] == [pictures[i] for i in (1, 2, 1)]


def test_captions_do_not_depend_on_the_batch(trained: Path, table: Path) -> None:
    captioner = rg.load(trained)
    pictures = [str(table.parent / f"{i}.png") for i in range(7)]
    together = captioner.caption(pictures)
    alone = [captioner.caption([picture])[0] for picture in pictures]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    greedy = captioner.caption(pictures, search=rg.Greedy(), batch_size=3)
    assert [one.picture for one in greedy] == pictures
    assert captioner.caption([]) == []


def test_where_it_looks(trained: Path, table: Path, tmp_path: Path) -> None:
    captioner = rg.load(trained)
    maps = captioner.see(table.parent / "0.png")
    assert maps.label == "red red"
    assert maps.attention.shape == (len(maps.layer_names), 1, 4, 4)
    torch.testing.assert_close(maps.attention.sum((2, 3)), torch.ones(len(maps.layer_names), 1))
    assert torch.equal(maps.map("attention", layer=1), maps.attention[0].mean(0))
    maps.page(tmp_path / "looked.html")
    maps.png(tmp_path / "looked.png")
    assert maps.terminal()
    result = regard("see", str(table.parent / "0.png"), "--model", str(trained), "--html", str(tmp_path / "page.html"))
    assert result.stdout.splitlines()[-1] == "red red"
    assert captioner.see(table.parent / "0.png", "blue blue").label == "blue blue"


def test_a_transformer_on_wide_pictures(table: Path, tmp_path: Path) -> None:
    settings = {"image_size": 8, "image_width": 32, "channels": 4, "embed_dim": 16, "num_heads": 2, "ffn_dim": 24}
    options = TrainOptions(
        files=(str(table),), out=str(tmp_path / "run"), steps=2, model="picture-transformer", model_settings=settings,
        batch_tokens=400, **FAST,
    )  # fmt: skip
    captioner = rg.load(train(options))
    maps = captioner.see(table.parent / "0.png", "red red")
    assert maps.attention.shape == (len(maps.layer_names), 2, 2, 8)
    assert maps.pixels.shape == (8, 32, 3)
    [beam] = captioner.caption([table.parent / "0.png"])
    assert len(beam.tokens) <= 127


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["soft"])
def test_learns_what_is_where(attention: str, tmp_path: Path) -> None:
    table, test = scenes(tmp_path / "train", 240, places=True), scenes(tmp_path / "test", 36, seed=5, places=True)
    settings = {**SMALL, "attention_kind": attention}
    options = TrainOptions(
        files=(str(table),), out=str(tmp_path / "run"), steps=900, learning_rate=4e-3, batch_tokens=400,
        model_settings=settings, label_smoothing=0.0, **FAST,
    )  # fmt: skip
    captioner = rg.load(train(options))
    rows = [line.split("\t") for line in test.read_text(encoding="utf-8").splitlines()]
    captions = captioner.caption([str(test.parent / name) for name, _ in rows])
    assert sum(str(x) == text for x, (_, text) in zip(captions, rows, strict=True)) > 0.9 * len(rows)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_attention_trains(attention: str) -> None:
    torch.manual_seed(0)
    vocabulary = rg.Vocabulary(size=20)
    model = ShowAttendTell(ShowAttendTellConfig(vocabulary=vocabulary, attention_kind=attention, dropout=0.0, **SMALL))
    pictures, targets = torch.randn(4, 3, 16, 16), torch.tensor([[1, 5, 6, 7]] * 4)
    labels = torch.tensor([[5, 6, 7, 2], [5, 6, 7, 2], [5, 6, 2, -100], [5, 2, -100, -100]])
    output = model(pictures, None, targets)
    before = float(model.baseline)
    loss = output.cross_entropy(labels)
    assert loss.count == 13
    loss.smoothed.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert bool(model.cross_attention.query_proj.weight.grad.abs().sum() > 0)
    assert (float(model.baseline) != before) == (attention == "hard")
    if attention in ("hard", "straight-through"):
        assert output.weights.max(-1).values.allclose(torch.ones(4, 4))
    model.eval()
    with torch.no_grad():
        expected = model(pictures, None, targets).logits
        state, tokens = model.prefill(pictures)
        steps = [model.step(tokens[:, None], state)]
        steps += [model.step(targets[:, i : i + 1], state) for i in (1, 2, 3)]
    torch.testing.assert_close(torch.cat(steps, 1), expected)


def test_the_policy_gradient_prefers_better_cells() -> None:
    """The choice's log-probability is weighted by the caption's log-likelihood above the baseline."""
    torch.manual_seed(0)
    config = ShowAttendTellConfig(
        vocabulary=rg.Vocabulary(size=20), attention_kind="hard", entropy=0.0, dropout=0.0, **SMALL
    )
    model = ShowAttendTell(config)
    pictures, targets = torch.randn(2, 3, 16, 16), torch.tensor([[1, 5], [1, 6]])
    labels = torch.tensor([[5, 2], [6, 2]])
    output = model(pictures, None, targets)
    plain = output.projection.cross_entropy(output.hidden, labels)
    words = output.logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0].mean(1).detach()
    difference = output.cross_entropy(labels).smoothed - plain.smoothed
    torch.testing.assert_close(difference, -(words * output.log_probs.sum(1)).sum())  # of a baseline of 0
    torch.testing.assert_close(model.baseline, 0.1 * words.mean())


def test_soft_weights_are_doubly_stochastic() -> None:
    torch.manual_seed(0)
    config = ShowAttendTellConfig(vocabulary=rg.Vocabulary(size=20), dropout=0.0, doubly_stochastic=2.0, **SMALL)
    model = ShowAttendTell(config)
    output = model(torch.randn(1, 3, 16, 16), None, torch.tensor([[1, 5, 6]]))
    labels = torch.tensor([[5, 2, -100]])
    plain = output.projection.cross_entropy(output.hidden, labels)
    sums = output.weights[0, :2].sum(0)
    expected = 2.0 * ((2 / 16 - sums) ** 2).sum()
    torch.testing.assert_close(output.cross_entropy(labels).smoothed - plain.smoothed, expected)


def test_misuse(table: Path, tmp_path: Path) -> None:
    vocabulary = rg.Vocabulary(size=20)
    with pytest.raises(ConfigError, match="image_size=18 must be a multiple of 4"):
        ShowAttendTellConfig(vocabulary=vocabulary, image_size=18)
    with pytest.raises(ShapeError, match=r"expected pictures, floats of shape \(batch, 3, 16, 16\)"):
        ShowAttendTell(ShowAttendTellConfig(vocabulary=vocabulary, **SMALL))(
            torch.zeros(1, 3, 8, 8), None, torch.tensor([[1]])
        )

    def task(**options: Any) -> Any:
        return make_task(TrainOptions(files=(str(table),), out=str(tmp_path / "run"), **{**FAST, **options}))

    with pytest.raises(ConfigError, match="'rnn' does not caption pictures"):
        task(model="rnn")
    with pytest.raises(ConfigError, match="caption has no setting 'flip'"):
        task(task_settings={"flip": True})
    with pytest.raises(ConfigError, match="unknown attention_kind 'gumble'; did you mean 'gumbel'"):
        task(model_settings={"attention_kind": "gumble"})
    (tmp_path / "missing.tsv").write_text("".join(f"{i}.png\ta\n" for i in range(40)))
    words = ["train", str(tmp_path / "missing.tsv"), "--task", "caption", "--out", str(tmp_path / "other")]
    result = regard(*words)
    assert result.exit_code == 1
    assert "missing.tsv:1: " in result.stderr
    assert "skip_bad_rows=True" in result.stderr
    with pytest.raises(DataError, match="must be a list"):
        Captioner.caption(None, "a.png")
