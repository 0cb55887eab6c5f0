"""Sources without their padding are what they are with it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regard import kernels
from regard.layers.attention_config import AttentionConfig
from regard.layers.packing import Packing, packing
from regard.models.seq2seq import Vocabulary
from regard.models.t5 import T5, T5Config
from regard.models.transformer import Transformer, TransformerConfig

WORDS = Vocabulary(size=50)
ENTMAX = AttentionConfig.from_plain({"normalizer": {"kind": "entmax", "alpha": 1.5}})
LENGTHS = torch.tensor([9, 4, 1, 70])
needs_kernels = pytest.mark.skipif(
    kernels.missing() is not None or kernels.isa() == "baseline", reason="sources are packed where there are kernels"
)


def transformer(**changes: object) -> Transformer:
    sizes = {"embed_dim": 24, "num_heads": 3, "ffn_dim": 37, "encoder_layers": 2, "decoder_layers": 2}
    return Transformer(TransformerConfig(vocabulary=WORDS, **{**sizes, **changes})).eval()


def t5() -> T5:
    sizes = {"embed_dim": 24, "num_heads": 3, "head_dim": 8, "ffn_dim": 37, "num_buckets": 8, "max_distance": 20}
    return T5(T5Config(vocabulary=WORDS, encoder_layers=2, decoder_layers=2, **sizes)).eval()


def source() -> Tensor:
    drawn = torch.randint(3, WORDS.size, (len(LENGTHS), 70), generator=torch.Generator().manual_seed(1))
    return drawn.masked_fill(torch.arange(70) >= LENGTHS[:, None], WORDS.pad)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what has been packed so far."""
    shapes, pack = [], Packing.pack

    def told(self: Packing, x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return pack(self, x)

    monkeypatch.setattr(Packing, "pack", told)
    return shapes


def test_places() -> None:
    packed = Packing(torch.tensor([2, 0, 3]), 4)
    x = torch.arange(12.0).view(3, 4, 1)
    assert packed.pack(x).flatten().tolist() == [0, 1, 8, 9, 10]
    assert packed.unpack(packed.pack(x)).flatten().tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 8, 9, 10, 0]
    assert packed.pattern.query_ids.tolist() == [[0, 0, 2, 2, 2]]


@needs_kernels
@pytest.mark.parametrize(
    "make",
    [transformer, lambda: transformer(norm="pre"), lambda: transformer(attention=ENTMAX), t5],
    ids=["post", "pre", "entmax", "t5"],
)
def test_sources_are_packed_and_the_same(make: Callable[[], Any], packed: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        memory = model.encode(source(), LENGTHS)
        caches = model.start(memory).memory
    assert packed == [(4, 70, 24)] * 2
    whole = model.encode(source(), LENGTHS)
    assert len(packed) == 2  # gradients are wanted: nothing is packed
    there = torch.arange(70) < LENGTHS[:, None]
    assert memory.states[there].allclose(whole.states[there], atol=1e-5)
    for cache, layer in zip(caches, model.decoder, strict=True):
        for found, expected in zip(
            cache.contents[:2], layer.cross_attention.keys_and_values(whole.states), strict=True
        ):
            assert found.shape == expected.shape
            assert found.transpose(1, 2)[there].allclose(expected.transpose(1, 2)[there], atol=1e-5)


@needs_kernels
def test_only_where_nobody_sees_it() -> None:
    model, full, some, none = nn.Sequential(nn.Linear(3, 3)).eval(), *map(torch.tensor, ([7, 7], [7, 5], [0, 0]))
    assert packing(model, some, 7) is None  # gradients
    with torch.no_grad():
        assert packing(model, some, 7) is not None
        assert packing(model, full, 7) is None
        assert packing(model, none, 7) is None
        assert packing(model.train(), some, 7) is None
        handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
        assert packing(model.eval(), some, 7) is None
        handle.remove()
        assert packing(model, some, 7) is not None
        model[0].register_forward_hook(lambda *_: None)
        assert packing(model, some, 7) is None


@needs_kernels
@pytest.mark.parametrize("make", [lambda: transformer(norm="pre"), t5], ids=["transformer", "t5"])
def test_a_hook_anywhere_sees_sentences(make: Callable[[], Any]) -> None:
    model, seen = make(), []
    model.encoder_norm.register_forward_hook(lambda _, given, found: seen.append(found.shape))
    with torch.no_grad():
        model.encode(source(), LENGTHS)
    assert seen == [(4, 70, 24)]


@needs_kernels
def test_the_default_device_may_be_another() -> None:
    model = transformer()
    with torch.no_grad():
        expected = model.encode(source(), LENGTHS).states
        tokens = source()
        with torch.device("meta"):
            assert model.encode(tokens, LENGTHS).states.equal(expected)


def by_name() -> Transformer:
    """A layer's backend may take time for what a pattern hides."""
    model = transformer()
    model.encoder[1].self_attention.backend = "chunked"
    return model


def in_windows() -> Transformer:
    """A pattern may ask where a token stands."""
    window = {"kind": "sliding-window", "left": 3, "right": 3}
    return transformer(attention=AttentionConfig.from_plain({"pattern": window}))


@needs_kernels
@pytest.mark.parametrize("make", [by_name, in_windows])
def test_other_attention_gets_the_sentences(make: Callable[[], Any], packed: list[tuple[int, ...]]) -> None:
    with torch.no_grad():
        model, usual = make(), transformer()
        states = model.encode(source(), LENGTHS).states
        assert not packed
        usual.encode(source(), LENGTHS)
        assert packed == [(4, 70, 24)]
    there = torch.arange(70) < LENGTHS[:, None]
    assert states[there].allclose(model.encode(source(), LENGTHS).states[there], atol=1e-5)
