"""Interface of the backends."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from regard.attention.engine.call import Call
from regard.attention.engine.tracing import forward_mode, transforms, vmapped
from regard.attention.summary import SummaryResult


class Cost(NamedTuple):
    """Predicted cost of a call."""

    pairs: int  # (query, key) pairs computed for one head and sequence, visible or not
    working_bytes: int  # peak memory of the forward pass beyond inputs and outputs


class Backend(Protocol):
    """Implementation of attention. It computes a call exactly, or lists every reason why it cannot."""

    name: str

    def refusals(self, call: Call) -> list[str]:
        """Every reason why this backend cannot compute the call; empty if it can."""
        ...

    def cost(self, call: Call) -> Cost:
        """Predicted cost of the call."""
        ...

    def run(self, call: Call) -> tuple[Tensor, SummaryResult | None]:
        """Compute the output (B, H, L, V) in the dtype of the query, and the requested summaries."""
        ...


def transform_refusals() -> list[str]:
    """Reasons why a tiled backend cannot run under the active transforms of `torch.func`."""
    if vmapped():
        return ["torch.func: does not support torch.vmap, which hides the pattern's data; the backend 'reference' does"]
    if torch.compiler.is_compiling() and (transforms() or forward_mode()):
        return ["torch.func: is a custom op in a compiled graph, which has no transforms; use the backend 'reference'"]
    return []
