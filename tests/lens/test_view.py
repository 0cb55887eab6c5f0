"""Views of recordings: bins, labels, files and pages, of inputs that are too long for a cell a word."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import regard as rg
from regard.errors import DataError
from regard.lens import files, picture, terminal
from regard.lens.record import record
from regard.lens.view import View, bin_edges, binned

LENGTH = 300


def long_view(length: int = LENGTH) -> View:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2).eval()
    with torch.no_grad(), record(encoder, grid=32, top=4) as recording:
        encoder(torch.randn(1, length, 16))
    return recording.view([f"w{i}" for i in range(length)], title="a long text")


def test_bins_sum_keys_and_average_queries() -> None:
    """By hand: two rows a bin, keys 0-1 and 2."""
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]])
    expected = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    torch.testing.assert_close(binned(weights, [0, 2, 3], [0, 2, 3]), expected)
    assert bin_edges(300, 64)[:3] == [0, 8, 16]
    assert bin_edges(64, 64) == list(range(65))


def test_a_long_view_has_labeled_bins() -> None:
    view = long_view()
    assert view.kinds == ["text"]
    heat_map = view.map(layer=2, head=3)
    assert heat_map.title == "Attention of text to itself, layer 2, head 3"
    assert heat_map.rows[:2] == ["w0 … w15", "w16 … w31"]
    assert heat_map.weights.shape == (19, 19)
    torch.testing.assert_close(heat_map.weights.sum(1), torch.ones(19))


def test_files_give_the_same_view_again(tmp_path: Path) -> None:
    view = long_view()
    for name in ("view.npz", "view.json"):
        files.save(view, tmp_path / name)
        again = files.load(tmp_path / name)
        assert again.axes == view.axes
        assert (again.title, list(again.notes)) == (view.title, [])
        for mine, theirs in zip(again.layers, view.layers, strict=True):
            assert (mine.path, mine.row_edges, mine.error) == (theirs.path, theirs.row_edges, theirs.error)
            for field in files.TENSORS:
                assert torch.equal(getattr(mine, field), getattr(theirs, field)), field


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    files.save(long_view(40), tmp_path / "view.npz")
    whole = (tmp_path / "view.npz").read_bytes()
    for number, content in enumerate((b"", b"PK", whole[:200], whole[:-40], b"{}")):
        (tmp_path / f"{number}.npz").write_bytes(content)
        with pytest.raises(DataError, match=f"{number}.npz holds no view of attention"):
            files.load(tmp_path / f"{number}.npz")
    np.savez(tmp_path / "pickle.npz", about=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"pickle.npz"):
        files.load(tmp_path / "pickle.npz")
    for text in ("[]", "{", json.dumps({"format": "other", "arrays": {}})):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x.json"):
            files.load(tmp_path / "x.json")


def test_pictures_and_the_terminal_take_bins(tmp_path: Path) -> None:
    view = long_view()
    picture.save(view.map(), tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 1000
    assert "w0 … w15" in terminal.draw(view.map(), columns=250, color=False)
    assert "<table" in view._repr_html_()


def test_a_recording_writes_its_page(tmp_path: Path) -> None:
    layer = rg.MultiHeadAttention(8, 2)
    with torch.no_grad(), record(layer) as recording:
        layer(torch.randn(1, 3, 8))
    recording.page(tmp_path / "page.html", tokens=["one", "<two>", "three"])
    text = (tmp_path / "page.html").read_text()
    assert "&lt;two&gt;" in text
    assert "<two>" not in text
    assert "http://" not in text


def test_a_recording_is_shown_drawn_and_printed(tmp_path: Path) -> None:
    layer = rg.MultiHeadAttention(8, 2)
    with torch.no_grad(), record(layer) as recording:
        layer(torch.randn(1, 3, 8))
    tokens = ["one", "<two>", "three"]
    frame = recording.show(tokens, title="Looked at", height=321)
    html = frame._repr_html_()
    assert html.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert html.count("<") == 2  # the frame alone: the page is inside its attribute
    assert "height: 321px" in html
    assert "<h1>Looked at</h1>" in frame.html
    assert repr(frame).endswith("characters of HTML; a notebook shows them)")
    recording.picture(tmp_path / "map.png", tokens, head=2, colors="cividis")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    text = recording.terminal(tokens, head=1, columns=60, color=False)
    assert text.startswith("Attention of text to itself, head 1: text words across")
    assert "one <two> three\n" in text
    assert recording._repr_html_() == recording.view()._repr_html_()
