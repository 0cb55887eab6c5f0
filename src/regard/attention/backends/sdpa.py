"""PyTorch's own fused kernels, where they mean exactly the same."""

import threading
from contextlib import nullcontext
from typing import final

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from regard.attention.backends.protocol import Cost
from regard.attention.engine.call import Call
from regard.attention.engine.formula import shield
from regard.attention.engine.tile_sum import any_dual
from regard.attention.engine.tracing import forward_mode, transforms
from regard.attention.normalizer import Softmax
from regard.attention.patterns.pattern import Causal, Full
from regard.attention.score import Dot
from regard.attention.summary import Seen

HARMLESS = 1e10  # times what is seen, far from the largest float32
# Under a mask on a GPU, all but cuDNN's kernel: its gradient is NaN for rows whose scores lie far below 0, in PyTorch
# 2.11 (pytorch/pytorch#196678).
MASKING = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_CHOOSING = threading.Lock()


@final
class SDPA:
    """torch.nn.functional.scaled_dot_product_attention. A pattern other than Full or an aligned Causal costs a mask."""

    name = "sdpa"

    def refusals(self, call: Call) -> list[str]:
        spec, reasons = call.spec, []
        if not isinstance(spec.score, Dot):
            reasons.append(f"score: computes Dot only, not {spec.score}")
        elif spec.score.softcap is not None:
            reasons.append("score: has no softcap")
        elif isinstance(spec.score.scale, Tensor):
            reasons.append("score: takes a number as scale, not a tensor")
        if not isinstance(spec.normalizer, Softmax):
            reasons.append(f"normalizer: computes Softmax only, not {spec.normalizer}")
        else:
            if spec.normalizer.sink is not None:
                reasons.append("normalizer: has no sink")
            if spec.normalizer.prior is not None:
                reasons.append("normalizer: has no prior")
        if call.seed is not None:
            reasons.append("dropout: draws other entries than the seed says")
        if call.summary is not None:
            reasons.append("summary: returns the output only")
        dual = forward_mode() and (torch.compiler.is_compiling() or any_dual((call.query, call.key, call.value)))
        if dual or "Jvp" in transforms():
            reasons.append("derivatives: has no forward mode")
        if transforms().count("Grad") > 1:
            reasons.append("derivatives: has no second ones")
        return reasons

    def cost(self, call: Call) -> Cost:
        batch, heads, num_queries, _ = call.query.shape
        pairs = num_queries * call.key.shape[2]
        if needs_mask(call):
            planes = batch * heads if call.spec.bias is not None or call.spec.pattern.held else 1
            return Cost(pairs, planes * pairs * (1 + call.query.element_size()))  # booleans, and what is added
        return Cost(pairs // 2 if isinstance(call.spec.pattern, Causal) else pairs, 0)

    def run(self, call: Call) -> tuple[Tensor, Seen | None]:
        query, key, value, spec = call.query, call.key, call.value, call.spec
        grouped = query.shape[1] != key.shape[1]
        scale = spec.score.scale if isinstance(spec.score, Dot) else None
        scale = None if isinstance(scale, Tensor) else scale
        if not needs_mask(call):
            causal = isinstance(spec.pattern, Causal)
            return functional.scaled_dot_product_attention(
                query, key, value, is_causal=causal, scale=scale, enable_gqa=grouped
            ), None
        query_BL, key_S = call.positions()
        visible = sees = mask = None
        if not isinstance(spec.pattern, Full):
            mask = visible = spec.pattern.visible(query_BL, key_S)
            if not _harmless(query, key, value, visible):
                query, key, value, sees = shield(query, key, value, visible)
        if spec.bias is not None:
            mask = spec.bias.bias(query_BL, key_S, query.dtype)
            if visible is not None:
                mask = torch.where(visible, mask, -torch.inf)
        # The choice of kernels is one for all threads, and each puts back what it found: so one after the other.
        with (
            _CHOOSING if query.is_cuda and not torch.compiler.is_compiling() else nullcontext(),
            sdpa_kernel(MASKING) if query.is_cuda else nullcontext(),
        ):
            output = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped
            )
        return output if sees is None else torch.where(sees, output, 0), None


def _harmless(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> bool:
    """Whether what is hidden can stay as it is: too small to overflow, and no query sees nothing. Reads data.

    Looking reads the data once and writes nothing; replacing takes ten times as long.
    """
    inputs = (query, key, value)
    if torch.compiler.is_compiling() or any(type(x) is not Tensor or x.device.type != "cpu" for x in inputs):
        return False
    if torch._C._functorch.maybe_current_level() is not None:  # vmap gives no numbers
        return False
    with torch.no_grad():
        norms = [torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (key, value)]
        return bool((norms[0] < HARMLESS) & (norms[1] < HARMLESS) & visible.any(-1).all())  # of NaN neither is true


def needs_mask(call: Call) -> bool:
    """Whether PyTorch's kernel would need the L x S mask for what the call hides or adds."""
    if call.spec.bias is not None:
        return True
    aligned = isinstance(call.query_start, int) and call.query_start == call.key_start
    return not (isinstance(call.spec.pattern, Full) or (isinstance(call.spec.pattern, Causal) and aligned))
