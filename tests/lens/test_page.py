"""The page is one file that asks for nothing, says what it shows, and takes no word for code."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch

from regard.lens.alignment import Alignment
from regard.lens.page import page
from tests.lens.models import alignment

HOSTILE = "</script><script>alert(1)</script> \"quoted\" 'single' <!-- &amp; {data} \\u003c \u2028 \ud800 <img/src=x>"


class Reader(HTMLParser):
    """The elements of a page with their attributes and the text inside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes), ""))
        self.open.append(tag)

    def handle_data(self, text: str) -> None:
        if self.found:
            tag, attributes, before = self.found[-1]
            self.found[-1] = (tag, attributes, before + text)

    def all(self, tag: str, **attributes: str) -> list[str]:
        return [text.strip() for name, has, text in self.found if name == tag and attributes.items() <= has.items()]


def data_of(text: str) -> list[dict]:
    [data] = Reader(text).all("script", id="data")
    return json.loads(data)


def test_the_table_has_headers_and_a_caption() -> None:
    seen = alignment("this is", "questo è qui")
    reader = Reader(page(seen))
    [caption] = reader.all("caption")
    assert caption == "Attention of target to source, mean of 2 layers, mean of 3 heads, in percent"
    assert len(reader.all("th", scope="col")) == 3
    assert len(reader.all("th", scope="row")) == 4
    assert reader.all("span")[-7:] == seen.source + seen.target
    assert reader.all("th", **{"class": "axis across"}) == ["source"]
    assert reader.all("th", **{"class": "axis down"}) == ["target"]
    cells = [int(text) for tag, has, text in reader.found if tag == "td" and "style" in has]
    assert cells == [round(100 * w) for w in seen.map().weights.flatten().tolist()]
    assert reader.all("figcaption") == ["attention weight", "Every layer and head"]


def test_the_data_hold_every_layer_and_head() -> None:
    seen = alignment("this is", "questo è qui")
    [found] = data_of(page(seen))
    assert list(found["kinds"]) == seen.kinds
    for kind, stored in found["kinds"].items():
        assert stored["words"] == [list(side) for side in seen.words(kind)]
        for layer, weights in zip(stored["layers"], seen.layers(kind).values(), strict=True):
            shown = torch.tensor(layer).view(weights.shape) / 1000
            assert torch.allclose(shown, weights, atol=0.0005001)


def test_no_word_is_taken_for_code() -> None:
    text = page(alignment(HOSTILE, HOSTILE), title=f"{HOSTILE} {{script}}")
    text.encode()  # half a character would not go into a file
    reader = Reader(text)
    assert [tag for tag, _, _ in reader.found].count("script") == 2
    assert not reader.all("img")
    [found] = data_of(text)
    assert found["source"][0] == "</script><script>alert(1)</script>"
    assert reader.all("h1")[0].startswith("</script><script>alert(1)</script> \"quoted\" 'single' <!-- &amp; {data}")


def test_nothing_is_asked_of_the_network() -> None:
    text = page([alignment("a b", "x"), alignment("c", "y z")])
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|import\(", text)
    for _, attributes, _ in Reader(text).found:
        assert not {"src", "srcset", "action"} & set(attributes)
        assert attributes.get("href", "data:,") == "data:,"
    [policy] = [has["content"] for tag, has, _ in Reader(text).found if has.get("http-equiv")]
    assert policy.startswith("default-src 'none'")
    assert len(data_of(text)) == 2


@pytest.mark.parametrize("kind", ["cross", "encoder"])
def test_one_kind_of_attention_is_enough(kind: str) -> None:
    seen = alignment("a b", "x y z", layers=1, heads=1)
    only = Alignment(source=seen.source, target=seen.target, weights=seen.layers(kind))
    [found] = data_of(page(only))
    assert list(found["kinds"]) == [kind]


def test_a_page_is_small() -> None:
    sentence = " ".join(["word"] * 30)
    assert len(page(alignment(sentence, sentence, layers=6, heads=8))) < 700_000
