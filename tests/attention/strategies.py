"""Random pattern expressions, for property tests."""

import torch
from hypothesis import strategies as st
from torch import Tensor

import regard as rg
from regard.attention.patterns.pattern import Pattern

COVERED = 100  # positions that a drawn layout of blocks covers


def tensors(shape: tuple[int, ...], least: int, most: int) -> st.SearchStrategy[Tensor]:
    """Integers, from a drawn seed: shrinks fast, and repeats itself."""

    def make(seed: int) -> Tensor:
        return torch.randint(least, most + 1, shape, generator=torch.Generator().manual_seed(seed))

    return st.integers(0, 2**20).map(make)


@st.composite
def layouts(draw: st.DrawFn, heads: int) -> rg.BlockSparse:
    size = draw(st.sampled_from([1, 2, 3, 5, 17]))
    count = -(-COVERED // size)
    shape = draw(st.sampled_from([(count, count), (1, count, count), (heads, count, count)]))
    return rg.BlockSparse(draw(tensors(shape, 0, 2)) > draw(st.integers(0, 1)), size)


@st.composite
def masks(draw: st.DrawFn, sizes: tuple[int, int, int, int]) -> rg.Mask:
    shape = tuple(draw(st.sampled_from([1, size])) for size in sizes)
    mask = draw(tensors(shape, 0, 9)) > draw(st.sampled_from([0, 5, 8]))
    if draw(st.booleans()):  # runs of columns, so that whole cells agree
        mask[..., mask.shape[-1] // 2 :] = draw(st.booleans())
    return rg.Mask(mask)


@st.composite
def documents(draw: st.DrawFn, batch: int, queries: int, keys: int) -> rg.Documents:
    most = draw(st.integers(0, 3))
    query_ids = draw(tensors((draw(st.sampled_from([1, batch])), queries), 0, most))
    key_ids = draw(tensors((query_ids.shape[0], keys), 0, most))
    if draw(st.booleans()):
        query_ids, key_ids = query_ids.sort(-1).values, key_ids.sort(-1).values
    return rg.Documents(query_ids, key_ids)


@st.composite
def arounds(draw: st.DrawFn, batch: int, heads: int, queries: int, keys: int) -> rg.Around:
    sizes = (batch, heads, queries)[draw(st.integers(0, 2)) :]
    shape = tuple(draw(st.sampled_from([1, size])) for size in sizes)
    center = draw(tensors(shape, -8, 4 * keys)).double() / 4
    special = draw(st.sampled_from([0.0, 0.0, float("nan"), float("inf"), -float("inf"), 1e30]))
    if special != 0.0:
        center.view(-1)[0] = special
    if draw(st.booleans()):
        center = center.float()
    return rg.Around(center, left=draw(st.sampled_from([0, 1, 2.5, 7])), right=draw(st.sampled_from([0, 0.25, 3])))


def leaves(batch: int, heads: int, queries: int, keys: int) -> st.SearchStrategy[Pattern]:
    """Every kind of pattern."""
    bound = st.one_of(st.none(), st.integers(0, 20))
    return st.one_of(
        st.just(rg.Full()),
        st.just(rg.Causal()),
        st.builds(rg.SlidingWindow, left=bound, right=bound),
        st.builds(rg.Dilated, st.integers(1, 4), left=bound, right=bound),
        st.builds(rg.Strided, st.integers(1, 5)),
        st.builds(rg.GlobalTokens, st.lists(st.integers(0, 60), max_size=4)),
        st.builds(
            lambda start, count: rg.GlobalTokens(range(start, start + count)), st.integers(0, 30), st.integers(0, 30)
        ),
        layouts(heads),
        st.builds(
            rg.RandomBlocks,
            seed=st.integers(0, 99),
            length=st.sampled_from([30, 64, 90]),
            count=st.integers(0, 6),
            block_size=st.sampled_from([1, 3, 5]),
        ),
        st.builds(rg.PrefixLM, tensors((batch,), -1, keys + 3)),
        st.builds(rg.KeyLengths, tensors((batch,), -1, keys + 3)),
        st.builds(rg.PrefixLM, tensors((1,), 0, keys)),
        documents(batch, queries, keys),
        masks((batch, heads, queries, keys)),
        arounds(batch, heads, queries, keys),
    )


def patterns(batch: int, heads: int, queries: int, keys: int, depth: int = 4) -> st.SearchStrategy[Pattern]:
    """Expressions with & | ~, nested to a depth."""
    leaf = leaves(batch, heads, queries, keys)
    if depth == 0:
        return leaf
    part = patterns(batch, heads, queries, keys, depth - 1)
    return st.one_of(
        leaf,
        part.map(lambda p: ~p),
        st.tuples(part, part).map(lambda p: p[0] & p[1]),
        st.tuples(part, part).map(lambda p: p[0] | p[1]),
    )
