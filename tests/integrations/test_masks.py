"""The library's masks as patterns: by what they are made of, and equal to what it would have made."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.attention.patterns.pattern import Causal, Full, SlidingWindow
from regard.errors import UnsupportedError
from regard.integrations import masks
from regard.integrations.lazy_mask import LazyMask
from regard.integrations.masks import make_mask

pytest.importorskip("transformers")
from transformers import masking_utils as library

RULES = {
    "causal": library.causal_mask_function,
    "bidirectional": library.bidirectional_mask_function,
    "window": library.sliding_window_causal_mask_function(3),
    "window of one": library.sliding_window_causal_mask_function(1),
    "window on both sides": library.sliding_window_bidirectional_mask_function(2),
    "chunks": library.chunked_causal_mask_function(4, torch.tensor([0, 2, 5])),
}
DENSE = {
    "either": library.or_masks(library.causal_mask_function, library.sliding_window_overlay(3)),
    "blocks": library.or_masks(library.causal_mask_function, library.blockwise_overlay(torch.tensor([[0] * 20] * 3))),
    "one's own": lambda b, h, q, k: (q + k) % 3 != 1,
    "joined with one's own": library.and_masks(library.causal_mask_function, lambda b, h, q, k: k % 3 != q % 3),
    "of partial": library.and_masks(library.sliding_window_overlay(3), lambda *indices: indices[3] != 2),
}


def dense(**asked):
    return library.sdpa_mask(**asked, allow_is_causal_skip=False)


@st.composite
def requests(draw):
    """Sizes and positions, as caches give them, and a mask of padding at either side, or with holes."""
    queries, before = draw(st.integers(1, 7)), draw(st.integers(0, 6))
    dropped = draw(st.integers(0, before))  # keys that a rolling cache has not kept
    ahead = draw(st.sampled_from([0, 0, 3]))  # places that a static cache has not filled
    asked = {
        "batch_size": 3,
        "q_length": queries,
        "kv_length": before - dropped + queries + ahead,
        "q_offset": before,
        "kv_offset": dropped,
    }
    side = draw(st.sampled_from(["none", "all", "right", "left", "holes"]))
    if side != "none":
        length = before + queries
        steps = torch.arange(length)
        lengths = torch.tensor([draw(st.integers(0, length)) for _ in range(3)])[:, None]
        real = {
            "all": steps < torch.full((3, 1), length),
            "right": steps < lengths,
            "left": steps >= lengths,
            "holes": (steps * 7 + lengths) % 5 != 0,
        }[side]
        asked["attention_mask"] = real
    return asked


@pytest.mark.parametrize("name", list(RULES))
@given(asked=requests())
def test_patterns_are_the_librarys_masks(name, asked):
    asked["mask_function"] = RULES[name]
    found = make_mask(**asked, allow_is_causal_skip=False)
    assert isinstance(found, LazyMask)
    assert torch.equal(found.dense(), dense(**asked))


@pytest.mark.parametrize("name", list(DENSE))
@given(asked=requests())
def test_what_is_unknown_stays_dense(name, asked):
    asked["mask_function"] = DENSE[name]
    found = make_mask(**asked)
    assert type(found) is torch.Tensor
    assert torch.equal(found, dense(**asked))


@pytest.mark.parametrize("rule", ["causal", "window"])
def test_packed_documents(rule):
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 1, 2, 3, 4]])
    ids = library.find_packed_sequence_indices(positions)
    packed = library.packed_sequence_compatibility_function(RULES[rule], positions, ids)
    asked = {"batch_size": 3, "q_length": 8, "kv_length": 8, "mask_function": packed}
    found = make_mask(**asked)
    assert isinstance(found, LazyMask)
    assert "Documents" in str(found.pattern)
    assert torch.equal(found.dense(), dense(**asked))


@pytest.mark.parametrize(
    ("positions", "ids"),
    [
        ([0, 1, 2, 0, 1, 2], [0, 0, 0, 0, 0, 0]),  # one document, in which the positions start again
        ([0, 2, 4, 0, 2, 4], [0, 0, 0, 1, 1, 1]),  # positions that rise by two
    ],
)
def test_positions_that_do_not_tell_the_documents_are_dense(positions, ids):
    rule = library.packed_sequence_compatibility_function(
        RULES["window"], torch.tensor([positions]), torch.tensor([ids])
    )
    asked = {"batch_size": 1, "q_length": 6, "kv_length": 6, "mask_function": rule}
    found = make_mask(**asked)
    assert type(found) is torch.Tensor
    assert torch.equal(found, dense(**asked))


def test_a_known_rule_that_means_something_else_is_dense(monkeypatch):
    """As it would be if the library changed what a function of its own says."""

    def strictly_before(batch_idx, head_idx, q_idx, kv_idx):
        return kv_idx < q_idx

    monkeypatch.setattr(masks, "_kinds", lambda: {strictly_before.__code__: "causal"})
    asked = {"batch_size": 1, "q_length": 6, "kv_length": 6, "mask_function": strictly_before}
    found = make_mask(**asked)
    assert type(found) is torch.Tensor
    assert torch.equal(found, dense(**asked))


def test_nothing_hidden_needs_no_mask():
    everything = {"batch_size": 2, "mask_function": RULES["bidirectional"], "allow_is_bidirectional_skip": True}
    assert make_mask(q_length=5, kv_length=5, **everything) is None
    assert make_mask(q_length=5, kv_length=5, attention_mask=torch.ones(2, 5, dtype=torch.bool), **everything) is None
    assert make_mask(batch_size=2, q_length=1, kv_length=5, q_offset=4) is None
    kept = make_mask(batch_size=2, q_length=5, kv_length=5, mask_function=RULES["bidirectional"])
    assert isinstance(kept, LazyMask)
    assert kept.pattern == Full()


def test_equal_patterns_are_one_object():
    first, second = (make_mask(batch_size=2, q_length=5, kv_length=5, mask_function=RULES["window"]) for _ in range(2))
    assert first.pattern is second.pattern
    assert first.pattern == SlidingWindow(left=2) & Causal()


def made():
    return LazyMask(Causal(), (2, 1, 3, 5), 2, 0, torch.device("cpu"))


def test_a_lazy_mask_stays_one_where_it_is_only_handed_on():
    mask = made()
    for same in (mask.to("cpu"), mask.detach(), mask[:, :, :, :5], mask[:, :, -3:], mask[..., :99]):
        assert isinstance(same, LazyMask)
        assert (same.pattern, same.query_start, same.shape) == (Causal(), 2, (2, 1, 3, 5))
    assert repr(mask) == "LazyMask(Causal(), (2, 1, 3, 5))"
    assert (mask.dim(), mask.dtype, mask.ndim) == (4, torch.bool, 4)


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x[:, :, :, :4],
        lambda x: x[:, :, 1:],
        lambda x: x[1],
        lambda x: x[..., None],
        lambda x: ~x,
        lambda x: x & x.flip(-1),
        lambda x: x.expand(2, 7, 3, 5),
        lambda x: x.repeat_interleave(2, 0),
        lambda x: torch.where(x, 0.0, -torch.inf),
        lambda x: torch.cat([x, x], -1),
        lambda x: x.to(torch.float32),
        lambda x: x.all(-1),
        lambda x: x.clone(),
        lambda x: x.contiguous().float(),
        lambda x: (1.0 - x.double()) * -3,
    ],
)
def test_whatever_else_is_done_to_a_lazy_mask_is_done_to_its_numbers(use):
    found = use(made())
    assert type(found) is torch.Tensor
    assert torch.equal(found, use(made().dense()))


def test_a_lazy_mask_changed_in_place():
    """Nothing is written into what has no numbers; it may say what is written elsewhere."""
    with pytest.raises(UnsupportedError, match=r"LazyMask\(Causal\(\), \(2, 1, 3, 5\)\)"):
        made()[...].fill_(True)
    found = torch.zeros(2, 1, 3, 5).masked_fill_(made(), 1.0)
    assert torch.equal(found.bool(), made().dense())
