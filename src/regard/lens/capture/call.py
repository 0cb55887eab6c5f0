"""One call of attention, as a recorder sees it: inputs of the operator, or rows of weights.

Layout: B sequences, H heads, G key heads, L queries, S keys, E and V features of keys and values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class OperatorCall:
    """A call that `attend` can repeat.

    Args:
        kind: how it was seen, as "attend" or "scaled_dot_product_attention".
        output: (B, H, L, V), as the model has it.
        query: (B, H, L, E).
        key: (B, G, S, E).
        value: (B, G, S, V).
        arguments: of `attend`, without dropout, seed, summary and backend.
        dropped: whether dropout changed the output.
        result: the tensor that the model goes on with, of which `output` is a view.
    """

    kind: str
    output: Tensor | None
    query: Tensor
    key: Tensor
    value: Tensor
    arguments: Mapping[str, Any]
    dropped: bool = False
    result: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """B, H, L and S."""
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]

    @property
    def query_start(self) -> Any:
        """Position of the first query: an int, or a tensor (B,)."""
        start = self.arguments.get("query_start")
        return self.key.shape[2] - self.query.shape[2] + self.key_start if start is None else start

    @property
    def key_start(self) -> int:
        """Position of the first key."""
        return int(self.arguments.get("key_start", 0))


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class WeightsCall:
    """A call whose weights can be had for any queries.

    Args:
        kind: how it was seen, as "softmax and matmul" or "flex_attention".
        shape: B, H, L and S.
        rows: from a slice of queries to weights (B, H, rows, S), before dropout.
        output: (B, H, L, V), as the model has it; None where it is not known by head.
        value: (B, G, S, V); None where it is not known.
        dropped: whether dropout changed the output.
        result: the tensor that the model goes on with, of which `output` is a view.
    """

    kind: str
    shape: tuple[int, int, int, int]
    rows: Callable[[slice], Tensor]
    output: Tensor | None = None
    value: Tensor | None = None
    dropped: bool = False
    result: Tensor | None = None

    @property
    def query_start(self) -> int:
        """Position of the first query: the last one stands on the last key."""
        return self.shape[3] - self.shape[2]

    @property
    def key_start(self) -> int:
        """Position of the first key."""
        return 0


AttentionCall = OperatorCall | WeightsCall
NOT_OF_THE_WEIGHTS = ("dropout", "seed", "summary", "backend")  # arguments of `attend`


def of_attend(
    kind: str, output: Tensor | None, query: Tensor, key: Tensor, value: Tensor, arguments: Mapping[str, Any]
) -> OperatorCall:
    """A call from all arguments of `attend`.

    Args:
        kind: how it was seen.
        output: of the model, (B, H, L, V).
        query: (B, H, L, E).
        key: (B, G, S, E).
        value: (B, G, S, V).
        arguments: the others.

    Returns:
        The call, by which the same weights are made again.
    """
    kept = {name: x for name, x in arguments.items() if name not in NOT_OF_THE_WEIGHTS}
    dropped = bool(arguments.get("dropout"))
    return OperatorCall(
        kind=kind, output=output, query=query, key=key, value=value, arguments=kept, dropped=dropped, result=output
    )  # fmt: skip


def of_weights(
    kind: str, output: Tensor | None, weights: Tensor, value: Tensor | None, *, dropped: bool = False
) -> WeightsCall:
    """A call whose weights the model itself has made.

    Args:
        kind: how it was seen.
        output: of the model, (B, H, L, V).
        weights: (B, H, L, S), before dropout.
        value: (B, G, S, V).
        dropped: whether dropout changed the output.

    Returns:
        The call.
    """
    batch, heads, queries, keys = weights.shape
    shape = (batch, heads, queries, keys)
    return WeightsCall(
        kind=kind, shape=shape, rows=lambda part: weights[:, :, part], output=output, value=value, dropped=dropped
    )


def detached(call: AttentionCall) -> AttentionCall:
    """The call with all tensors detached except the model's output."""
    if isinstance(call, OperatorCall):
        return replace(call, query=call.query.detach(), key=call.key.detach(), value=call.value.detach())
    rows = call.rows
    value = None if call.value is None else call.value.detach()
    return replace(call, rows=lambda part: rows(part).detach(), value=value)


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
