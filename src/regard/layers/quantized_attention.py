"""Attention of layers with int8 projections: the same rounding whatever the batch is padded to.

On processors with int8 tiles, `native` computes short and long calls by different products, which differ in the last
bits. In float32 these stay there; between maps in int8 they can change a code, and so a token. A sequence that is short
by itself may be padded to a long one in a batch, so short calls are padded too.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional

from regard.attention.backends.native.mask import conjuncts
from regard.attention.bias import ALiBi, RelativeBias
from regard.attention.patterns.pattern import Causal, Full, Pattern, SlidingWindow
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.layers.linear import has_int8_split

SHORT = 32  # queries and keys from which on `native` uses int8 tiles: `uses_int8_split` in kernels/attention/


def padded_call(
    q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor, Pattern] | None:
    """Self-attention of a short sequence from its start, padded to SHORT positions.

    Args:
        q, k, v: as of `attend`.
        options: of `attend`.

    Returns:
        Query, key and value of SHORT positions, and a pattern that hides the padding from the others; None for other
        calls, which stay as they are.
    """
    length, pattern = q.shape[2], options["pattern"]
    if not (1 < length < SHORT and k.shape[2] == length and q.is_cpu and has_int8_split()):
        return None
    plain = options["query_start"] is None and options["summary"] is None
    if not plain or not isinstance(options["bias"], ALiBi | RelativeBias | None):
        return None
    parts = tuple(conjuncts(pattern))
    if not all(isinstance(part, Full | Causal | SlidingWindow | KeyLengths) for part in parts):
        return None
    if not any(isinstance(part, Causal | KeyLengths) for part in parts):
        pattern = pattern & KeyLengths(q.new_full((len(q),), length).long())
    query, key, value = (functional.pad(x, (0, 0, 0, SHORT - length)) for x in (q, k, v))
    return query, key, value, pattern
