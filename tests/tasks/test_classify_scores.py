"""Scores of a classifier, worked by hand."""

import pytest
import torch

from regard.tasks.bag_of_words import FEATURES, BagOfWords, hashed_words
from regard.tasks.classify_scores import calibration_error, confusion_of, decisions, f1_of, score


def booleans(*rows: str) -> torch.Tensor:
    return torch.tensor([[c == "x" for c in row] for row in rows])


def test_one_label_a_text() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    true = booleans("x..", ".x.", ".x.", ".x.")
    found = score(probabilities, true, multi_label=False)
    assert found.accuracy == pytest.approx(3 / 4)
    # label 0: decided twice, right once of one; label 1: right twice of three, decided twice; label 2 never occurs
    assert found.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert confusion_of(decisions(probabilities, multi_label=False), true).tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]


def test_any_number_of_labels() -> None:
    probabilities = torch.tensor([[0.9, 0.6], [0.2, 0.5], [0.1, 0.4]])
    true = booleans("xx", "..", "..")
    assert decisions(probabilities, multi_label=True).tolist() == booleans("xx", ".x", "..").tolist()
    found = score(probabilities, true, multi_label=True)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.macro_f1 == pytest.approx((1 + 2 / 3) / 2)


def test_a_label_that_never_occurs_counts_in_no_mean() -> None:
    assert f1_of(booleans("x."), booleans("x."))[1].isnan()


def test_calibration() -> None:
    assert calibration_error(torch.tensor([0.95, 0.95]), torch.tensor([True, True])) == pytest.approx(0.05)
    assert calibration_error(torch.tensor([0.95, 0.95]), torch.tensor([True, False])) == pytest.approx(0.45)
    # bins of 0.9 and 0.6, one text each: 0.1 too little, 0.6 too much
    assert calibration_error(torch.tensor([0.9, 0.6]), torch.tensor([True, False])) == pytest.approx((0.1 + 0.6) / 2)


def test_words_and_pairs() -> None:
    assert hashed_words("One two") == hashed_words("one, TWO!")
    assert len(hashed_words("one two one two")) == 4  # two words, "one two" and "two one"
    assert hashed_words("…") == []
    assert all(0 <= i < FEATURES for i in hashed_words("any words at all"))


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_baseline_learns_and_is_saved(multi_label: bool, tmp_path) -> None:
    texts = [f"{word} {i}" for i in range(30) for word in ("good", "bad")] + ["", "…"]
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(31, 1)
    rows = [hashed_words(text) for text in texts]
    baseline = BagOfWords.fit(rows, targets, multi_label=multi_label)
    probabilities = baseline.probabilities([hashed_words("good 99"), hashed_words("bad 99"), []])
    assert probabilities[0, 0] > 0.9
    assert probabilities[1, 1] > 0.9
    assert probabilities[2].isfinite().all()
    (tmp_path / "x.safetensors").write_bytes(baseline.to_bytes())
    again = BagOfWords.load(tmp_path / "x.safetensors", multi_label=multi_label)
    torch.testing.assert_close(again.probabilities(rows), baseline.probabilities(rows), atol=2e-3, rtol=0)
