"""Backend `chunked`: the tiled computation of `tiled.py`."""

from typing import final

import torch
from torch import Tensor

from regard.attention.backends.protocol import Cost, transform_refusals
from regard.attention.engine.call import Call
from regard.attention.engine.custom_op import EAGER, run_as_op
from regard.attention.engine.tiled import compute
from regard.attention.engine.tiling import cut
from regard.attention.summary import SummaryResult


@final
class Chunked:
    """Tiled attention by PyTorch operations, in linear memory, for every call."""

    name = "chunked"

    def refusals(self, call: Call) -> list[str]:
        return transform_refusals()

    def cost(self, call: Call) -> Cost:
        areas = [(b.rows.stop - b.rows.start) * t.width for b in cut(call) for t in b.tiles]
        batch, heads, _, head_dim = call.query.shape
        elements = 2 + call.spec.score.width(head_dim)  # per pair: score, weight and intermediates of the score
        return Cost(sum(areas), batch * heads * max(areas, default=0) * elements * call.dtype.itemsize)

    def run(self, call: Call) -> tuple[Tensor, SummaryResult | None]:
        return run_as_op(call, self.name) if torch.compiler.is_compiling() else compute(call)


EAGER["chunked"] = compute
