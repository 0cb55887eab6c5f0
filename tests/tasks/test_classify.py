"""Classification from files to labels: from random weights, from an encoder, one label or several."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import regard as rg
from regard.errors import CheckpointError, ConfigError, DataError
from regard.tasks.classify import Classifier, Classify
from regard.tasks.labeled_texts import Labeled
from tests.checkpoints.published import write_bert

WORDS = {"positive": ["great", "lovely", "superb"], "negative": ["awful", "dull", "poor"], "mixed": ["fair", "plain"]}
SMALL: dict[str, Any] = {
    "task": "classify", "vocab_size": 400, "batch_tokens": 600, "learning_rate": 0.02, "evaluate_every": 20,
    "precision": "float32", "model_settings": {"embed_dim": 16, "hidden_dim": 16, "hops": 2, "align_dim": 8},
}  # fmt: skip


def write_csv(path: Path, rows: int = 240) -> str:
    choice = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["stars", "review"])
        for i in range(rows):
            label = choice.choice(list(WORDS))
            first, second = choice.choices(WORDS[label], k=2)
            table.writerow([label, f'film {i}; "{first}", and {second} I say'])
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Classifier]:
    folder = tmp_path_factory.mktemp("classify")
    fields = {"text": "review", "label": "stars"}
    options = {**SMALL, "fields": fields, "steps": 60, "out": str(folder / "run"), "seed": 3}
    return folder, rg.train(write_csv(folder / "reviews.csv"), **options)


def test_it_learns_and_is_loaded(trained: tuple[Path, Classifier]) -> None:
    folder, classifier = trained
    assert classifier.labels == ["mixed", "negative", "positive"]
    [found, other] = classifier.classify(["film 3, great and superb I say", "film 4, dull and poor I say"], top=2)
    assert (str(found), other.label) == ("positive", "negative")
    assert len(found.labels) == 2
    again = rg.load(folder / "run")
    texts = ["film 9, fair and plain I say", "x", ""]
    assert torch.equal(again.probabilities(texts), classifier.probabilities(texts))
    assert classifier.classify([]) == []
    records = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert {"valid_loss", "valid_accuracy", "valid_macro_f1", "texts"} <= records[-1].keys()


def test_a_text_is_the_same_in_any_batch(trained: tuple[Path, Classifier]) -> None:
    _, classifier = trained
    texts = [f"film {i}, {' and '.join(['great'] * (1 + i % 5))} I say" for i in range(40)]
    together = classifier.probabilities(texts, batch_size=64)
    for size in (1, 7):
        torch.testing.assert_close(classifier.probabilities(texts, batch_size=size), together, rtol=0, atol=1e-5)


def test_evaluation_stands_beside_a_bag_of_words(trained: tuple[Path, Classifier]) -> None:
    folder, classifier = trained
    reader = Classify.read([str(folder / "reviews.csv")], fields={"text": "review", "label": "stars"})
    found = classifier.evaluate(reader)
    assert found.scores.macro_f1 > 0.95
    assert found.baseline is not None
    assert found.baseline.macro_f1 > 0.95
    assert found.confusion is not None
    assert int(found.confusion.sum()) == found.texts == 240
    assert "bag of words" in found.table()
    assert json.loads(json.dumps(found.to_plain()))["texts"] == 240
    found.picture(str(folder / "confusion.png"))
    assert (folder / "confusion.png").stat().st_size > 1000


def test_the_pooling_is_seen(trained: tuple[Path, Classifier]) -> None:
    _, classifier = trained
    seen = classifier.see("film 3, great and superb I say")
    [weights] = seen.weights.values()
    assert weights.shape == (2, 1, len(seen.source))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1))
    assert seen.target == ["positive"]


def test_a_decision_is_explained(trained: tuple[Path, Classifier]) -> None:
    _, classifier = trained
    view = classifier.explain("film 3, great and superb I say")
    assert view.title == "positive: film 3, great and superb I say"
    assert view.axes["label"].labels == ["positive"]
    assert "superb" in "".join(view.axes["text"].labels)
    assert [layer.rows for layer in view.layers][-1] == "label"
    methods = {"attention", "value norm", "rollout", "attention x gradient", "integrated gradients", "leave one out"}
    assert {one.method for one in view.attributions} == methods
    for one in view.attributions:
        assert one.target == "positive"
        assert one.scores.shape == (len(view.axes["text"]),)
        names = {"comprehensiveness", "sufficiency", "deletion area"}
        assert set(one.trust) == names | {f"random {name}" for name in names}
    best = next(one for one in view.attributions if one.method == "leave one out")
    assert best.trust["comprehensiveness"] > best.trust["random comprehensiveness"]
    with pytest.raises(DataError, match="'' has fewer than two tokens"):
        classifier.explain("")


def test_several_labels_a_text(tmp_path: Path) -> None:
    rows = [
        {"text": f"film {i} {' '.join(words)}", "label": words}
        for i in range(60)
        for words in (["funny"], ["sad"], ["funny", "sad"], [])
    ]
    path = tmp_path / "films.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    classifier = rg.train(path, **SMALL, steps=60, out=tmp_path / "run")
    assert classifier.module.config.multi_label
    probabilities = classifier.probabilities(["film 3 funny sad", "film 5", "film 9 sad"])
    assert (probabilities > 0.5).tolist() == [[True, True], [False, False], [False, True]]


def test_from_an_encoder(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    options = {**SMALL, "model_settings": None, "vocab_size": None, "learning_rate": None}
    fields = {"text": "review", "label": "stars"}
    data = write_csv(tmp_path / "reviews.csv", 60)
    encoder = rg.load(tmp_path / "bert")
    before = encoder.module.state_dict()
    tuned = rg.train(data, **options, fields=fields, steps=2, start=tmp_path / "bert", out=tmp_path / "run")
    name = next(name for name in before if name.endswith("self_attention.query_proj.weight"))
    torch.testing.assert_close(tuned.module.encoder.state_dict()[name], before[name], atol=2e-3, rtol=0)
    assert tuned.tokenizer.kind == "published"
    assert rg.load(tmp_path / "run").classify(["a film"])[0].label in WORDS


def test_misuse(tmp_path: Path, trained: tuple[Path, Classifier]) -> None:
    folder, classifier = trained
    data = str(folder / "reviews.csv")
    with pytest.raises(ConfigError, match="a record of 'classify' has no 'stars'; known: text, label"):
        rg.train(data, **SMALL, steps=1, out=tmp_path / "a", fields={"stars": "stars"})
    with pytest.raises(ConfigError, match="size='base': the task 'classify' has no such option"):
        rg.train(data, **SMALL, steps=1, out=tmp_path / "b", size="base")
    (tmp_path / "one.csv").write_text("text,label\na film,good\nanother,good\nmore,good\n")
    with pytest.raises(DataError, match=r"have 1 label, \['good'\]; expected two or more"):
        rg.train(tmp_path / "one.csv", **SMALL, steps=1, out=tmp_path / "c")
    with pytest.raises(ConfigError, match="a Translator; expected a published encoder"):
        rg.train(data, task="classify", start="en-it", steps=1, out=tmp_path / "d")
    with pytest.raises(DataError, match="no records to evaluate"):
        classifier.evaluate([])
    with pytest.raises(DataError, match="the model has no label 'odd'"):
        classifier.evaluate([Labeled("a film", ["odd"], "x:1")])
    with pytest.raises(CheckpointError, match="expected the names of 3 labels"):
        Classifier(classifier.module, classifier.tokenizer, {"labels": ["one"]})
