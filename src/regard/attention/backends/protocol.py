"""What every backend can do."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from regard.attention.engine.call import Call
from regard.attention.engine.tracing import forward_mode, transforms, vmapped
from regard.attention.summary import Seen


class Cost(NamedTuple):
    """What a call will take, predicted before it runs."""

    pairs: int  # (query, key) pairs of one head and sequence that are computed, visible or not
    working_bytes: int  # memory beyond inputs and outputs, forward, at its peak


class Backend(Protocol):
    """A way to compute attention. It runs a call exactly, or says every reason why it does not."""

    name: str

    def refusals(self, call: Call) -> list[str]:
        """Every reason why this backend does not compute the call; empty if it does."""
        ...

    def cost(self, call: Call) -> Cost:
        """What the call will take."""
        ...

    def run(self, call: Call) -> tuple[Tensor, Seen | None]:
        """The output (B, H, L, V) in the dtype of the query, and the summaries if any are asked for."""
        ...


def transform_refusals() -> list[str]:
    """Why a backend that goes by tiles does not run under the transforms of `torch.func` that are active."""
    if vmapped():
        return ["torch.func: has no torch.vmap, which hides the pattern's data; the backend 'reference' has"]
    if torch.compiler.is_compiling() and (transforms() or forward_mode()):
        return ["torch.func: is one operation of a compiled graph, without its transforms; 'reference' is plain ones"]
    return []
