"""Scores of a classifier: accuracy, macro F1, confusion and calibration."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.tasks.score_table import ScoreTable, as_text

BINS = 10  # of probabilities, for the calibration
MAX_CELLS = 12  # labels whose confusion is shown as a table
CELL = 12  # characters of a column of that table


class Scores(NamedTuple):
    """Accuracy, macro F1 and calibration of predictions."""

    accuracy: float  # share of texts whose labels are all correct
    macro_f1: float  # mean over the labels that occur, in the texts or in the decisions
    calibration: float  # expected calibration error, from 0 to 1: Guo et al. 2017, arXiv 1706.04599, equation 3


class ClassifyEvaluation(NamedTuple):
    """Evaluation of a classifier on labeled texts."""

    labels: list[str]
    scores: Scores
    baseline: Scores | None  # of the logistic regression on words; None if the folder has none
    confusion: Tensor | None  # (labels, labels), rows are the true ones; None if a text may have several labels
    f1: list[float]  # of each label
    counts: list[int]  # texts that have each label
    texts: int
    seconds: float
    unit: str = "texts"  # plural noun for the classified items, in tables

    def to_plain(self) -> dict[str, Any]:
        """The evaluation as JSON types."""
        per_label = {
            label: {"f1": f1, "texts": count}
            for label, f1, count in zip(self.labels, self.f1, self.counts, strict=True)
        }
        return {
            "scores": self.scores._asdict(),
            "bag_of_words": None if self.baseline is None else self.baseline._asdict(),
            "labels": per_label,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "texts": self.texts,
            "seconds": self.seconds,
            "texts_per_second": self.texts / self.seconds,
        }

    def parts(self) -> list[ScoreTable | str]:
        """The scores beside those of the baseline, those of each label, and the confusion matrix as tables."""
        models = {"this model": self.scores, "bag of words": self.baseline}
        scores = [(name, *(f"{x:.3f}" for x in row)) for name, row in models.items() if row is not None]
        labels = [
            (label, f"{count:,}", f"{f1:.3f}")
            for label, f1, count in zip(self.labels, self.f1, self.counts, strict=True)
        ]
        parts: list[ScoreTable | str] = [
            ScoreTable(("", "accuracy", "macro F1", "calibration error"), scores, widths=(20, 10, 10, 19)),
            "",
            ScoreTable(("label", self.unit, "F1"), labels, widths=(30, 8, 8)),
        ]
        if self.confusion is not None and len(self.labels) <= MAX_CELLS:
            rows = [
                (label, *(f"{count:,}" for count in row))
                for label, row in zip(self.labels, self.confusion.tolist(), strict=True)
            ]
            table = ScoreTable(("", *self.labels), rows, widths=(20, *[CELL] * len(self.labels)))
            parts += ["", "true label (row), predicted (column)", table]
        return [
            *parts,
            "",
            f"{self.texts:,} {self.unit}, {self.texts / self.seconds:,.1f} {self.unit}/s, {self.seconds:,.1f} s",
        ]

    def table(self) -> str:
        """The scores beside those of the baseline, those of each label, and the confusion matrix, as lines of text."""
        return as_text(self.parts())

    def picture(self, path: str) -> None:
        """Write the confusion matrix as a picture, each row scaled to 1.

        Args:
            path: ends in .png or .svg.

        Raises:
            ImportError: matplotlib is missing.
        """
        from matplotlib.figure import Figure

        if self.confusion is None:
            return
        shares = self.confusion / self.confusion.sum(1, keepdim=True).clamp(min=1)
        side = 2 + 0.4 * len(self.labels)
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(self.labels)), self.labels, rotation=90)
        axes.set_yticks(range(len(self.labels)), self.labels)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        figure.colorbar(image, label="share of the row")
        figure.savefig(path, dpi=150)


def decisions(probabilities: Tensor, *, multi_label: bool) -> Tensor:
    """The labels (texts, labels) that are decided for, as booleans: the most probable one, or those of 0.5 and more."""
    if multi_label:
        return probabilities >= 0.5
    best = probabilities.argmax(-1, keepdim=True)
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter(1, best, True)


def f1_of(decided: Tensor, true: Tensor) -> Tensor:
    """F1 of each label (labels,) of booleans (texts, labels); NaN where a label is neither decided for nor true."""
    hits, sizes = (decided & true).sum(0), decided.sum(0) + true.sum(0)
    return 2 * hits / sizes


def score(probabilities: Tensor, true: Tensor, *, multi_label: bool) -> Scores:
    """Scores of probabilities (texts, labels) against true labels, booleans of the same shape."""
    decided = decisions(probabilities, multi_label=multi_label)
    f1 = f1_of(decided, true)
    if multi_label:
        confidence, right = (
            torch.where(decided, probabilities, 1 - probabilities).flatten(),
            (decided == true).flatten(),
        )
    else:
        confidence, right = probabilities.amax(-1), (decided == true).all(1)
    accuracy = (decided == true).all(1).float().mean()
    return Scores(float(accuracy), float(f1[~f1.isnan()].mean()), calibration_error(confidence, right))


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error: |confidence - accuracy| over bins of equal width, weighted by their sizes."""
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS).index_add_(0, bins, confidence.float() - right.float())
    return float(gaps.abs().sum() / len(confidence))


def confusion_of(decided: Tensor, true: Tensor) -> Tensor:
    """Confusion matrix (labels, labels) of single-label predictions: true labels in rows, predicted ones in columns."""
    size = true.shape[1]
    cells = true.long().argmax(1) * size + decided.long().argmax(1)
    return torch.bincount(cells, minlength=size * size).view(size, size)
