"""Misuse of text classifiers and of their training: see `cases.py`."""

import tempfile
from pathlib import Path
from typing import Any

import regard as rg
from regard.cli.shared import open_for
from regard.errors import CheckpointError, ConfigError, DataError, UnsupportedError
from regard.models.text_classifier import TextClassifier, TextClassifierConfig
from regard.tasks.classify import Classifier
from regard.tasks.labeled_texts import MAX_LABELS, Labeled, LabeledTexts
from tests.checkpoints.made import tokenizer
from tests.cli.run import model_folder
from tests.errors.cases import Case


def config(**changes: Any) -> TextClassifierConfig:
    sizes = {"embed_dim": 4, "hidden_dim": 4, "align_dim": 4, "num_labels": 2}
    return TextClassifierConfig(**{"vocabulary": rg.Vocabulary(size=tokenizer().size), **sizes, **changes})


def classifier(*labels: str) -> Classifier:
    """A model with random weights for two labels."""
    return Classifier(TextClassifier(config()).eval(), tokenizer(), {"labels": list(labels or ("good", "bad"))})


def training(labels: str, **options: Any) -> object:
    """Train on eight texts, which have these labels in turn."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "films.csv")
        rows = [f"film {i},{labels[i % len(labels)]}\n" for i in range(8)]
        path.write_text("".join(["text,label\n", *rows]), encoding="utf-8")
        return rg.train(path, task="classify", steps=1, held_out=2, out=Path(name, "run"), **options)


def from_other_labels() -> object:
    with tempfile.TemporaryDirectory() as folder:
        classifier().save(folder)
        return training("ud", start=folder)


def verb_of_another_kind() -> object:
    with tempfile.TemporaryDirectory() as folder:
        classifier().save(folder)
        return open_for("complete", folder, None, "cpu")


def many_labels() -> object:
    """Survey texts of which each has a label of its own, as where the label's field is an id."""
    preparation = LabeledTexts(vocab_size=300, max_tokens=9)
    for i in range(MAX_LABELS + 1):
        preparation.survey(Labeled("a film", [str(i)], f"films.csv:{i + 1}"))
    return preparation


CASES: list[Case] = [
    (
        "classifier-other-verb",
        verb_of_another_kind,
        UnsupportedError,
        "a model that can with --model. This one can: classify, evaluate, see",
    ),
    (
        "classifier-penalty",
        lambda: config(penalty=-0.5),
        ConfigError,
        "TextClassifierConfig: penalty=-0.5 must be finite and at least 0",
    ),
    (
        "classifier-labels",
        lambda: classifier("good"),
        CheckpointError,
        "\"labels\" is ['good']; expected the names of 2 labels",
    ),
    ("classify-evaluate-nothing", lambda: classifier().evaluate([]), DataError, "no records to evaluate; give a file"),
    (
        "classify-evaluate-label",
        lambda: classifier().evaluate([Labeled("a film", ["odd"], "films.csv:2")]),
        DataError,
        "films.csv:2: the model has no label 'odd'; it has good, bad",
    ),
    (
        "classify-start",
        lambda: training("gb", start=model_folder()),
        ConfigError,
        "is a Translator; expected a published encoder such as BERT, or a classifier",
    ),
    ("classify-start-labels", from_other_labels, ConfigError, "has the labels good, bad; the records have d, u"),
    ("classify-many-labels", many_labels, DataError, "films.csv:10001: more than 10,000 labels; is the label's field"),
    ("classify-one-label", lambda: training("g"), DataError, "the records have 1 label, ['g']; expected two or more"),
]
