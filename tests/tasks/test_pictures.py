"""Published and saved models of pictures: labels, vectors, and the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import regard as rg
from regard.cli.pictures import check_reads
from regard.errors import CheckpointError, ConfigError, DataError, UnsupportedError
from regard.tasks.pictures import LabeledPicture
from regard.vision.pictures import read_picture
from tests.cli.run import error, model_folder, regard
from tests.vision.made import photos, published, shape

LABELS = ["apple", "plum", "grape"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("hub") / "vit", LABELS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    where = photos(tmp_path_factory.mktemp("photos") / "all", 7)
    return [str(path) for path in sorted(where.rglob("*.png"))]


def test_labels_with_probabilities(folder: Path, pictures: list[str]) -> None:
    model = rg.load(folder)
    results = model.classify(pictures, batch_size=4)
    assert [result.picture for result in results] == pictures
    for picture, result in zip(pictures, results, strict=True):
        logits = model.module(model.processor(read_picture(picture))[None]).logits
        expected = dict(zip(LABELS, logits.softmax(-1)[0].tolist(), strict=True))
        assert dict(result.labels) == pytest.approx(expected, abs=1e-5)
        assert [label for label, _ in result.labels] == sorted(expected, key=lambda label: -expected[label])
        assert str(result) == result.labels[0][0]
    assert [len(one.labels) for one in model.classify(pictures[:2], top=2)] == [2, 2]
    alone = torch.cat([model.probabilities([picture]) for picture in pictures])
    torch.testing.assert_close(alone, model.probabilities(pictures), rtol=0, atol=1e-5)
    assert model.probabilities([]).shape == (0, 3)


def test_vectors(folder: Path, pictures: list[str]) -> None:
    model = rg.load(folder)
    vectors = model.embed(pictures)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(pictures)))
    raw = model.embed(pictures[:1], pooling="mean", normalize=False)
    hidden = model.module(model.processor(read_picture(pictures[0]))[None]).hidden
    torch.testing.assert_close(raw[0], hidden[0, 1:].mean(0), rtol=0, atol=1e-5)
    assert model.embed([]).shape == (0, 32)
    with pytest.raises(ConfigError, match="max"):
        model.embed(pictures, pooling="max")


def test_saved_and_loaded(folder: Path, pictures: list[str], tmp_path: Path) -> None:
    model = rg.load(folder)
    model.save(tmp_path)
    again = rg.load(tmp_path)
    assert again.processor == model.processor
    assert again.labels == LABELS
    assert torch.equal(again.probabilities(pictures), model.probabilities(pictures))


def test_exported(folder: Path, pictures: list[str], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = rg.load(folder)
    rg.export_hf(model, tmp_path)
    again = rg.load(tmp_path)
    assert (again.processor, again.labels) == (model.processor, LABELS)
    assert torch.equal(again.probabilities(pictures), model.probabilities(pictures))
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert theirs.config.id2label == dict(enumerate(LABELS))
    inputs = torch.stack([model.processor(read_picture(picture)) for picture in pictures])
    with torch.inference_mode():
        expected = theirs(inputs).logits.softmax(-1)
    torch.testing.assert_close(model.probabilities(pictures), expected, rtol=0, atol=1e-5)


def test_scores(folder: Path, pictures: list[str]) -> None:
    model = rg.load(folder)
    truth = [LabeledPicture(p, label.label, p) for p, label in zip(pictures, model.classify(pictures), strict=True)]
    evaluation = model.evaluate(truth)
    assert evaluation.scores.accuracy == 1
    assert "21 pictures" in evaluation.table()
    with pytest.raises(DataError, match="pear"):
        model.evaluate([LabeledPicture(pictures[0], "pear", "here")])
    with pytest.raises(DataError, match="no records"):
        model.evaluate([])


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    model = rg.load(folder)
    with pytest.raises(DataError, match="a list of its own"):
        model.classify("a.png")
    with pytest.raises(DataError, match=r"\(3, 4\)"):
        model.classify([np.zeros((3, 4), np.uint8)])
    bare = rg.load(published(tmp_path / "bare"))
    with pytest.raises(UnsupportedError, match="no classifier"):
        bare.classify([np.zeros((3, 4, 3), np.uint8)])
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        rg.load(tmp_path / "bare").embed([np.zeros((3, 4, 3), np.uint8)])
    (tmp_path / "bare" / "preprocessor_config.json").write_text('{"image_processor_type": "Sam"}')
    with pytest.raises(CheckpointError, match="Sam"):
        rg.load(tmp_path / "bare")
    published(tmp_path / "few", LABELS)
    fields = json.loads((tmp_path / "few" / "config.json").read_text())
    fields["id2label"] = {"0": "apple"}
    (tmp_path / "few" / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match="3 labels"):
        rg.load(tmp_path / "few")


def test_command_line(folder: Path, pictures: list[str], tmp_path: Path) -> None:
    model = rg.load(folder)
    result = regard("classify", *pictures, "--model", str(folder), "--top", "2", "--batch-size", "4")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == pictures
    assert [line[1] for line in lines] == [str(one) for one in model.classify(pictures)]
    assert all(len(line) == 5 for line in lines)
    as_json = regard("classify", pictures[0], "--model", str(folder), "--json", "--top", "3")
    assert json.loads(as_json.stdout)["labels"].keys() == set(LABELS)
    embedded = regard("embed", *pictures[:3], "--model", str(folder))
    vectors = [json.loads(line)["embedding"] for line in embedded.stdout.splitlines()]
    torch.testing.assert_close(torch.tensor(vectors), model.embed(pictures[:3]), rtol=0, atol=1e-5)


def test_command_line_goes_on_after_a_bad_picture(folder: Path, pictures: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "text.png"
    bad.write_text("no picture\n" * 5)
    names = [pictures[0], str(bad), pictures[1], pictures[0]]
    result = regard("classify", *names, "--model", str(folder), "--batch-size", "2")
    assert result.exit_code == 1
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [pictures[0], pictures[1], pictures[0]]
    of_bad, summary = result.stderr.splitlines()
    assert of_bad.startswith(f"regard: error: {bad}")
    assert summary.startswith("regard: error: 1 of the pictures could not be read")
    npy = tmp_path / "vectors.npy"
    result = regard("embed", *names, "--model", str(folder), "--npy", str(npy))
    assert result.exit_code == 1
    vectors = np.load(npy)
    assert vectors.shape == (4, 32)
    assert np.isnan(vectors).all(1).tolist() == [False, True, False, False]
    assert np.array_equal(vectors[0], vectors[3])
    result = regard("embed", *names, "--model", str(folder))
    assert [json.loads(line)["picture"] for line in result.stdout.splitlines()] == [pictures[i] for i in (0, 1, 0)]


def test_command_line_refuses_pictures_for_a_model_of_texts(pictures: list[str]) -> None:
    assert "cannot classify" in error("classify", pictures[0], "--model", str(model_folder()), code=1)
    with pytest.raises(UnsupportedError, match="are pictures"):
        check_reads(object(), "classify", pictures=True)


def test_gray_and_large_pictures(folder: Path, tmp_path: Path) -> None:
    shape("red", 1).convert("L").resize((300, 200)).save(tmp_path / "gray.jpg")
    assert len(rg.load(folder).classify([tmp_path / "gray.jpg"], top=1)[0].labels) == 1
