"""Boolean mask that is stored as a pattern and computed when its values are read."""

from typing import Any, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from regard.attention.patterns.pattern import Pattern, positions
from regard.errors import UnsupportedError

ALIASES = (torch.ops.aten.alias.default, torch.ops.aten.detach.default)
SLICE = torch.ops.aten.slice.Tensor


@final
class LazyMask(Tensor):
    """Boolean mask (B, 1, L, S), True = may attend, stored as a pattern with positions.

    It stays lazy when it is passed on, detached, or sliced without effect; any other operation is applied to the dense
    tensor. It can therefore be used wherever a mask is read.

    Args:
        pattern: which keys a query may attend to.
        shape: (B, 1, L, S).
        query_start: position of the first query.
        key_start: position of the first key.
        device: device of the dense tensor.
    """

    pattern: Pattern
    query_start: int
    key_start: int

    @staticmethod
    def __new__(
        cls: type["LazyMask"],
        pattern: Pattern,
        shape: tuple[int, int, int, int],
        query_start: int,
        key_start: int,
        device: torch.device,
    ) -> "LazyMask":
        mask: LazyMask = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bool, device=device)
        mask.pattern, mask.query_start, mask.key_start = pattern, query_start, key_start
        return mask

    def dense(self) -> Tensor:
        """Dense boolean tensor, (B, 1, L, S)."""
        query_BL, key_S = positions(self.shape[2], self.shape[3], self.query_start, self.key_start, self.device)
        return self.pattern.visible(query_BL, key_S).expand(self.shape)

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"LazyMask({self.pattern}, {tuple(self.shape)})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in ALIASES or (func is SLICE and _takes_all(*args)):
            mask = args[0]
            return LazyMask(mask.pattern, tuple(mask.shape), mask.query_start, mask.key_start, mask.device)
        kinds = zip(func._schema.arguments, args, strict=False)
        if any(isinstance(x, LazyMask) and kind.alias_info and kind.alias_info.is_write for kind, x in kinds):
            raise UnsupportedError(
                f"{func} would write into {args[0]}, which is not stored as a tensor; use mask.clone() instead"
            )
        args, kwargs = tree_map_only(LazyMask, LazyMask.dense, (args, kwargs or {}))
        return func(*args, **kwargs)


def _takes_all(mask: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> bool:
    """Whether a slice is the whole tensor."""
    size = mask.shape[dim]
    return range(size)[slice(start, end, step)] == range(size)
