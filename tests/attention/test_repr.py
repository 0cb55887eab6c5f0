"""What is printed in a terminal and shown in a notebook."""

import dataclasses
import re
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.attention.engine.html import CELLS, pattern_html
from regard.attention.patterns.pattern import Pattern

VOCABULARY = rg.Vocabulary(size=30)


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (rg.GlobalTokens([3, 1, 3]), "GlobalTokens(positions=(1, 3))"),
        (rg.GlobalTokens(range(1000)), "GlobalTokens(positions=range(0, 1000))"),
        (rg.GlobalTokens([0, 5, *range(7, 90)]), "GlobalTokens(positions=(0, 5, *range(7, 90)))"),
        (rg.GlobalTokens(range(0, 99, 2)), "GlobalTokens(positions=(0, 2, 4, 6, 8, 10, 12, ..., 98))"),
        (rg.Dot(scale=torch.tensor(0.5)), "Dot(scale=tensor(0.5))"),
        (rg.Dot(scale=torch.ones(3)), "Dot(scale=Tensor(3))"),
        (rg.AttentionConfig(), "AttentionConfig()"),
        (rg.AttentionConfig(normalizer=rg.Entmax(1.5)), "AttentionConfig(normalizer=Entmax(alpha=1.5))"),
        (VOCABULARY, "Vocabulary(size=30, pad=0, bos=1, eos=2)"),
        (rg.Vocabulary(size=30, never=(3,)), "Vocabulary(size=30, pad=0, bos=1, eos=2, never=(3,))"),
        (rg.replace_sdpa(), "replace_sdpa()"),
    ],
    ids=str,
)
def test_repr(thing: object, text: str) -> None:
    assert repr(thing) == text


CONFIGS = [
    rg.TransformerConfig.from_preset("tiny", VOCABULARY),
    rg.T5Config.from_preset("small", VOCABULARY),
    rg.GPTConfig.from_preset("gpt3-small", VOCABULARY, attention_dropout=0.0),
    rg.LlamaConfig(vocabulary=VOCABULARY),
    rg.BertConfig.from_preset("roberta-base"),
    rg.RNNConfig(vocabulary=VOCABULARY, attention=rg.AttentionConfig(score=rg.LearnedCosine())),
    rg.LuongConfig(vocabulary=VOCABULARY, window="local-p"),
    rg.ConvS2SConfig(vocabulary=VOCABULARY),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_configuration_is_the_call_that_makes_it(config: object) -> None:
    text = repr(config)
    assert eval(text, vars(rg)) == config
    assert "None" not in text
    assert "()" not in text.replace("LearnedCosine()", "")
    for name in ("embed_dim", "vocab_size", "layers"):
        if name in vars(config):  # sizes are shown, defaults or not
            assert f"{name}={vars(config)[name]}" in text


def test_a_runner_is_its_model_and_its_size() -> None:
    assert re.fullmatch(r"Translator\(Transformer, [\d,]+ parameters\)", repr(rg.load()))


def test_a_recording_counts_calls() -> None:
    layer = rg.MultiHeadAttention(8, 2)
    with rg.record(layer) as recording:
        layer(torch.zeros(1, 3, 8))
        layer(torch.zeros(2, 3, 8))  # which cannot be joined, and can be printed
    assert repr(recording) == "Recording(AttentionRecord('', 1 x 2 heads, 3 x 3, 2 calls))"


def grid(html: str) -> Tensor:
    """The shades of the picture in a piece of HTML."""
    [text] = re.findall(r"<svg.*</svg>", html)
    svg = ElementTree.fromstring(text)
    _, _, columns, rows = map(int, svg.attrib["viewBox"].split())
    shades = torch.zeros(rows, columns)
    for one in svg:
        x, y, width, height = (int(one.attrib[name]) for name in ("x", "y", "width", "height"))
        assert not shades[y : y + height, x : x + width].any()
        shades[y : y + height, x : x + width] = float(one.attrib["fill-opacity"])
    return shades


def drawn(pattern: Pattern, queries: int, keys: int, **place: int) -> Tensor:
    return torch.tensor([[c == "█" for c in line] for line in pattern.draw(queries, keys, **place).splitlines()])


SMALL = [
    (rg.Causal(), 12, 12),
    (~rg.Causal(), 12, 12),
    (rg.Causal() & rg.SlidingWindow(left=7), 14, 14),
    (rg.Dilated(2, left=3, right=3), 12, 12),
    (rg.Strided(5), 12, 12),
    (rg.GlobalTokens([9]), 18, 18),
    (rg.KeyLengths(torch.tensor([8, 15])), 30, 30),
    (rg.Documents(torch.tensor([[1, 1, 2, 2, 2]])), 5, 5),
    (rg.Documents(torch.tensor([[1, 1, 2]]), torch.tensor([[1, 2, 2, 2]])), 3, 4),
    (rg.Mask(torch.eye(3, 7, dtype=torch.bool)), 3, 7),
    (rg.Around(torch.arange(9.0), left=2, right=1), 9, 9),
]


@pytest.mark.parametrize(("pattern", "queries", "keys"), SMALL, ids=str)
def test_a_pattern_is_drawn_as_it_is(pattern: Pattern, queries: int, keys: int) -> None:
    html = pattern._repr_html_()
    assert torch.equal(grid(html) > 0, drawn(pattern, queries, keys))
    assert f"{queries} queries (down) x {keys} keys" in html


def test_a_layout_is_drawn_from_its_corner() -> None:
    pattern = rg.BlockSparse(torch.tensor([[True, False, True], [False, True, False]]), block_size=4)
    assert torch.equal(grid(pattern._repr_html_()) > 0, drawn(pattern, 8, 12, query_start=0))


def test_a_large_pattern_is_drawn_in_shares() -> None:
    pattern = rg.Causal() & rg.SlidingWindow(left=128)
    shades = grid(pattern._repr_html_())
    assert shades.shape == (CELLS, CELLS)
    assert shades[20, 0] == 0
    assert 0 < shades[20, 20] < shades[20, 15]
    assert len(pattern._repr_html_()) < 20_000


def test_what_cannot_stand_together_has_no_picture() -> None:
    first, second = (torch.ones(n, n, dtype=torch.bool) for n in (3, 4))
    assert "<svg" not in (rg.Mask(first) & rg.Mask(second))._repr_html_()


def test_text_is_escaped() -> None:
    class Odd(Pattern):
        def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
            return key_S <= query_BL[:, None, :, None]

        def __repr__(self) -> str:
            return "<script>&"

    odd = dataclasses.dataclass(frozen=True, eq=False, repr=False)(Odd)()
    assert "&lt;script&gt;&amp;" in pattern_html(odd)
    assert "<script" not in pattern_html(odd)
    query = torch.zeros(1, 1, 3, 4)
    assert "<script" not in rg.plan(query, query, query, pattern=odd)._repr_html_()


def test_a_plan_is_a_table_of_what_it_explains() -> None:
    query = torch.zeros(1, 2, 6, 4)
    key = torch.zeros(1, 2, 9, 4)
    plan = rg.plan(query, key, key, pattern=rg.Causal() & rg.SlidingWindow(left=2), normalizer=rg.Sparsemax())
    html = plan._repr_html_()
    for text in ("query (1, 2, 6, 4)", plan.backend, "not sdpa", "normalizer: computes Softmax only, not Sparsemax()"):
        assert text in html
    assert "pattern=Causal() &amp; SlidingWindow(left=2)" in html
    assert torch.equal(grid(html) > 0, drawn(plan.call.spec.pattern, 6, 9))
    assert "<svg" not in rg.plan(query[:, :, :0], key, key, pattern=rg.Causal())._repr_html_()
