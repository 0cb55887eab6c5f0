"""Conversion of the mask functions of `transformers` to patterns.

The library describes a mask by a function of (sequence, head, query, key), composed of a few functions of its own. Each
of these is recognized by its code, its parameters (window size, documents) are read from its closure, and the resulting
pattern is compared with the function on some rows. If a part is unknown or a row differs, the library's dense mask is
used.
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
from regard.attention.value import has_tensors, slice_value
from regard.integrations.lazy_mask import LazyMask

Rule = Callable[..., Any]  # the library's function of indices


class Extent(NamedTuple):
    """Sizes, positions and device of a mask."""

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
    """Make the mask of a model, in the library's interface.

    Args:
        batch_size: B.
        q_length: L.
        kv_length: S.
        q_offset: position of the first query.
        kv_offset: position of the first key.
        mask_function: function of sequence, head, query and key indices, True = may attend; causal by default.
        attention_mask: booleans (B, keys from position 0 on), False for padding.
        allow_is_causal_skip: whether None may represent a causal mask.
        allow_is_bidirectional_skip: whether None may represent a mask that hides nothing.
        device: device of the mask.
        rest: further arguments of the library's own function, for a dense mask.

    Returns:
        A `LazyMask`, or booleans (B, 1, L, S), or None if everything is visible.
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
            return LazyMask(_shared(pattern), shape, extent.query_start, extent.key_start, extent.device)
        allow_is_causal_skip = False  # None would represent a plain causal mask
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
    """Pattern of a rule, None if it is unknown; `documents` are the ids of a rule in the same conjunction."""
    held = _closure(rule)
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
            ids = [_closure(r)["packed_sequence_mask"] for r in rules if _kind(r) == "documents"]
            parts = [_pattern(r, extent, ids[0] if ids else None) for r in rules]
            return None if any(part is None for part in parts) else _join(parts)
        case _:
            return None


@lru_cache(maxsize=1)
def _kinds() -> dict[CodeType, str]:
    """Known mask functions of the library by code object, which closures over different data share."""
    from transformers import masking_utils as library

    some = torch.zeros(1, 1, dtype=torch.int64)
    known: dict[str, tuple[Callable[[], Rule], set[str]]] = {  # an example, and its required closure variables
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
    rules = {kind: (example(), names) for kind, (example, names) in known.items()}
    return {rule.__code__: kind for kind, (rule, names) in rules.items() if names <= set(_closure(rule))}


def _kind(rule: Rule) -> str | None:
    return _kinds().get(rule.__code__) if hasattr(rule, "__code__") else None


def _closure(rule: Rule) -> dict[str, Any]:
    """Closure variables of a function, by name."""
    names = rule.__code__.co_freevars if hasattr(rule, "__code__") else ()
    return dict(zip(names, (cell.cell_contents for cell in rule.__closure__ or ()), strict=True)) if names else {}


def _chunks(size: int, left_padding: Tensor, extent: Extent) -> Pattern:
    """Chunked attention: chunks of `size` tokens, counted from the first token that is not padding."""
    queries, keys = positions(extent.queries, extent.keys, extent.query_start, extent.key_start, extent.device)
    start = left_padding.to(extent.device)[:, None]
    return Documents((queries - start) // size, (keys - start) // size)


def _documents(ids: Tensor, extent: Extent) -> Pattern | None:
    """Packed documents from ids by position; None if positions exceed the ids."""
    rows = slice(extent.query_start, extent.query_start + extent.queries)
    columns = slice(extent.key_start, extent.key_start + extent.keys)
    if min(rows.start, columns.start) < 0 or max(rows.stop, columns.stop) > ids.shape[1]:
        return None
    return Documents(ids[:, rows], ids[:, columns])


def _within_documents(rule: Rule, position_ids: Tensor, extent: Extent, documents: Tensor | None) -> Pattern | None:
    """Pattern of a rule applied to positions that restart in each document.

    A rule that depends on distances alone is unchanged, provided that it is combined with the documents that the
    positions imply and that positions increase by one within each document.
    """
    pattern = _pattern(rule, extent, None)
    if documents is None or pattern is None or has_tensors(pattern):
        return None
    steps = torch.diff(position_ids, prepend=position_ids[:, :1] - 1, dim=-1)
    return pattern if torch.equal((steps != 1).cumsum(-1), documents) else None


def _padding(attention_mask: Tensor, extent: Extent) -> Pattern:
    """Pattern that hides padding: key lengths if it is at the end, otherwise documents."""
    real = attention_mask[:, extent.key_start : extent.key_start + extent.keys].bool()
    real = torch.nn.functional.pad(real, (0, extent.keys - real.shape[1]))  # keys beyond the mask are not filled yet
    if bool(real.all()):
        return Full()
    lengths = real.sum(-1)
    if torch.equal(real, torch.arange(extent.keys, device=real.device) < lengths[:, None]):
        return KeyLengths(lengths.expand(extent.batch) + extent.key_start)
    return Documents(real.new_ones(1, extent.queries, dtype=torch.int64), real.long())


def _agree(rule: Rule, pattern: Pattern, extent: Extent) -> bool:
    """Whether rule and pattern agree on three rows.

    If there are no more queries than keys, the first and the last row contain every distance between query and key, so
    they suffice for rules that depend on distances alone.
    """
    query_BL, key_S = positions(extent.queries, extent.keys, extent.query_start, extent.key_start, extent.device)
    sequences = torch.arange(extent.batch, device=extent.device)[:, None, None, None]
    for row in {0, extent.queries // 2, extent.queries - 1}:
        rows = slice(row, row + 1)
        theirs = rule(sequences, sequences[:1], query_BL[:, None, rows, None], key_S)
        ours = slice_value(pattern, rows, slice(0, extent.keys)).visible(query_BL[:, rows], key_S)
        if not bool((theirs == ours).all()):
            return False
    return True


def _join(patterns: list[Any]) -> Pattern:
    """Conjunction of patterns."""
    restricting = [p for p in patterns if not isinstance(p, Full)]
    return reduce(and_, restricting) if restricting else Full()


def _shared(pattern: Pattern) -> Pattern:
    """One object for equal patterns, because the call cache of `attend` compares identities."""
    return pattern if has_tensors(pattern) else _interned(pattern)


@lru_cache(maxsize=256)
def _interned(pattern: Pattern) -> Pattern:
    return pattern
