"""Sources without their padding are what they are with it."""

import pytest
import torch
from torch import nn

from regard import kernels
from regard.layers.attention_config import AttentionConfig
from regard.layers.packing import Packing, packing
from regard.models.seq2seq import Seq2Seq, Vocabulary
from regard.models.t5 import T5, T5Config
from regard.models.transformer import Transformer, TransformerConfig

WORDS = Vocabulary(size=50)
ENTMAX = AttentionConfig.from_plain({"normalizer": {"kind": "entmax", "alpha": 1.5}})
LENGTHS = torch.tensor([9, 4, 1, 70])
needs_kernels = pytest.mark.skipif(
    kernels.missing() is not None or kernels.isa() == "baseline", reason="sources are packed where there are kernels"
)


def transformer(**changes: object) -> Transformer:
    sizes = {"embed_dim": 24, "num_heads": 3, "hidden_dim": 37, "encoder_layers": 2, "decoder_layers": 2}
    return Transformer(TransformerConfig(vocabulary=WORDS, **{**sizes, **changes})).eval()


def t5() -> T5:
    sizes = {"embed_dim": 24, "num_heads": 3, "head_dim": 8, "hidden_dim": 37, "num_buckets": 8, "max_distance": 20}
    return T5(T5Config(vocabulary=WORDS, encoder_layers=2, decoder_layers=2, **sizes)).eval()


def source() -> torch.Tensor:
    drawn = torch.randint(3, WORDS.size, (len(LENGTHS), 70), generator=torch.Generator().manual_seed(1))
    return drawn.masked_fill(torch.arange(70) >= LENGTHS[:, None], WORDS.pad)


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
def test_sources_are_packed_and_the_same(make, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model: Seq2Seq = make()
    packed, pack = [], Packing.pack
    monkeypatch.setattr(Packing, "pack", lambda self, x: packed.append(x.shape) or pack(self, x))
    with torch.no_grad():
        memory = model.encode(source())
        caches = model.start(memory).memory  # type: ignore[attr-defined]
    assert packed == [(4, 70, 24)] * 2
    whole = model.encode(source())
    assert len(packed) == 2  # gradients are wanted: nothing is packed
    there = torch.arange(70) < LENGTHS[:, None]
    assert memory.states[there].allclose(whole.states[there], atol=1e-5)
    for cache, layer in zip(caches, model.decoder, strict=True):  # type: ignore[arg-type]
        for found, expected in zip(cache.kept[:2], layer.cross_attention.keys_and_values(whole.states), strict=True):
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
def test_a_hook_anywhere_sees_sentences(make) -> None:  # type: ignore[no-untyped-def]
    model, seen = make(), []
    model.encoder_norm.register_forward_hook(lambda _, given, found: seen.append(found.shape))
    with torch.no_grad():
        model.encode(source())
    assert seen == [(4, 70, 24)]


@needs_kernels
def test_a_backend_by_name_gets_the_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packing, "pack", lambda *_: pytest.fail("packed"))
    model = transformer()
    model.encoder[1].self_attention.backend = "chunked"
    with torch.no_grad():
        model.encode(source())


@needs_kernels
def test_the_default_device_may_be_another() -> None:
    model = transformer()
    with torch.no_grad():
        expected = model.encode(source()).states
        tokens = source()
        with torch.device("meta"):
            assert model.encode(tokens).states.equal(expected)


@needs_kernels
def test_attention_that_may_ask_where_a_token_stands_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packing, "pack", lambda *_: pytest.fail("packed"))
    choice = AttentionConfig.from_plain({"pattern": {"kind": "sliding-window", "left": 3, "right": 3}})
    with torch.no_grad():
        transformer(attention=choice).encode(source())
