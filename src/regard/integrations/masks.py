"""The masks that `transformers` asks for, as patterns where they can be told by what they are made of.

The library describes a mask by a function of (sequence, head, query, key), joined from a few functions of its own. Each
of those is recognized by its code; what it holds (a window's size, documents) is read from it; and the pattern that
comes out is compared with the function on some rows. A mask of which any part is unknown, or where a row differs, is a
dense tensor, which the library makes.
"""

from collections.abc import Callable
from functools import lru_cache, reduce
from operator import and_
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.attention.patterns.pattern import Causal, Full, Pattern, SlidingWindow, positions
from regard.attention.patterns.sequence_pattern import Documents, KeyLengths
from regard.attention.value import holds_tensors, restrict
from regard.integrations.lazy_mask import LazyMask

Rule = Callable[..., Any]  # the library's function of indices


class Extent(NamedTuple):
    """What a mask is for."""

    batch: int
    queries: int
    keys: int
    query_start: int
    key_start: int
    device: torch.device


def make_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int | Tensor = 0,
    mask_function: Rule | None = None,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    device: torch.device | str = "cpu",
    **rest: Any,
) -> Tensor | None:
    """The mask of a model's layers, in the library's interface for it.

    Args:
        batch_size: B.
        q_length: L.
        kv_length: S.
        q_offset: position of the first query.
        kv_offset: position of the first key.
        mask_function: whether a key may be seen, of indices of sequence, head, query and key; causal by default.
        attention_mask: booleans (B, keys from position 0 on), False for padding.
        allow_is_causal_skip: whether None may stand for a causal mask.
        allow_is_bidirectional_skip: whether None may stand for a mask that hides nothing.
        device: of the mask.
        rest: for the library's own function, where the mask is dense.

    Returns:
        A `LazyMask`, or booleans (B, 1, L, S), or None where everything is visible.
    """
    from transformers import masking_utils
    from transformers.utils.import_utils import is_tracing

    rule = masking_utils.causal_mask_function if mask_function is None else mask_function
    if not is_tracing(attention_mask):
        extent = Extent(batch_size, q_length, kv_length, int(q_offset), int(kv_offset), torch.device(device))
        pattern = _pattern(rule, extent, None)
        if pattern is not None and _agree(rule, pattern, extent):
            if attention_mask is not None:
                pattern = _join([pattern, _padding(attention_mask, extent)])
            last_sees_all = q_length == 1 and int(q_offset) >= int(kv_offset) + kv_length - 1
            if pattern == Causal() and last_sees_all and allow_is_causal_skip:
                return None
            if pattern == Full() and allow_is_bidirectional_skip:
                return None
            shape = (batch_size, 1, q_length, kv_length)
            return LazyMask(_kept(pattern), shape, extent.query_start, extent.key_start, extent.device)
        allow_is_causal_skip = False  # which would stand for a plain causal mask
    dense: Tensor | None = masking_utils.sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=rule,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        allow_is_bidirectional_skip=allow_is_bidirectional_skip,
        device=device,
        **rest,
    )
    return dense


def _pattern(rule: Rule, extent: Extent, documents: Tensor | None) -> Pattern | None:
    """What a rule means; None if it is none that we know. `documents` are those of a rule that it is joined with."""
    held = _held(rule)
    match _kind(rule):
        case "causal":
            return Causal()
        case "bidirectional":
            return Full()
        case "window" if held["sliding_window"] >= 1:
            return SlidingWindow(left=held["sliding_window"] - 1)
        case "both_sides" if held["sliding_window"] >= 0:
            return SlidingWindow(left=held["sliding_window"], right=held["sliding_window"])
        case "chunks":
            return _chunks(held["chunk_size"], held["left_padding"], extent)
        case "documents":
            return _documents(held["packed_sequence_mask"], extent)
        case "within_documents":
            return _within_documents(held["mask_function"], held["position_ids"], extent, documents)
        case "and":
            rules = held["mask_functions"]
            ids = [_held(r)["packed_sequence_mask"] for r in rules if _kind(r) == "documents"]
            parts = [_pattern(r, extent, ids[0] if ids else None) for r in rules]
            return None if any(part is None for part in parts) else _join(parts)
        case _:
            return None


@lru_cache(maxsize=1)
def _kinds() -> dict[CodeType, str]:
    """The library's functions that we know, by their code: those made of other data share it."""
    from transformers import masking_utils as library

    some = torch.zeros(1, 1, dtype=torch.int64)
    made: dict[str, tuple[Callable[[], Rule], set[str]]] = {  # an example, and the names of what it must hold
        "causal": (lambda: library.causal_mask_function, set()),
        "bidirectional": (lambda: library.bidirectional_mask_function, set()),
        "window": (lambda: library.sliding_window_overlay(1), {"sliding_window"}),
        "both_sides": (lambda: library.sliding_window_bidirectional_overlay(1), {"sliding_window"}),
        "chunks": (lambda: library.chunked_overlay(1, some[0]), {"chunk_size", "left_padding"}),
        "documents": (lambda: library.packed_sequence_mask_function(some), {"packed_sequence_mask"}),
        "within_documents": (
            lambda: library.remap_positions_for_packed_sequence(library.causal_mask_function, some),
            {"mask_function", "position_ids"},
        ),
        "and": (lambda: library.and_masks(library.causal_mask_function), {"mask_functions"}),
    }
    rules = {kind: (example(), names) for kind, (example, names) in made.items()}
    return {rule.__code__: kind for kind, (rule, names) in rules.items() if names <= set(_held(rule))}


def _kind(rule: Rule) -> str | None:
    return _kinds().get(rule.__code__) if hasattr(rule, "__code__") else None


def _held(rule: Rule) -> dict[str, Any]:
    """What a function was made with, by name."""
    names = rule.__code__.co_freevars if hasattr(rule, "__code__") else ()
    return dict(zip(names, (cell.cell_contents for cell in rule.__closure__ or ()), strict=True)) if names else {}


def _chunks(size: int, left_padding: Tensor, extent: Extent) -> Pattern:
    """Each sequence cut into pieces, counted from its first real token."""
    queries, keys = positions(extent.queries, extent.keys, extent.query_start, extent.key_start, extent.device)
    start = left_padding.to(extent.device)[:, None]
    return Documents((queries - start) // size, (keys - start) // size)


def _documents(ids: Tensor, extent: Extent) -> Pattern | None:
    """Several sequences in one; the ids are by position."""
    rows = slice(extent.query_start, extent.query_start + extent.queries)
    columns = slice(extent.key_start, extent.key_start + extent.keys)
    if min(rows.start, columns.start) < 0 or max(rows.stop, columns.stop) > ids.shape[1]:
        return None
    return Documents(ids[:, rows], ids[:, columns])


def _within_documents(rule: Rule, position_ids: Tensor, extent: Extent, documents: Tensor | None) -> Pattern | None:
    """A rule of positions that start again with each document: of distances alone, it is the rule itself.

    That holds where it is joined with the documents that the positions tell, in each of which they rise by one.
    """
    pattern = _pattern(rule, extent, None)
    if documents is None or pattern is None or holds_tensors(pattern):
        return None
    steps = torch.diff(position_ids, prepend=position_ids[:, :1] - 1, dim=-1)
    return pattern if torch.equal((steps != 1).cumsum(-1), documents) else None


def _padding(attention_mask: Tensor, extent: Extent) -> Pattern:
    """Which keys are real: lengths where the padding is at the end, else those of one document."""
    real = attention_mask[:, extent.key_start : extent.key_start + extent.keys].bool()
    real = torch.nn.functional.pad(real, (0, extent.keys - real.shape[1]))  # what the mask lacks is not there yet
    if bool(real.all()):
        return Full()
    lengths = real.sum(-1)
    if torch.equal(real, torch.arange(extent.keys, device=real.device) < lengths[:, None]):
        return KeyLengths(lengths.expand(extent.batch) + extent.key_start)
    return Documents(real.new_ones(1, extent.queries, dtype=torch.int64), real.long())


def _agree(rule: Rule, pattern: Pattern, extent: Extent) -> bool:
    """Whether rule and pattern say the same of some rows.

    The first and the last row have every distance of query and key, if there are no more queries than keys; so they
    decide for all rules of distances.
    """
    query_BL, key_S = positions(extent.queries, extent.keys, extent.query_start, extent.key_start, extent.device)
    sequences = torch.arange(extent.batch, device=extent.device)[:, None, None, None]
    for row in {0, extent.queries // 2, extent.queries - 1}:
        rows = slice(row, row + 1)
        theirs = rule(sequences, sequences[:1], query_BL[:, None, rows, None], key_S)
        ours = restrict(pattern, rows, slice(0, extent.keys)).visible(query_BL[:, rows], key_S)
        if not bool((theirs == ours).all()):
            return False
    return True


def _join(patterns: list[Any]) -> Pattern:
    """All of them, by &."""
    some = [p for p in patterns if not isinstance(p, Full)]
    return reduce(and_, some) if some else Full()


def _kept(pattern: Pattern) -> Pattern:
    """The same object for equal patterns, by which `attend` knows a call again."""
    return pattern if holds_tensors(pattern) else _interned(pattern)


@lru_cache(maxsize=256)
def _interned(pattern: Pattern) -> Pattern:
    return pattern
