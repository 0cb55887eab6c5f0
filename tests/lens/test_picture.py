"""Pictures have words on both axes, named, and a color bar; no word is taken for a formula."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from regard.lens.picture import figure, save
from tests.lens.models import alignment

HOSTILE = "$x^2$ \\frac{ $ <b>&amp;\"'"


def test_axes_words_and_bar() -> None:
    seen = alignment("a b c", HOSTILE).map()
    drawn = figure(seen)
    axes, bar = drawn.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("source", "target", "attention weight")
    assert [label.get_text() for label in axes.get_xticklabels()] == seen.columns
    assert [label.get_text() for label in axes.get_yticklabels()] == seen.rows
    assert axes.images[0].get_array().shape == seen.weights.shape
    assert drawn.texts[0].get_text() == seen.title


@pytest.mark.parametrize("suffix", ["png", "svg", "SVG"])
def test_files_are_written_without_pyplot(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)  # an import of it would fail
    path = tmp_path / f"seen.{suffix}"
    save(alignment("a b c", HOSTILE).map("encoder"), path)
    if suffix == "png":
        assert path.read_bytes().startswith(b"\x89PNG\r\n")
    else:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_one_word_is_enough(tmp_path: Path) -> None:
    save(alignment("", "").map(), tmp_path / "seen.png")
    assert (tmp_path / "seen.png").stat().st_size > 1000
