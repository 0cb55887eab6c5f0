"""Training on made pictures: colored squares on noise, which a small model tells apart in seconds."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import regard as rg
from regard.errors import ConfigError, DataError
from regard.tasks.classify_pictures import ClassifyPictures
from regard.train.options import TrainOptions
from regard.train.run import make_task, train
from tests.cli.run import error, regard
from tests.vision.made import COLORS, TINY, photos, published

FAST: dict[str, Any] = {
    "task": "classify", "model": "vit", "model_settings": TINY, "threads": 1, "precision": "float32", "device": "cpu",
    "task_settings": {"crop": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos") / "train", 50)


@pytest.fixture(scope="module")
def test_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos") / "test", 10, seed=500)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "shapes"
    return train(TrainOptions(files=(str(folder),), out=str(out), steps=60, learning_rate=3e-3, **FAST))


def test_learns_to_tell_colors_apart(trained: Path, test_folder: Path) -> None:
    model = rg.load(trained)
    assert model.labels == sorted(COLORS)
    evaluation = model.evaluate(ClassifyPictures.read([str(test_folder)]))
    assert evaluation.scores.accuracy >= 0.9
    assert evaluation.scores.macro_f1 >= 0.9
    picture = str(test_folder / "red" / "0.png")
    assert str(model.classify([picture])[0]) == "red"
    assert model.embed([picture]).shape == (1, TINY["embed_dim"])


def test_command_line(trained: Path, folder: Path, test_folder: Path, tmp_path: Path) -> None:
    result = regard("evaluate", str(test_folder), "--model", str(trained))
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.stdout
    assert "30 pictures" in result.stdout
    words = ["--task", "classify", "--model", "vit", "--out", str(tmp_path / "run"), "--steps", "2", "--threads", "1"]
    settings = [word for name, x in TINY.items() for word in (f"--model.{name}", str(x))]
    result = regard("train", str(folder), *words, *settings, "--task.flip", "false")
    assert result.exit_code == 0, result.output
    assert rg.load(tmp_path / "run").labels == sorted(COLORS)


CONVOLUTIONS = {"image_size": 16, "channels": 8, "num_blocks": 1, "attention_dim": 8, "num_heads": 2}


@pytest.fixture(scope="module")
def network(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "network"
    options = {**FAST, "model": "conv-attention", "model_settings": CONVOLUTIONS}
    return train(TrainOptions(files=(str(folder),), out=str(out), steps=60, learning_rate=3e-3, **options))


def test_a_network_with_attention_learns(network: Path, test_folder: Path) -> None:
    model = rg.load(network)
    records = list(ClassifyPictures.read([str(test_folder)]))
    assert model.evaluate(records).scores.accuracy >= 0.9
    files = [record.picture for record in records]
    together, alone = model.probabilities(files), torch.cat([model.probabilities([file]) for file in files])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)
    assert model.embed(files[:2]).shape == (2, 32)
    with pytest.raises(ConfigError, match='pooling="cls": the model has no class token'):
        model.embed(files[:2], pooling="cls")


def test_a_network_is_seen_and_fine_tuned(network: Path, test_folder: Path, tmp_path: Path) -> None:
    photo = test_folder / "red" / "0.png"
    maps = rg.load(network).see(photo)
    assert maps.label == "red"
    assert (maps.first, tuple(maps.attention.shape), list(maps.maps)) == ("attention", (1, 2, 4, 4), ["Grad-CAM"])
    torch.testing.assert_close(maps.attention.sum((2, 3)), torch.ones(1, 2))
    assert maps.map("Grad-CAM").max() > 0
    files = [str(tmp_path / name) for name in ("looked.html", "looked.png")]
    result = regard("see", str(photo), "--model", str(network), "--html", files[0], "--png", files[1])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("red 0.")
    assert all(Path(file).stat().st_size > 1000 for file in files)
    two = photos(tmp_path / "two", 30)
    (two / "blue").rename(tmp_path / "blue")
    options = {name: x for name, x in FAST.items() if not name.startswith("model")}
    run = train(TrainOptions(files=(str(two),), start=str(network), out=str(tmp_path / "run"), steps=1, **options))
    assert rg.load(run).labels == ["green", "red"]


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("conv-attention", {**CONVOLUTIONS, "attention_kind": "non-local", "pooling": "attention"}),
        ("conv-attention", {**CONVOLUTIONS, "attention_kind": "none"}),
        ("vit", {**TINY, "stem": "convolution", "positions": "relative-bias"}),
        ("vit", {**TINY, "positions": "relative-key"}),
    ],
)
def test_variants_on_the_command_line(
    model: str, settings: dict[str, Any], folder: Path, test_folder: Path, tmp_path: Path
) -> None:
    words = ["--task", "classify", "--model", model, "--out", str(tmp_path / "run"), "--steps", "2", "--threads", "1"]
    words += [word for name, x in settings.items() for word in (f"--model.{name}", str(x))]
    result = regard("train", str(folder), *words)
    assert result.exit_code == 0, result.output
    photo = str(test_folder / "red" / "0.png")
    result = regard("classify", photo, "--model", str(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert result.stdout.split("\t")[1].split()[0] in COLORS
    runner = rg.load(tmp_path / "run")
    if settings.get("attention_kind") == "none":
        with pytest.raises(ConfigError, match="no attention to show"):
            runner.see(photo)
    else:
        assert runner.see(photo).attention.shape[2:] == (4, 4)


def test_files_of_records(folder: Path, trained: Path, tmp_path: Path) -> None:
    rows = [(path.relative_to(folder), path.parent.name) for path in sorted(folder.rglob("*.png"))]
    table = folder.parent / "train" / "pictures.tsv"
    table.write_text("picture\tlabel\n" + "".join(f"{path}\t{label}\n" for path, label in rows))
    records = list(ClassifyPictures.read([str(table)]))
    assert [(record.picture, record.label) for record in records] == [
        (str(folder / path), label) for path, label in rows
    ]
    run = train(TrainOptions(files=(str(table),), out=str(tmp_path / "run"), steps=2, **FAST))
    assert rg.load(run).evaluate(records).texts == 150


@pytest.mark.parametrize("model", ["vit", "conv-attention"])
def test_a_run_stopped_and_resumed_has_the_same_weights(model: str, folder: Path, tmp_path: Path) -> None:
    options = {"files": (str(folder),), "checkpoint_every": 3, "evaluate_every": 3, "schedule": "constant", **FAST}
    if model == "conv-attention":
        options |= {"model": model, "model_settings": CONVOLUTIONS}
    whole = train(TrainOptions(out=str(tmp_path / "whole"), steps=6, **options))
    train(TrainOptions(out=str(tmp_path / "parts"), steps=3, **options))
    parts = train(TrainOptions(out=str(tmp_path / "parts"), steps=6, **options))
    last = Path("checkpoints", "step-00000006", "model.safetensors")
    expected, states = (safetensors.torch.load_file(run / last) for run in (whole, parts))
    assert expected.keys() == rg.load(whole).module.state_dict().keys()  # the statistics of batch norms too
    for name, x in states.items():
        assert torch.equal(x, expected[name]), name


def test_starts_from_a_published_model(folder: Path, tmp_path: Path) -> None:
    start = published(tmp_path / "hub", ["a", "b"])
    options = {name: x for name, x in FAST.items() if not name.startswith("model")}
    task = make_task(TrainOptions(files=(str(folder),), start=str(start), out=str(tmp_path / "run"), **options))
    assert isinstance(task, ClassifyPictures)
    task.prepare(tmp_path / "data", lambda what, rows: None)
    model, before = task.build(), rg.load(start).module
    assert model.config.num_labels == 3
    assert torch.equal(model.encoder[1].feed_forward.expand.weight, before.encoder[1].feed_forward.expand.weight)
    run = train(TrainOptions(files=(str(folder),), start=str(start), out=str(tmp_path / "run"), steps=2, **options))
    assert rg.load(run).labels == sorted(COLORS)


def test_held_out_pictures_in_a_folder_of_their_own(folder: Path, test_folder: Path, tmp_path: Path) -> None:
    options = {"files": (str(folder),), "valid": str(test_folder), "out": str(tmp_path / "run"), **FAST}
    task = make_task(TrainOptions(**options))
    task.prepare(tmp_path / "data", lambda what, rows: None)
    assert task.counts == {"train": 150, "valid": 30}
    assert task.is_prepared(tmp_path / "data")
    held_out = {Path(record.picture).relative_to(test_folder).parts[0] for record in task.data.valid_records}
    assert held_out == set(COLORS)


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 30)
    bad = folder / "red" / "bad.png"
    bad.write_text("no picture")
    options: dict[str, Any] = {"files": (str(folder),), "out": str(tmp_path / "run"), "steps": 1, **FAST}
    with pytest.raises(DataError, match="skip_bad_rows") as caught:
        train(TrainOptions(**options))
    assert str(bad) in str(caught.value)
    train(TrainOptions(skip_bad_rows=True, **options))


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    def task(**changes: Any) -> Any:
        return make_task(TrainOptions(**{"files": (str(folder),), "out": str(tmp_path / "run"), **FAST, **changes}))

    for changes, expected in (
        ({"model": "rnn"}, "rnn"),
        ({"size": "enormous", "model_settings": None}, "enormous"),
        ({"size": "tiny", "model": "conv-attention", "model_settings": None}, "conv-attention has no sizes by name"),
        ({"task_settings": {"crops": 1}}, "crops"),
        ({"task_settings": {"crop": -1}}, "crop=-1"),
        ({"task_settings": {"flip": 3}}, "flip=3"),
        ({"vocab_size": 300}, "vocab_size"),
        ({"model_settings": {**TINY, "num_channels": 1}}, "num_channels=1"),
    ):
        with pytest.raises(ConfigError, match=expected):
            task(**changes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a folder for each class"):
        task(files=(str(tmp_path / "empty"),))
    assert "folder" in error(
        "train", str(tmp_path / "empty"), "--task", "classify", "--out", str(tmp_path / "x"), code=1
    )
