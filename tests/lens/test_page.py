"""The page is one file that asks for nothing, holds all maps, and takes no word for code."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from regard.lens import files
from regard.lens.alignment import Alignment
from regard.lens.page import CELLS, SUMMARIZED, fitting, page
from regard.lens.view import Axis, LayerView, View, binned
from tests.lens.models import alignment

HOSTILE = "</script><script>alert(1)</script> \"quoted\" 'single' <!-- &amp; {data} \\u003c \u2028 \ud800 <img/src=x>"


class Reader(HTMLParser):
    """The elements of a page with their attributes and the text inside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes), ""))

    def handle_data(self, text: str) -> None:
        if self.elements:
            tag, attributes, before = self.elements[-1]
            self.elements[-1] = (tag, attributes, before + text)

    def all(self, tag: str, **attributes: str) -> list[str]:
        return [text.strip() for name, has, text in self.elements if name == tag and attributes.items() <= has.items()]


def views_of(text: str, folder: Path) -> list[View]:
    """The views that a page holds."""
    views = []
    for i, data in enumerate(Reader(text).all("script", **{"class": "view"})):
        (folder / f"{i}.npz").write_bytes(base64.b64decode(data))
        views.append(files.load(folder / f"{i}.npz"))
    return views


def test_without_scripts_there_is_a_table() -> None:
    seen = alignment("this is", "questo è qui")
    reader = Reader(page(seen))
    [caption] = reader.all("caption")
    assert caption.startswith("Attention of target to source, mean of 2 layers, mean of 3 heads: target down")
    assert [text for text in reader.all("th") if text] == seen.source + seen.target


def test_the_data_hold_every_layer_and_head(tmp_path: Path) -> None:
    seen = alignment("this is", "questo è qui")
    [view] = views_of(page(seen), tmp_path)
    assert view.kinds == seen.kinds
    assert len(view.layers) == len(seen.weights)
    for layer in view.layers:
        assert torch.allclose(layer.grid, seen.weights[layer.path], atol=1e-5)


def test_no_word_is_taken_for_code(tmp_path: Path) -> None:
    text = page(alignment(HOSTILE, HOSTILE), title=f"{HOSTILE} {{script}}")
    text.encode()  # half a character would not go into a file
    reader = Reader(text)
    assert [tag for tag, _, _ in reader.elements].count("script") == 2
    assert not reader.all("img")
    [view] = views_of(text, tmp_path)
    assert view.axes["source"].labels[0] == "</script><script>alert(1)</script>"
    assert reader.all("h1")[0].startswith("</script><script>alert(1)</script> \"quoted\" 'single' <!-- &amp; {data}")


def test_nothing_is_asked_of_the_network(tmp_path: Path) -> None:
    text = page([alignment("a b", "x"), alignment("c", "y z")])
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|import\(", text)
    for _, attributes, _ in Reader(text).elements:
        assert not {"src", "srcset", "action"} & set(attributes)
        assert attributes.get("href", "data:,") == "data:,"
    [policy] = [has["content"] for tag, has, _ in Reader(text).elements if has.get("http-equiv")]
    assert policy.startswith("default-src 'none'")
    assert len(views_of(text, tmp_path)) == 2


@pytest.mark.parametrize("kind", ["cross", "encoder"])
def test_one_kind_of_attention_is_enough(kind: str, tmp_path: Path) -> None:
    seen = alignment("a b", "x y z", layers=1, heads=1)
    only = Alignment(source=seen.source, target=seen.target, weights=seen.layers(kind))
    [view] = views_of(page(only), tmp_path)
    assert view.kinds == [kind]


def long_view(length: int, bins: int, layers: int, heads: int, top: int) -> View:
    """Random maps of a length."""
    torch.manual_seed(0)
    edges = [*range(0, length, -(-length // bins)), length]
    several = [
        LayerView(
            path=f"layer.{i}", rows="text", columns="text", row_edges=edges, column_edges=edges,
            grid=torch.randn(heads, len(edges) - 1, len(edges) - 1).softmax(-1), entropy=torch.rand(heads, length),
            distance=torch.randn(heads, length), key_mass=torch.rand(heads, length),
            top_keys=torch.randint(0, length, (heads, length, top)), top_weights=torch.rand(heads, length, top),
        )
        for i in range(layers)
    ]  # fmt: skip
    return View(title="", axes={"text": Axis(name="text", labels=["word"] * length)}, layers=several)


def test_places_without_a_weight_stay_without_a_key(tmp_path: Path) -> None:
    shown = long_view(30, 10, layers=1, heads=2, top=3)
    shown.layers[0].top_keys[:, :1], shown.layers[0].top_weights[:, :1] = -1, 0.0
    [view] = views_of(page(shown), tmp_path)
    assert torch.equal(view.layers[0].top_keys[:, :1], shown.layers[0].top_keys[:, :1])
    assert bool((view.layers[0].top_keys[:, 1:] >= 0).any())


def test_300_words_are_small() -> None:
    assert len(page(long_view(300, 64, layers=12, heads=12, top=8))) < 3_000_000


def test_of_very_many_queries_there_are_means() -> None:
    shown = long_view(SUMMARIZED // 10, 8, layers=2, heads=6, top=1)
    for layer in shown.layers:
        layer.key_mass[:, 5] = 1e6
    view = fitting(shown)
    assert len(page(shown)) < 5_000_000
    for mine, theirs in zip(view.layers, shown.layers, strict=True):
        torch.testing.assert_close(mine.entropy[:, 0], theirs.entropy.mean(1))
        assert mine.distance.shape == (6, 1)
        assert mine.key_mass.nonzero().tolist() == [[head, 5] for head in range(6)]
        assert mine.top_keys.shape == (6, SUMMARIZED // 10, 0)


def test_large_maps_are_joined_until_they_fit() -> None:
    view = long_view(1001, 1001, layers=1, heads=5, top=1)
    assert view.layers[0].grid.numel() > CELLS
    [layer] = fitting(view).layers
    assert layer.grid.shape == (5, 501, 501)
    assert list(layer.row_edges) == [*range(0, 1001, 2), 1001]
    torch.testing.assert_close(layer.grid, binned(view.layers[0].grid, layer.row_edges, layer.column_edges))
