"""Pictures have words on both axes, named, and a color bar; no word is taken for a formula."""

import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from regard.errors import ConfigError
from regard.lens.fonts import covering
from regard.lens.picture import MOST_CELLS, MOST_PIXELS, figure, save, simplified
from regard.lens.view import HeatMap
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


def map_of(rows: int, columns: int, word: str = "word") -> HeatMap:
    weights = torch.rand(rows, columns, generator=torch.Generator().manual_seed(1)).softmax(-1)
    names = ([f"{word}{i}" for i in range(size)] for size in (rows, columns))
    axes = {"row_axis": "target", "column_axis": "source"}
    return HeatMap(**dict(zip(("rows", "columns"), names, strict=True)), **axes, weights=weights, title="A map")


@pytest.mark.parametrize(
    ("rows", "columns", "word"), [(47, 53, "word"), (211, 197, "word"), (3, 499, ""), (61, 2, "x" * 997)]
)
def test_a_large_map_has_a_greatest_size(rows: int, columns: int, word: str, tmp_path: Path) -> None:
    save(map_of(rows, columns, word), tmp_path / "large.png")
    wide, high = struct.unpack(">II", (tmp_path / "large.png").read_bytes()[16:24])
    assert max(wide, high) <= MOST_PIXELS
    assert max(wide, high) > 0.8 * MOST_PIXELS


def test_all_words_are_named_as_long_as_there_is_room() -> None:
    seen = map_of(53, 211)
    axes = figure(seen).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == seen.columns
    assert [label.get_text() for label in axes.get_yticklabels()] == seen.rows
    assert simplified(seen) == ""


def test_names_give_way_first() -> None:
    seen = map_of(7, 401)
    drawn = figure(seen)
    assert simplified(seen) == "1 cell in 2 is named"
    assert drawn.texts[0].get_text() == "A map; 1 cell in 2 is named"
    assert [label.get_text() for label in drawn.axes[0].get_xticklabels()] == seen.columns[::2]
    assert drawn.axes[0].images[0].get_array().shape == (7, 401)


def test_then_words_share_a_cell() -> None:
    """A cell has what its columns get together, and what its rows give in the mean, so that rows sum to 1."""
    seen = map_of(3, MOST_CELLS + 1)
    drawn = figure(seen)
    assert simplified(seen) == "1 x 2 words a cell; 1 cell in 3 is named"
    shown = torch.from_numpy(drawn.axes[0].images[0].get_array().data)
    assert shown.shape == (3, MOST_CELLS // 2 + 1)
    weights = seen.weights.float()
    torch.testing.assert_close(shown[:, :-1], weights[:, :-1].unflatten(1, (-1, 2)).sum(2))
    torch.testing.assert_close(shown[:, -1], weights[:, -1])
    assert [label.get_text() for label in drawn.axes[0].get_xticklabels()] == seen.columns[::6]


@pytest.mark.parametrize("colors", ["blue", "cividis"])
def test_all_pictures_have_one_scale(colors: str) -> None:
    drawn = figure(map_of(3, 5), colors=colors)
    assert (drawn.axes[0].images[0].norm.vmin, drawn.axes[0].images[0].norm.vmax) == (0, 1)
    labels = [label.get_text() for label in drawn.axes[1].get_yticklabels()]
    assert labels == ["0%", "1%", "10%", "25%", "50%", "100%"]


def test_characters_without_a_font_are_named_in_a_line(tmp_path: Path) -> None:
    unassigned = "\U000e1234\U000e1235"  # no font has them
    with pytest.warns(UserWarning, match="picture: no installed font has the characters .: install one") as warned:
        save(alignment(f"a {unassigned[0]}", "b").map(), tmp_path / "a.png")
    assert len(warned) == 1
    assert covering(["a b", unassigned[1]]) == (["DejaVu Sans"], [unassigned[1]])


def test_other_colors_are_refused() -> None:
    with pytest.raises(ConfigError, match="colors='viridis'"):
        figure(map_of(2, 2), colors="viridis")
